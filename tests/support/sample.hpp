// SPDX-License-Identifier: Apache-2.0
/// A problem with weights and inputs, ready to run through the public interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "deepcpu/deepcpu.hpp"

namespace deepcpu::test {

/// A spec with random numbers for everything that a run needs; all follow from the seed.
struct Sample {
  ModelSpec spec;
  Weights weights;
  std::vector<float> x;                   ///< [T,B,I]
  std::vector<std::vector<float>> extra;  ///< [T,B,width] each

  /// For spec.steps steps.
  static Sample make(const ModelSpec& spec, std::uint64_t seed = 1);
  /// Of a problem string; throws BadResult if it does not parse.
  static Sample make(const std::string& problem, std::uint64_t seed = 1);

  std::vector<std::span<const float>> extra_views() const;
  /// Numbers in y for `steps` steps, or for spec.steps of them.
  std::size_t y_size(std::int64_t steps = -1) const;
};

/// A legal schedule that uses `threads` threads whatever the sizes, and hoists blocks of 4 steps.
Schedule schedule_for(const ModelSpec& spec, Isa isa, int threads,
                      Parallel parallel = Parallel::none);
/// Compiles with that schedule. Throws BadResult if that fails.
Model compile_for(const Sample& sample, Isa isa, int threads, Parallel parallel = Parallel::none);

/// One run from zero states in a session of its own. Throws BadResult if it fails.
std::vector<float> run_once(const Model& model, const Sample& sample,
                            std::span<const std::int64_t> lengths = {});

}  // namespace deepcpu::test
