// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/team_choice.hpp"

#include <algorithm>
#include <bit>

namespace deepcpu {
namespace {
TeamChoice::Way opposite(TeamChoice::Way way) {
  return way == TeamChoice::Way::team ? TeamChoice::Way::alone : TeamChoice::Way::team;
}
}  // namespace

TeamChoice::Way TeamChoice::next(std::int64_t steps, bool ragged) noexcept {
  steps_ = static_cast<std::uint64_t>(std::max<std::int64_t>(steps, 0));
  counts_ = steps_ > 0 && !ragged;
  Class& c = current();
  if (!counts_) return c.way;
  if (c.trials == 0 && c.left == 0) c.trials = kTrials;
  return c.trials > 0 ? opposite(c.way) : c.way;
}

void TeamChoice::took(double time) noexcept {
  if (!counts_) return;
  Class& c = current();
  const double step = time / static_cast<double>(steps_);
  c.trials > 0 ? compare(c, step) : learn(c, step);
}

TeamChoice::Class& TeamChoice::current() noexcept {
  return classes_[static_cast<std::size_t>(std::bit_width(steps_))];
}

/// One that was interrupted counts as twice the usual time at most, and the first ones, which pay
/// for cold caches, only as far as none was faster.
void TeamChoice::learn(Class& c, double time) noexcept {
  constexpr double kWeight = 1.0 / 8.0;
  --c.left;
  if (c.before == 0.0) {
    c.usual = c.usual == 0.0 ? time : std::min(c.usual, time);
    return;
  }
  c.usual += kWeight * (std::min(time, 2.0 * c.usual) - c.usual);
  if (c.usual > kSlower * c.before) c.left = 0;
}

void TeamChoice::compare(Class& c, double time) noexcept {
  if (c.trials == kTrials - 1 || (c.trials < kTrials && time < c.other)) c.other = time;
  if (--c.trials > 0) return;
  if (c.other < kBetter * c.usual) {
    c.way = opposite(c.way);
    c.usual = c.other;
    c.period = kPeriod;
  } else if (c.before > 0.0) {
    c.period = std::min(2 * c.period, kLongest);
  }
  c.before = c.usual;
  c.left = c.period;
}

}  // namespace deepcpu
