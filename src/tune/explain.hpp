// SPDX-License-Identifier: Apache-2.0
/// Explain: everything there is to know about the choice of a schedule, gathered in one value from
/// the graph, the space, the cost model, the limit and the clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/cost_model.hpp"
#include "src/tune/limit.hpp"
#include "src/tune/part_times.hpp"

namespace deepcpu {

struct ExplainOptions {
  int threads = 1;                        ///< a cap
  std::optional<Isa> isa{};               ///< a cap
  std::optional<Schedule> schedule{};     ///< explain this one instead of the one that is chosen
  const MachineModel* machine = nullptr;  ///< a described one: nothing is run; null: this one
  bool measure = false;                   ///< time the candidates, and choose by that
  double seconds = 2.0;                   ///< for all that is timed
};

/// A schedule that is not the one explained, and why not.
struct Alternative {
  Schedule schedule;
  std::string differs;  ///< its decisions that are other ones
  Prediction predicted;
  RaceTime measured;  ///< all zero if it was not timed
  /// What it would have taken in the rounds of the schedule explained; 0 if it was not timed.
  double measured_us = 0.0;
  std::string why;
};

/// What so many threads give: the best schedule of the pruned space with exactly this number.
struct ThreadPoint {
  int threads = 1;
  double predicted_us = 0.0;
  double measured_us = 0.0;  ///< of the fastest one that was timed; 0 if none was
  double limit_us = 0.0;     ///< with at most so many threads
};

struct Explanation {
  ModelSpec spec;
  double steps = 0.0;  ///< of the runs that all times are of
  int threads = 1;     ///< the cap
  Isa isa = Isa::interpreter;
  MachineModel machine;
  bool described = false;  ///< the machine is not this one
  std::string dag;         ///< text, as `deepcpu dump` prints it
  std::string phases;
  SpaceSizes space;
  Schedule schedule;
  std::string chosen_by;  ///< a few words
  Prediction predicted;
  std::vector<CostParts> groups;  ///< the busiest participant of each group, by itself
  RaceTime raced;                 ///< of the schedule among the candidates; zero if none was timed
  std::optional<PartTimes> measured;
  std::string not_measured;  ///< why `measured` is absent
  Limit limit;
  std::vector<Alternative> alternatives;  ///< best first: timed ones, then by prediction
  std::vector<ThreadPoint> over_threads;
  std::vector<std::string> notes;

  double run_us() const { return measured ? measured->run.median_us : predicted.us; }
  /// limit / time of a run: measured if it was, else predicted.
  double fraction() const { return run_us() > 0 ? limit.us / run_us() : 0.0; }
  int participants() const { return schedule.threads; }
};

/// Errors: an illegal spec or schedule, a cell that no kernel can be made for. What cannot be
/// measured is no error: `not_measured` says why.
Result<Explanation> explain(const ModelSpec& spec, const ExplainOptions& options);

/// The decisions of a schedule as sentences, one per line.
std::string in_words(const Schedule& schedule, const ModelSpec& spec);

/// Decisions in which `other` differs from `schedule`, with their values in `other`; empty if none.
std::string differences(const Schedule& schedule, const Schedule& other);

/// Why `a` stands behind the schedule that was explained: what was timed, then the largest
/// differences of the predictions' parts and bytes.
std::string why_not(const Explanation& chosen, const Alternative& a);

}  // namespace deepcpu
