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
  counts_ = steps > 0 && steps <= most_steps_ && !ragged;
  if (steps <= 0) return last_;
  steps_ = static_cast<std::uint64_t>(steps);
  Class& c = current();
  if (counts_ && c.trials == 0 && due(c)) c.trials = 2 * kTrials;
  last_ = counts_ && c.trials > kTrials ? opposite(c.way) : c.way;
  if (steps > most_steps_) last_ = Way::team;
  return last_;
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

bool TeamChoice::due(const Class& c) noexcept {
  if (c.before == 0.0) return c.since >= kFirst;
  return c.since >= c.period || (c.since >= kLeast && c.usual > kSlower * c.before);
}

/// One that was interrupted counts as twice the usual time at most.
void TeamChoice::learn(Class& c, double time) noexcept {
  constexpr double kWeight = 1.0 / 8.0;
  ++c.since;
  if (c.before == 0.0) return;
  c.usual += kWeight * (std::min(time, 2.0 * c.usual) - c.usual);
}

void TeamChoice::compare(Class& c, double time) noexcept {
  double& least = c.least[c.trials > kTrials ? 1 : 0];
  const std::uint32_t number = (2 * kTrials - c.trials) % kTrials;
  if (number == 1 || (number > 1 && time < least)) least = time;
  if (--c.trials == 0) conclude(c);
}

void TeamChoice::conclude(Class& c) noexcept {
  const bool better = c.least[1] < kBetter * c.least[0];
  c.period = better || c.before == 0.0 ? kPeriod : std::min(2 * c.period, kLongest);
  if (better) c.way = opposite(c.way);
  c.usual = c.before = c.least[better ? 1 : 0];
  c.since = 0;
}

}  // namespace deepcpu
