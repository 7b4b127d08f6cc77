// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// A JSON value that goes away without needing memory. The destructor of nlohmann::json allocates
/// where a value holds others, and what a destructor throws ends the program.
class JsonTree : public nlohmann::json {
 public:
  explicit JsonTree(nlohmann::json&& value) noexcept : nlohmann::json(std::move(value)) {}
  JsonTree(JsonTree&&) noexcept = default;
  JsonTree& operator=(JsonTree&&) = delete;
  ~JsonTree();
};

/// Parses JSON of unknown origin; throws nothing but std::bad_alloc. Refused, with a sentence: text
/// of more than `max_bytes`, arrays and objects nested more than `max_depth` deep, a key that an
/// object holds twice, numbers that no double holds, and everything that is not JSON.
Result<JsonTree> parse_json(std::string_view text, std::size_t max_depth, std::size_t max_bytes);

}  // namespace deepcpu
