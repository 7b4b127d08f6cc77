// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// Parses JSON of unknown origin and never throws. Refused, with a sentence: text of more than
/// `max_bytes`, arrays and objects nested more than `max_depth` deep, a key that an object holds
/// twice, numbers that no double holds, and everything that is not JSON.
Result<nlohmann::json> parse_json(std::string_view text, std::size_t max_depth,
                                  std::size_t max_bytes);

}  // namespace deepcpu
