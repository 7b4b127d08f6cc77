// SPDX-License-Identifier: Apache-2.0
/// Race: times several callables against each other in interleaved rounds, so that what disturbs
/// the machine for a while, or slows it for good, hits all of them alike.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "src/tune/measure.hpp"

namespace deepcpu {

struct Racer {
  std::function<void()> run;
  std::function<void()> prepare;  ///< before every call, not timed; may be empty
};

/// Rounds before the first racer is dropped: fewer say little of its time.
inline constexpr int kTrialRounds = 3;

struct RaceProgress {
  int rounds = 0;          ///< so far
  int left = 0;            ///< racers not yet dropped
  std::size_t leader = 0;  ///< the fastest of them
  double leader_us = 0.0;  ///< median of one call
};

struct RaceOptions {
  double seconds = 3.0;        ///< for all together
  double slot_seconds = 5e-4;  ///< shortest turn of one racer in a round
  int least_rounds = 7;        ///< of those that stay to the end, also if time is up
  int most_rounds = 61;
  bool drop_losers = true;
  /// Asked after every turn; true ends the race with what is known. Of a round that is not over
  /// only the first counts: a ratio needs the time of racer 0 in the same round.
  std::function<bool()> stop;
  /// Called after every round.
  std::function<void(const RaceProgress&)> progress;
};

struct RaceTime {
  double median_us = 0.0;  ///< of one call; 0 if it never ran
  double spread = 0.0;     ///< distance of the quartiles over the median
  /// Median over the rounds of its time over that of racer 0 in the same round.
  double ratio = 0.0;
  int rounds = 0;
};

/// One entry per racer. A racer whose ratio is clearly above the best is dropped, sooner the worse
/// it is; racer 0 stays. Runs on the calling thread.
std::vector<RaceTime> race(const std::vector<Racer>& racers, const RaceOptions& options,
                           Clock now = wall_seconds);

/// Of the racers that stayed longest, the one with the least ratio.
std::size_t winner(const std::vector<RaceTime>& times);

/// The same racers raced several times. The one with the least median of its times, each relative
/// to the mean of its race; the first of those that are worse by no more than the part `tie`. A
/// race that somebody did not run in, as it was ended early, does not count; 0 if none does.
std::size_t winner(const std::vector<std::vector<RaceTime>>& races, double tie);

}  // namespace deepcpu
