// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/arrays.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "src/io/checked.hpp"
#include "src/model/random_numbers.hpp"
#include "src/runtime/memory.hpp"

namespace deepcpu::cli {
namespace {

const Node& input_node(const ModelSpec& spec, std::size_t input) {
  return spec.cell.nodes()[static_cast<std::size_t>(spec.cell.inputs()[input])];
}

}  // namespace

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("({}{})", fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
}

Shape input_shape(const ModelSpec& spec, std::size_t input) {
  return {spec.steps, spec.batch, spec.width(input_node(spec, input).dim, 0)};
}

std::string_view input_name(const ModelSpec& spec, std::size_t input) {
  return input_node(spec, input).name;
}

Shape output_shape(const ModelSpec& spec) { return {spec.steps, spec.batch, spec.output_width()}; }

Shape state_shape(const ModelSpec& spec, const State& state) {
  const std::int64_t first = spec.width(state.dim, 0);
  std::int64_t widths = 0;
  bool equal = true;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    const std::int64_t width = spec.width(state.dim, layer);
    widths += width;
    equal = equal && width == first;
  }
  if (!equal) return {widths * spec.directions() * spec.batch};
  return {static_cast<std::int64_t>(spec.layers()) * spec.directions(), spec.batch, first};
}

Status check_memory(const ModelSpec& spec) {
  std::optional<std::uint64_t> floats = element_count(output_shape(spec));
  for (std::size_t i = 0; floats && i < spec.cell.inputs().size(); ++i) {
    const auto more = element_count(input_shape(spec, i));
    floats = more ? checked_add(*floats, *more) : std::nullopt;
  }
  const auto bytes = floats ? checked_mul(*floats, sizeof(float)) : std::nullopt;
  const auto what =
      fmt::format("steps={}, batch={}: inputs and output take", spec.steps, spec.batch);
  return check_available(what, bytes);
}

NpyFloats make_array(Shape shape) {
  const auto count = element_count(shape).value_or(0);
  return NpyFloats{std::move(shape), std::vector<float>(static_cast<std::size_t>(count))};
}

NpyFloats random_array(std::string_view name, Shape shape, std::uint64_t seed) {
  const auto count = static_cast<std::size_t>(element_count(shape).value_or(0));
  return NpyFloats{std::move(shape), random_numbers(name, count, 1.0F, seed)};
}

Result<NpyFloats> read_array(const std::string& path, std::string_view what, const Shape& shape) {
  auto array = read_npy_f32(path, shape.size());
  if (array && array->shape != shape) {
    return Error(fmt::format("{}: shape {}: {} must have {}", path, shape_text(array->shape), what,
                             shape_text(shape)));
  }
  return array;
}

std::vector<NpyFloats> random_inputs(const ModelSpec& spec, std::uint64_t seed) {
  std::vector<NpyFloats> inputs;
  for (std::size_t i = 0; i < spec.cell.inputs().size(); ++i) {
    inputs.push_back(random_array(input_name(spec, i), input_shape(spec, i), seed));
  }
  return inputs;
}

bool names_batch(std::string_view problem) noexcept {
  const std::size_t colon = std::min(problem.find(':'), problem.size());
  const std::size_t comma = std::min(problem.find(',', colon), problem.size());
  // In the dims part a `b` with a digit after it is the batch; the other b is that of `bi`.
  for (std::size_t i = colon; i + 1 < comma; ++i) {
    if (problem[i] == 'b' && problem[i + 1] >= '0' && problem[i + 1] <= '9') return true;
  }
  return false;
}

}  // namespace deepcpu::cli
