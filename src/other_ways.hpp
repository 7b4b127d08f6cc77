// SPDX-License-Identifier: Apache-2.0
/// Further programs for a model on several threads, for when they are faster: the same on one, and
/// one whose threads share only hoisted products.
#pragma once

#include <cstdint>
#include <memory>

#include "src/compile.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu {

/// Up to how many steps runs on the threads of `chosen` may take longer than on one, 0 = never: by
/// prediction, if what is handed over between cores takes as long as it does at times, or if
/// helpers have to be woken. Errors: as lowering.
Result<std::int64_t> longest_alone(const ModelSpec& spec, const Schedule& chosen,
                                   const Schedule& alone, const MachineModel& machine);

/// A schedule with parallel=hoist.
struct HoistChoice {
  Schedule schedule;
  std::int64_t least_steps = 0;  ///< runs from so many steps on may gain by it; 0 = none do
};

/// Of as many threads as `chosen` has, the best by prediction while a line travels as slowly as it
/// does at times: only a few are handed over in a block. It is judged for runs of spec.steps steps;
/// if `chosen` or `alone` take little longer then, no run gains by it. Errors: as lowering.
Result<HoistChoice> choose_hoist(const ModelSpec& spec, const Schedule& chosen,
                                 const Schedule& alone, const MachineModel& machine);

/// Each null where there is none.
struct OtherWays {
  std::unique_ptr<Compilation> alone;
  std::int64_t most_alone = 0;  ///< longest_alone()
  std::unique_ptr<Compilation> hoist;
  std::int64_t least_hoist = 0;  ///< HoistChoice::least_steps

  double microseconds = 0.0;  ///< to choose and to compile them
};

/// The programs that may be faster than `c`, where the schedule was ours to choose. They give the
/// same bits and read the same packed weights. `options` are those that `c` was compiled with. What
/// cannot be compiled to code as `c` was is left out: `c` serves without it.
OtherWays compile_other_ways(const Compilation& c, const CompileOptions& options);

}  // namespace deepcpu
