// SPDX-License-Identifier: Apache-2.0
/// How many unit blocks a stage's panels take, by the number of participants that share it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace deepcpu::lower {

/// Unit blocks of the participant that has the most, if panels of `units` blocks are divided.
constexpr std::uint32_t largest_share(std::uint32_t blocks, std::uint32_t units,
                                      std::uint32_t participants) {
  const std::uint32_t panels = (blocks + units - 1) / units;
  return std::min(blocks, (panels + participants - 1) / participants * units);
}

struct PanelWidth {
  std::uint32_t blocks = 1;  ///< of the whole stage
  std::uint32_t narrow = 1;
  std::uint32_t wide = 1;   ///< for a stage that nobody shares
  bool share_wide = false;  ///< and for others, where that gives nobody more to do

  std::uint32_t units(std::uint32_t participants) const {
    if (participants == 1) return wide;
    const bool fair =
        largest_share(blocks, wide, participants) <= largest_share(blocks, narrow, participants);
    return share_wide && fair ? wide : narrow;
  }
};

}  // namespace deepcpu::lower
