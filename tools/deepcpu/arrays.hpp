// SPDX-License-Identifier: Apache-2.0
/// The arrays that a model takes and gives: their shapes, read from files or made up.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/io/npy.hpp"

namespace deepcpu::cli {

using Shape = std::vector<std::int64_t>;

/// "(2, 3)".
std::string shape_text(std::span<const std::int64_t> shape);

/// [T, batch, width] of the cell's input number `input`; 0 is x.
Shape input_shape(const ModelSpec& spec, std::size_t input);
std::string_view input_name(const ModelSpec& spec, std::size_t input);
/// [T, batch, output width].
Shape output_shape(const ModelSpec& spec);
/// [layers * directions, batch, width]; [sum of all numbers] where the width differs per layer.
Shape state_shape(const ModelSpec& spec, const State& state);

/// That the inputs and the output of a run fit into this machine's memory.
Status check_memory(const ModelSpec& spec);

/// Zeros. The shape must be one that check_memory or ModelSpec::validate bounds.
NpyFloats make_array(Shape shape);
/// Uniform in [-1, 1), a function of `name`, shape and `seed`, the same on every machine.
NpyFloats random_array(std::string_view name, Shape shape, std::uint64_t seed);
/// A float32 file that must have this shape; `what` says in the error what the array is.
Result<NpyFloats> read_array(const std::string& path, std::string_view what, const Shape& shape);

/// Random arrays for all inputs of the cell, x first.
std::vector<NpyFloats> random_inputs(const ModelSpec& spec, std::uint64_t seed);

/// Whether the problem string states its batch. `problem` must be one that ModelSpec::parse takes.
bool names_batch(std::string_view problem) noexcept;

}  // namespace deepcpu::cli
