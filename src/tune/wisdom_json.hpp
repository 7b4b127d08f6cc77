// SPDX-License-Identifier: Apache-2.0
/// Wisdom files as text. Their form is documented by wisdom.schema.json.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/tune/wisdom_entry.hpp"

namespace deepcpu {

inline constexpr int kWisdomFormat = 1;
/// Some thousand entries. A file of this size takes a few hundred megabytes while it is read.
inline constexpr std::size_t kMostWisdomBytes = std::size_t{8} << 20;
inline constexpr std::size_t kMostWisdomEntries = 1 << 16;

/// One entry of a file: its text, and what it says if it is legal.
struct WisdomItem {
  std::string text;                  ///< as it stands in the file
  std::string id;                    ///< of its key; empty if the key is refused
  std::optional<WisdomEntry> entry;  ///< if it is legal on the machine that it names
  std::string refused;               ///< else why not
  /// Its cell is known by name, so that lowering has accepted the schedule.
  bool lowered = false;
};

/// Reads a whole file's text. Errors are those that concern all of it: too long, no JSON, another
/// format, unknown fields beside the entries. What is wrong with one entry stands in its item.
Result<std::vector<WisdomItem>> parse_wisdom(std::string_view text);

/// The text of a file with these items.
std::string wisdom_text(const std::vector<WisdomItem>& items);

/// A legal entry as an item of a file.
WisdomItem to_item(const WisdomEntry& entry);

}  // namespace deepcpu
