// SPDX-License-Identifier: Apache-2.0
/// How many unit blocks a stage's panels take, by the schedule and the number of participants that
/// share the stage.
#pragma once

#include <algorithm>
#include <cstdint>

#include "deepcpu/schedule.hpp"

namespace deepcpu::lower {

/// Unit blocks of the participant that has the most, if panels of `units` blocks are divided.
constexpr std::uint32_t largest_share(std::uint32_t blocks, std::uint32_t units,
                                      std::uint32_t participants) {
  const std::uint32_t panels = (blocks + units - 1) / units;
  return std::min(blocks, (panels + participants - 1) / participants * units);
}

/// Both widths are powers of two or all blocks, so that the wider panels end where narrow ones do.
struct PanelWidth {
  std::uint32_t blocks = 1;  ///< of the whole stage
  std::uint32_t narrow = 1;
  std::uint32_t wide = 1;
  /// Nothing is multiplied: wide for one participant and narrow for several, whatever is decided.
  bool plain = false;

  std::uint32_t units(std::uint32_t participants, Panel panel) const {
    if (plain) return participants == 1 ? wide : narrow;
    // Nobody may have more to do than with narrow panels.
    const bool fair =
        largest_share(blocks, wide, participants) <= largest_share(blocks, narrow, participants);
    return panel == Panel::wide && fair ? wide : narrow;
  }
};

}  // namespace deepcpu::lower
