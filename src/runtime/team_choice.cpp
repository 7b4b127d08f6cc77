// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/team_choice.hpp"

#include <algorithm>
#include <bit>

namespace deepcpu {
namespace {
std::size_t at(TeamChoice::Way way) { return static_cast<std::size_t>(way); }
}  // namespace

TeamChoice::Way TeamChoice::next(std::int64_t steps, bool ragged) noexcept {
  counts_ = false;
  if (steps <= 0) return last_;
  steps_ = static_cast<std::uint64_t>(steps);
  Class& c = current();
  if (ragged) {
    // With rows of several lengths that way leaves all to one thread.
    last_ = c.way == Way::hoist ? Way::team : c.way;
    return last_;
  }
  counts_ = allows(Way::alone) || allows(Way::hoist);
  if (counts_ && c.ways == 0 && due(c)) begin_trials(c);
  last_ = c.ways > 0 ? c.tried[c.trial / kTrials] : c.way;
  return last_;
}

void TeamChoice::took(double time) noexcept {
  if (!counts_) return;
  Class& c = current();
  const double step = time / static_cast<double>(steps_);
  c.ways > 0 ? compare(c, step) : learn(c, step);
}

TeamChoice::Class& TeamChoice::current() noexcept {
  return classes_[static_cast<std::size_t>(std::bit_width(steps_))];
}

/// To all runs of a class or to none, so that trials which one of them begins the others can end.
bool TeamChoice::allows(Way way) const noexcept {
  const auto class_of = [](std::int64_t steps) {
    return std::bit_width(static_cast<std::uint64_t>(steps));
  };
  const auto own = std::bit_width(steps_);
  if (way == Way::alone) return own <= class_of(range_.most_alone);
  if (way == Way::hoist) return range_.least_hoist > 0 && own >= class_of(range_.least_hoist);
  return true;
}

void TeamChoice::begin_trials(Class& c) const noexcept {
  c.trial = 0;
  for (const Way way : {Way::team, Way::hoist, Way::alone}) {
    if (way != c.way && allows(way)) c.tried[c.ways++] = way;
  }
  c.tried[c.ways++] = c.way;
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
  double& least = c.least[at(c.tried[c.trial / kTrials])];
  const std::uint32_t number = c.trial % kTrials;
  if (number == 1 || (number > 1 && time < least)) least = time;
  if (++c.trial == c.ways * kTrials) conclude(c);
}

void TeamChoice::conclude(Class& c) noexcept {
  Way best = c.tried[0];
  for (std::size_t i = 1; i + 1 < c.ways; ++i) {
    if (c.least[at(c.tried[i])] < c.least[at(best)]) best = c.tried[i];
  }
  const bool better = c.least[at(best)] < kBetter * c.least[at(c.way)];
  c.period = better || c.before == 0.0 ? kPeriod : std::min(2 * c.period, kLongest);
  if (better) c.way = best;
  c.usual = c.before = c.least[at(c.way)];
  c.since = 0;
  c.ways = 0;
}

}  // namespace deepcpu
