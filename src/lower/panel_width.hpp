// SPDX-License-Identifier: Apache-2.0
/// How many unit blocks a stage's panels take, by the schedule and the number of participants that
/// share the stage.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "deepcpu/schedule.hpp"
#include "src/lower/align.hpp"

namespace deepcpu::lower {

/// Unit blocks of the participant that has the most, if parts of `units` blocks are divided as
/// lower::Sharing says: the last participants are the first to own one more.
constexpr std::uint32_t largest_share(std::uint32_t blocks, std::uint32_t units,
                                      std::uint32_t participants) {
  if (participants == 1) return blocks;
  const std::uint32_t parts = parts_of(blocks, units);
  const std::uint32_t most = parts_of(parts, participants);
  const bool last_alone = parts % participants == 1;
  return last_alone ? blocks - (parts - most) * units : most * units;
}

/// The panels of one stage. In the time loop all stages of one width know of each other, since what
/// a participant owns is the same in all of them: see step_plan.cpp.
struct PanelWidth {
  std::uint32_t blocks = 1;  ///< of the whole stage
  std::uint32_t narrow = 1;  ///< a power of two or all blocks
  std::uint32_t wide = 1;    ///< alike, so that wider panels end where narrow ones do
  /// Nothing is multiplied: wide for one participant and narrow for several, whatever is decided.
  bool plain = false;
  /// Of all stages of this width that multiply: the most blocks of a narrow panel.
  std::uint32_t coarsest = narrow;
  /// The fewest and the most blocks of panels that are cut for an even division; most 0: never.
  std::uint32_t fewest = 1;
  std::uint32_t most = 0;

  /// Where narrow panels give one participant more blocks than single blocks would, or leave one
  /// without any, others are cut that do not; where none may, panels stay as they are. Experiment:
  /// DESIGN, 34.
  std::uint32_t units(std::uint32_t participants, Panel panel) const {
    if (plain) return participants == 1 ? wide : narrow;
    const bool wider = panel == Panel::wide;
    if (participants == 1) return wider ? wide : narrow;
    if (even(coarsest, participants)) return wider && even(wide, participants) ? wide : narrow;
    const std::uint32_t low = lowest(participants);
    const std::uint32_t cut = narrow_cut(low, participants);
    if (cut > 0) return wider ? widest_even(most, cut, participants) : cut;
    const bool fair = largest_share(blocks, wide, participants) <=
                          largest_share(blocks, coarsest, participants) &&
                      (enough(wide, participants) || !enough(coarsest, participants));
    return wider && fair ? wide : narrow;
  }

 private:
  /// Unit blocks of narrow panels that are cut: as many as narrow panels have at most, if such
  /// divide evenly, else the fewest beyond; 0 if none do.
  std::uint32_t narrow_cut(std::uint32_t low, std::uint32_t participants) const {
    for (std::uint32_t u = std::min(coarsest, most); u >= low; --u) {
      if (even(u, participants)) return u;
    }
    for (std::uint32_t u = std::max(low, coarsest); u <= most; ++u) {
      if (even(u, participants)) return u;
    }
    return 0;
  }

  /// A multiple of `step`, which is even: wider panels end where those do.
  std::uint32_t widest_even(std::uint32_t from, std::uint32_t step,
                            std::uint32_t participants) const {
    std::uint32_t u = from / step * step;
    while (!even(u, participants)) u -= step;
    return u;
  }

  /// Panels lower than narrow ones cost some per cent, which the more even division must be worth.
  std::uint32_t lowest(std::uint32_t participants) const {
    constexpr std::uint32_t kLeastGain = 18;  // an eighteenth
    const std::uint32_t best = largest_share(blocks, 1, participants);
    const std::uint32_t saved = largest_share(blocks, coarsest, participants) - best;
    const bool pays = saved * kLeastGain >= best || !enough(coarsest, participants);
    return pays ? fewest : std::max(fewest, coarsest);
  }

  /// Whether everybody has a panel.
  bool enough(std::uint32_t units, std::uint32_t participants) const {
    return parts_of(blocks, units) >= std::min(participants, blocks);
  }

  bool even(std::uint32_t units, std::uint32_t participants) const {
    return largest_share(blocks, units, participants) == largest_share(blocks, 1, participants) &&
           enough(units, participants);
  }
};

/// Unit blocks of a panel of hoisted products: a narrow one's, but where several participants have
/// shares of the time loop, panels end where these do.
inline std::uint32_t hoisted_units(const PanelWidth& width, const PanelWidth& share,
                                   std::uint32_t participants) {
  if (participants == 1) return width.narrow;
  const std::uint32_t together = share.units(participants, Panel::narrow);
  return std::gcd(std::min(width.narrow, together), together);
}

}  // namespace deepcpu::lower
