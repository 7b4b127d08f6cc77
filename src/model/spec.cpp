// SPDX-License-Identifier: Apache-2.0
/// ModelSpec: making, printing, widths.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>

#include "deepcpu/model.hpp"
#include "src/guard_memory.hpp"
#include "src/model/problem.hpp"
#include "src/model/sizes.hpp"

namespace deepcpu {
namespace {

struct DirectionWord {
  Direction direction;
  std::string_view text;
  std::string_view dims;  ///< in a problem string
};
constexpr std::array kDirections = {
    DirectionWord{Direction::forward, "forward", ""},
    DirectionWord{Direction::reverse, "reverse", "rev"},
    DirectionWord{Direction::bidirectional, "bidirectional", "bi"},
};

const DirectionWord* find_direction(Direction direction) noexcept {
  const auto* found = std::find_if(kDirections.begin(), kDirections.end(),
                                   [&](const auto& row) { return row.direction == direction; });
  return found == kDirections.end() ? nullptr : found;
}

/// a * b, or the largest number if that is smaller. Neither is negative in a valid spec.
std::int64_t saturating_mul(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? INT64_MAX : result;
}

}  // namespace

std::string_view to_string(Direction direction) noexcept {
  const auto* row = find_direction(direction);
  return row == nullptr ? "?" : row->text;
}

Result<ModelSpec> ModelSpec::make(Cell cell, ModelSizes sizes) {
  return guard_memory("make a spec", [&]() -> Result<ModelSpec> {
    ModelSpec spec;
    spec.cell = std::move(cell);
    spec.input = sizes.input;
    spec.hidden = std::move(sizes.hidden);
    spec.projection = sizes.projection;
    spec.direction = sizes.direction;
    spec.batch = sizes.batch;
    spec.steps = sizes.steps;
    if (auto status = spec.validate(); !status) return status.error();
    return spec;
  });
}

namespace {

/// i, h, l, p and the direction.
std::string dims_text(const ModelSpec& spec) {
  std::string text = fmt::format("{}{}", kInput.letter, spec.input);
  const auto& hidden = spec.hidden;
  const bool equal =
      std::adjacent_find(hidden.begin(), hidden.end(), std::not_equal_to<>()) == hidden.end();
  if (equal && !hidden.empty()) {
    text += fmt::format("{}{}", kHidden.letter, hidden.front());
    if (hidden.size() > 1) text += fmt::format("{}{}", kLayers.letter, hidden.size());
  } else {
    text += fmt::format("{}{}", kHidden.letter, fmt::join(hidden, "/"));
  }
  if (spec.projection != 0) text += fmt::format("{}{}", kProjection.letter, spec.projection);
  if (const auto* row = find_direction(spec.direction)) text += row->dims;
  return text;
}

std::string options_text(const ModelSpec& spec) {
  std::string text;
  for (const auto& [key, value] : spec.options) text += fmt::format(",{}={}", key, value);
  return text;
}

}  // namespace

std::string ModelSpec::str() const {
  return fmt::format("{}:{}{}{}{}{}{}", cell.name(), dims_text(*this), kBatch.letter, batch,
                     kSteps.letter, steps, options_text(*this));
}

std::string shape_text(std::string_view cell, const ModelSpec& spec) {
  return fmt::format("{}:{}{}", cell, dims_text(spec), options_text(spec));
}

std::int64_t ModelSpec::width(Dim dim, int layer) const {
  switch (dim) {
    case Dim::one:
      return 1;
    case Dim::hidden:
      return hidden[static_cast<std::size_t>(layer)];
    case Dim::proj:
      return projection;
    case Dim::input:
      break;
  }
  std::int64_t scale = 1;
  // A cell whose output is as wide as its input passes that width on from layer to layer.
  while (layer > 0) {
    scale = saturating_mul(scale, directions());
    --layer;
    if (cell.output_dim() != Dim::input) {
      return saturating_mul(scale, width(cell.output_dim(), layer));
    }
  }
  return saturating_mul(scale, input);
}

std::int64_t ModelSpec::output_width() const {
  if (hidden.empty() || cell.nodes().empty()) return 0;  // made by hand, and not yet whole
  return saturating_mul(width(cell.output_dim(), layers() - 1), directions());
}

}  // namespace deepcpu
