// SPDX-License-Identifier: Apache-2.0
/// Phased schedules of one layer: which classes of products are computed together, in which order,
/// and which of them leave the time loop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/dag/matmul_dag.hpp"
#include "src/dag/poset.hpp"

namespace deepcpu {

/// Indices into MatmulDag::classes(), ascending. No class of a phase needs another one of it.
using Phase = std::vector<int>;

/// Every class stands in exactly one phase. A class comes in a later phase than those it needs,
/// `whole` before `block` before `step`. Only time-independent classes stand in `whole` and
/// `block`.
struct PhasedSchedule {
  std::vector<Phase> whole;  ///< once per run, for all steps together
  std::vector<Phase> block;  ///< once per block of steps
  std::vector<Phase> step;   ///< in every step
  bool operator==(const PhasedSchedule&) const = default;
};

/// Calls `visit` for every valid schedule, each once, without storing them; the first one hoists
/// all it can whole and has the fewest phases. Stops early when `visit` returns false; returns
/// false then. The number of schedules grows exponentially with the number of classes.
bool for_each_schedule(const MatmulDag& dag,
                       const std::function<bool(const PhasedSchedule&)>& visit);

/// The number of schedules that for_each_schedule visits, without visiting them; nothing if that
/// is too much work.
std::optional<Count> count_schedules(const MatmulDag& dag);

/// Whether a schedule is one of them, else a sentence that names the class and the rule.
Status check_schedule(const MatmulDag& dag, const PhasedSchedule& schedule);

/// `whole {0} | step {1} {2}`: phases in braces, parts that are empty left out.
std::string to_text(const PhasedSchedule& schedule);

/// How many schedules there are, raw, after validity and after fusion into classes, and the first
/// ones of them.
std::string phases_text(const MatmulDag& dag, const ModelSpec& spec);

}  // namespace deepcpu
