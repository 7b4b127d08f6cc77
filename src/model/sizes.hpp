// SPDX-License-Identifier: Apache-2.0
/// The numbers of a ModelSpec: their letters in problem strings, their names in sentences, their
/// ranges. Parsing, printing and validation read this one table.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "deepcpu/result.hpp"

namespace deepcpu {

struct Size {
  char letter;
  std::string_view name;
  std::int64_t low;
  std::int64_t high;
};

inline constexpr Size kInput{'i', "input", 1, 1 << 20};
inline constexpr Size kHidden{'h', "hidden", 1, 1 << 20};
inline constexpr Size kLayers{'l', "layers", 1, 1024};
inline constexpr Size kProjection{'p', "projection", 1, 1 << 20};
inline constexpr Size kBatch{'b', "batch", 1, 1024};
inline constexpr Size kSteps{'t', "steps", 0, INT32_MAX};
inline constexpr std::array kSizes = {kInput, kHidden, kLayers, kProjection, kBatch, kSteps};

/// Widest input of a layer: two directions of the widest hidden size.
inline constexpr std::int64_t kWidest = 2 * kHidden.high;

/// "hidden=0: must be between 1 and 1048576". `name` stands in for size.name if it is not empty.
Status check_size(const Size& size, std::int64_t value, std::string_view name = {});

}  // namespace deepcpu
