// SPDX-License-Identifier: Apache-2.0
/// ModelSpec: making, printing, widths.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>

#include "deepcpu/model.hpp"
#include "src/guard_memory.hpp"
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

Result<ModelSpec> ModelSpec::make(Cell cell, std::int64_t input, std::vector<std::int64_t> hidden,
                                  std::int64_t batch, std::int64_t projection,
                                  Direction direction) {
  return guard_memory("make a spec", [&]() -> Result<ModelSpec> {
    ModelSpec spec;
    spec.cell = std::move(cell);
    spec.input = input;
    spec.hidden = std::move(hidden);
    spec.batch = batch;
    spec.projection = projection;
    spec.direction = direction;
    if (auto status = spec.validate(); !status) return status.error();
    return spec;
  });
}

std::string ModelSpec::str() const {
  std::string text = fmt::format("{}:{}{}", cell.name(), kInput.letter, input);
  const bool equal =
      std::adjacent_find(hidden.begin(), hidden.end(), std::not_equal_to<>()) == hidden.end();
  if (equal && !hidden.empty()) {
    text += fmt::format("{}{}", kHidden.letter, hidden.front());
    if (hidden.size() > 1) text += fmt::format("{}{}", kLayers.letter, hidden.size());
  } else {
    text += fmt::format("{}{}", kHidden.letter, fmt::join(hidden, "/"));
  }
  if (projection != 0) text += fmt::format("{}{}", kProjection.letter, projection);
  if (const auto* row = find_direction(direction)) text += row->dims;
  text += fmt::format("{}{}{}{}", kBatch.letter, batch, kSteps.letter, steps);
  for (const auto& [key, value] : options) text += fmt::format(",{}={}", key, value);
  return text;
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
  return saturating_mul(width(cell.output_dim(), layers() - 1), directions());
}

}  // namespace deepcpu
