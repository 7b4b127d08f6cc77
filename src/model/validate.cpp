// SPDX-License-Identifier: Apache-2.0
/// All rules that a ModelSpec must meet.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "deepcpu/model.hpp"
#include "src/guard_memory.hpp"
#include "src/io/checked.hpp"
#include "src/io/quote.hpp"
#include "src/model/registry.hpp"
#include "src/model/sizes.hpp"

namespace deepcpu {
namespace {

/// No model may take more, whatever the machine has.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;
/// Packed rows and rows of scratch are padded to whole vectors of at most this many floats.
constexpr std::uint64_t kPadding = 16;

std::uint64_t memory_limit() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page <= 0) return kMostBytes;
  const auto bytes =
      checked_mul(static_cast<std::uint64_t>(pages), static_cast<std::uint64_t>(page));
  return std::min(bytes.value_or(kMostBytes), kMostBytes);
}

Status check_numbers(const ModelSpec& spec) {
  if (auto status = check_size(kInput, spec.input); !status) return status;
  const auto layers = static_cast<std::int64_t>(spec.hidden.size());
  if (auto status = check_size(kLayers, layers); !status) return status;
  for (std::size_t layer = 0; layer < spec.hidden.size(); ++layer) {
    const std::string name = layers == 1 ? "hidden" : fmt::format("hidden[{}]", layer);
    if (auto status = check_size(kHidden, spec.hidden[layer], name); !status) return status;
  }
  if (spec.projection != 0) {
    if (auto status = check_size(kProjection, spec.projection); !status) return status;
  }
  if (auto status = check_size(kBatch, spec.batch); !status) return status;
  if (auto status = check_size(kSteps, spec.steps); !status) return status;
  if (to_string(spec.direction) == "?") {
    return Error(fmt::format("direction={}: must be forward, reverse or bidirectional",
                             static_cast<int>(spec.direction)));
  }
  return {};
}

Status check_cell(const ModelSpec& spec) {
  if (spec.cell.nodes().empty()) return Error("cell: is empty, build one with CellBuilder");
  if (!is_cell_name(spec.cell.name())) {
    return Error(
        fmt::format("cell={}: must be letters, digits and underscores", quote(spec.cell.name())));
  }
  return check_options(spec.cell.name(), spec.options);
}

Status check_projection(const ModelSpec& spec) {
  const bool wanted = spec.cell.uses(Dim::proj);
  if (spec.projection == 0) {
    if (!wanted) return {};
    return Error(fmt::format("projection: is missing, cell {} needs it", spec.cell.name()));
  }
  if (!wanted) {
    return Error(
        fmt::format("projection={}: cell {} has no projection", spec.projection, spec.cell.name()));
  }
  const std::int64_t smallest = *std::min_element(spec.hidden.begin(), spec.hidden.end());
  if (spec.projection > smallest) {
    return Error(
        fmt::format("projection={}: must be at most hidden={}", spec.projection, smallest));
  }
  return {};
}

Status check_layer_inputs(const ModelSpec& spec) {
  for (int layer = 1; layer < spec.layers(); ++layer) {
    const std::int64_t width = spec.width(Dim::input, layer);
    if (width > kWidest) {
      return Error(fmt::format("input of layer {}: is {} wide and must be at most {}", layer, width,
                               kWidest));
    }
  }
  return {};
}

/// "hidden=8", of a stack "hidden of layer 1=8": a width as sentences name it.
std::string describe_width(const ModelSpec& spec, Dim dim, int layer) {
  const std::string_view name = dim == Dim::proj ? "projection" : to_string(dim);
  const std::string where = spec.layers() > 1 ? fmt::format(" of layer {}", layer) : "";
  return fmt::format("{}{}={}", name, where, spec.width(dim, layer));
}

/// Symbolic widths that a cell combines must be equal numbers.
Status check_equal(const ModelSpec& spec, int layer, Dim narrow, Dim wide, std::string_view what) {
  if (narrow == Dim::one || spec.width(narrow, layer) == spec.width(wide, layer)) return {};
  return Error(
      fmt::format("{}: must equal {} because cell {} combines them element by element ({})",
                  describe_width(spec, narrow, layer), describe_width(spec, wide, layer),
                  spec.cell.name(), what));
}

Status check_element_widths(const ModelSpec& spec, int layer) {
  const auto& nodes = spec.cell.nodes();
  for (std::size_t id = 0; id < nodes.size(); ++id) {
    const Node& node = nodes[id];
    if (node.op == Op::matmul) continue;
    for (const int argument : {node.a, node.b}) {
      if (argument < 0) continue;
      auto status = check_equal(spec, layer, nodes[static_cast<std::size_t>(argument)].dim,
                                node.dim, fmt::format("node %{} {}", id, to_string(node.op)));
      if (!status) return status;
    }
  }
  for (const State& state : spec.cell.states()) {
    auto status = check_equal(spec, layer, nodes[static_cast<std::size_t>(state.next)].dim,
                              state.dim, fmt::format("next value of state {}", state.name));
    if (!status) return status;
  }
  return {};
}

