// SPDX-License-Identifier: Apache-2.0
/// PartTimes: where the time of a run goes, measured. The kernels of a schedule are run with parts
/// of their plans left out: nothing is added to the path of a run, and nobody waits for anybody
/// where a part is timed by itself.
#pragma once

#include <memory>
#include <vector>

#include "src/tune/race.hpp"
#include "src/tune/trial.hpp"

namespace deepcpu {

/// What one participant does in a run, in microseconds: the kernels of its own panels, by
/// themselves on one thread, again and again.
struct OwnTimes {
  /// The hoisted products; with hoist_ahead less what was gained by computing them in the loop.
  double hoist_us = 0.0;
  double loop_us = 0.0;   ///< the time loop: products and element-wise work
  double gates_us = 0.0;  ///< the time loop with all products left out
  double total() const { return hoist_us + loop_us; }
};

struct PartTimes {
  RaceTime run;           ///< whole runs
  double calls_us = 0.0;  ///< runs with nothing in the kernels: calls, blocks, waking helpers
  std::vector<OwnTimes> participants;

  /// Index of the one that has most to do.
  std::size_t busiest() const;
  /// What is left of a run when the calls and the work of the busiest participant are taken off:
  /// waiting, the exchange, and what the parts do to each other in the caches. A difference of
  /// medians, so it may be a little below zero.
  double rest_us() const;
};

/// All parts take turns for about `seconds`. Errors: as Trial::make; a schedule that needs code
/// where only the interpreter serves. Runs on the calling thread and on helpers.
Result<PartTimes> measure_parts(const TrialData& data, const Schedule& schedule, double seconds);

}  // namespace deepcpu
