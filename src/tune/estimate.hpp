// SPDX-License-Identifier: Apache-2.0
/// Choosing a schedule by the cost model alone.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "src/schedule/space.hpp"
#include "src/tune/cost_model.hpp"

namespace deepcpu {

/// What further threads must gain by prediction before they are taken: they take a core from
/// others. Chosen, not measured.
inline constexpr double kThreadGain = 0.02;

struct Ranked {
  Schedule schedule;
  Prediction predicted;
};

/// Part of the journeys of cache lines that is charged again. On one virtual machine a journey took
/// 26 to 60 ns, and about 245 ns for minutes at a time. Chosen so that what hangs on it most stays
/// on one thread: gru i64h64,reset=before takes 49 us on two, 126 at such times, and 63 on one;
/// i96h96 takes 114 on two and 149 on one.
inline constexpr double kJourneyRisk = 0.5;

/// What a schedule may take longer, by prediction, when its participants take panels of each other:
/// cores are taken to be equally fast, and are often not. An Emerald Rapids with neighbours, two
/// threads that take panels of each other against parts of the batch rows (bench/ab, twice): lstm
/// i256h256b16 0.86 and 0.96 of the time, b8 0.94 and 1.01, b32 0.92 and 1.01, b64 0.98 and 0.99.
inline constexpr double kEvenGain = 0.03;

/// Predicted time with what speaks against further threads: compared with that of one thread.
double cautious_us(const Schedule& schedule, const Prediction& predicted);
/// The same with what speaks for one schedule of several threads against another.
double ranking_us(const Schedule& schedule, const Prediction& predicted);

/// The `most` schedules of the pruned space with the least predicted time, best first; among equals
/// the one that the space visits first. `stop` is asked before every schedule; once it says true,
/// the ranking is of those that were visited until then.
std::vector<Ranked> rank_schedules(const ScheduleSpace& space, const ModelWork& work,
                                   const CostModel& model, double steps, std::size_t most,
                                   const std::function<bool()>& stop = {});

/// The schedule that is used when none is given: the best by prediction for runs of spec.steps
/// steps. `threads` is a cap. Runs nothing; a few tenths of a millisecond. Errors are those of
/// lowering: a cell that no kernel can be made for.
Result<Schedule> estimate_schedule(const ModelSpec& spec, Isa isa, int threads,
                                   const MachineModel& machine);

}  // namespace deepcpu