/// A further input is one array that all layers read, so it needs one width.
Status check_further_inputs(const ModelSpec& spec) {
  const auto& inputs = spec.cell.inputs();
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    const Node& input = spec.cell.nodes()[static_cast<std::size_t>(inputs[i])];
    for (int layer = 1; layer < spec.layers(); ++layer) {
      if (spec.width(input.dim, layer) == spec.width(input.dim, 0)) continue;
      return Error(fmt::format("{}: must equal {} because all layers read the one input {}",
                               describe_width(spec, input.dim, layer),
                               describe_width(spec, input.dim, 0), input.name));
    }
  }
  return {};
}

/// Adds rows * cols float32, rows padded; absent once that passes 2^64.
std::optional<std::uint64_t> add_floats(std::optional<std::uint64_t> bytes, std::int64_t rows,
                                        std::int64_t cols) {
  const std::uint64_t padded =
      (static_cast<std::uint64_t>(rows) + kPadding - 1) / kPadding * kPadding;
  const auto floats = checked_mul(padded, static_cast<std::uint64_t>(cols));
  const auto more = floats ? checked_mul(*floats, sizeof(float)) : std::nullopt;
  return bytes && more ? checked_add(*bytes, *more) : std::nullopt;
}

/// Packed weights of all layers and directions.
std::optional<std::uint64_t> weight_bytes(const ModelSpec& spec) {
  std::optional<std::uint64_t> bytes = 0;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    for (const Parameter& parameter : spec.cell.parameters()) {
      const std::int64_t cols = parameter.is_matrix ? spec.width(parameter.cols, layer) : 1;
      bytes = add_floats(bytes, spec.width(parameter.rows, layer), cols * spec.directions());
    }
  }
  return bytes;
}

/// Tensors of all layers and directions, whose blocks need not all be parameters.
std::optional<std::uint64_t> tensor_bytes(const ModelSpec& spec) {
  std::optional<std::uint64_t> bytes = 0;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    std::set<std::string_view> seen;
    for (const Parameter& parameter : spec.cell.parameters()) {
      if (!seen.insert(parameter.tensor).second) continue;
      const std::int64_t cols = parameter.is_matrix ? spec.width(parameter.cols, layer) : 1;
      const std::int64_t copies = std::int64_t{parameter.blocks} * spec.directions();
      bytes = add_floats(bytes, spec.width(parameter.rows, layer), cols * copies);
    }
  }
  return bytes;
}

/// All values of one step of all layers and directions.
std::optional<std::uint64_t> step_bytes(const ModelSpec& spec) {
  std::optional<std::uint64_t> bytes = 0;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    for (const Node& node : spec.cell.nodes()) {
      bytes = add_floats(bytes, spec.width(node.dim, layer), spec.batch * spec.directions());
    }
  }
  return bytes;
}

Status check_memory(const ModelSpec& spec) {
  const std::uint64_t limit = memory_limit();
  const std::int64_t widest = *std::max_element(spec.hidden.begin(), spec.hidden.end());
  const auto sentence = [&](std::string_view what, std::optional<std::uint64_t> bytes) {
    return Error(
        fmt::format("input={}, hidden={}, layers={}, batch={}: the {} {} bytes, more than "
                    "the {} that are allowed here",
                    spec.input, widest, spec.layers(), spec.batch, what,
                    bytes ? std::to_string(*bytes) : "over 2^64", limit));
  };
  const auto weights = weight_bytes(spec);
  if (!weights || *weights > limit) return sentence("weights take", weights);
  const auto tensors = tensor_bytes(spec);
  if (!tensors || *tensors > limit) return sentence("tensors of the weights take", tensors);
  const auto step = step_bytes(spec);
  if (!step || *step > limit) return sentence("values of one step take", step);
  return {};
}

Status check_all(const ModelSpec& spec) {
  for (const auto check : {check_numbers, check_cell, check_projection, check_layer_inputs}) {
    if (auto status = check(spec); !status) return status;
  }
  for (int layer = 0; layer < spec.layers(); ++layer) {
    if (auto status = check_element_widths(spec, layer); !status) return status;
  }
  if (auto status = check_further_inputs(spec); !status) return status;
  return check_memory(spec);
}

}  // namespace

Status check_size(const Size& size, std::int64_t value, std::string_view name) {
  if (value >= size.low && value <= size.high) return {};
  return Error(fmt::format("{}={}: must be between {} and {}", name.empty() ? size.name : name,
                           value, size.low, size.high));
}

Status ModelSpec::validate() const {
  return guard_memory("check the spec", [&] { return check_all(*this); });
}

}  // namespace deepcpu
