// SPDX-License-Identifier: Apache-2.0
/// The float64 reference: walks a Cell's graph in double precision, one node at a time, for a
/// whole ModelSpec. It shares no code with src/ and jit/; only the data types of the public
/// headers. Nothing is fused, hoisted or reordered, so it is slow and hard to get wrong.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"

namespace deepcpu::oracle {

/// What a run reads. Everything is time-major, whatever the layout of the session.
struct Input {
  std::int64_t steps = 0;
  std::vector<double> x;                   ///< [T,B,I]
  std::vector<std::vector<double>> extra;  ///< per further input [T,B,width]
  /// Valid steps per row, 0..T; empty = all T. Outputs past the end are zero, final states those
  /// of the last valid step, the reverse direction starts at the last valid step, and a row of
  /// length 0 keeps its initial state.
  std::vector<std::int64_t> lengths;
  /// State name -> [layers * directions, batch, width], layers of different width one after the
  /// other. A state that is not named starts at zero.
  std::map<std::string, std::vector<double>> initial;
};

struct Output {
  std::vector<double> y;                             ///< [T,B,output_width]
  std::map<std::string, std::vector<double>> final;  ///< shaped as Input::initial
};

/// Relative rounding errors put on every operation, to see how far float32 could be off: Monte
/// Carlo arithmetic (Parker, "Monte Carlo Arithmetic", 1997). `seed` picks one sample.
struct Noise {
  std::uint64_t seed = 1;
};

/// Runs the model. Weight tensors are looked up by name: `<tensor>_l<layer>`, with `_reverse`
/// appended for the second direction of a bidirectional model. Throws
/// std::runtime_error if a tensor is missing or an array has the wrong size: a test's own mistake.
/// `noise` null: float64 all through.
Output evaluate(const ModelSpec& spec, const Weights& weights, const Input& input,
                const Noise* noise = nullptr);

/// float64 results with a bound for what a float32 implementation may differ by.
struct Bounded {
  Output exact;
  std::vector<double> y_bound;  ///< for each element of y
  std::map<std::string, std::vector<double>> final_bound;
};

/// evaluate() with a bound from `samples` noisy runs. Of each row and layer the bound at step t is
///     8 * largest deviation of any noisy run from the exact one, in that row, up to step t
///     + 4 ulp of the largest value of that row + 1e-30.
/// Reasons: the noise has the size of the permitted error of each operation (half an ulp, sums as
/// independent errors of a chain of FMAs; 1.5 ulp for exp, 3 ulp for sigmoid and tanh), so the
/// deviations follow the same paths as real rounding errors and grow with the condition of the
/// problem; a real run is one more draw from a distribution like it, and the factor 8 covers the
/// difference between draws. The last terms cover rows where the draws were small by chance and
/// the flush to zero below 2^-126.
Bounded evaluate_with_bound(const ModelSpec& spec, const Weights& weights, const Input& input,
                            int samples = 6);

/// Width of a symbolic dimension, worked out here and not by ModelSpec.
std::int64_t width_of(const ModelSpec& spec, Dim dim, int layer);
/// Width of y: the last layer's output times the directions.
std::int64_t output_width(const ModelSpec& spec);

}  // namespace deepcpu::oracle
