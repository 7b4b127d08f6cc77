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
struct ApartChoice {
  Schedule schedule;
  std::int64_t least_steps = 0;  ///< runs from so many steps on may gain by it; 0 = none do
};

/// Of as many threads as `chosen` has, the best by prediction while what is handed over takes as
/// long as it does at times, since only a few lines are in each block. No run gains by it if
/// `chosen` or `alone` are as good then. Errors: as lowering.
Result<ApartChoice> choose_apart(const ModelSpec& spec, const Schedule& chosen,
                                 const Schedule& alone, const MachineModel& machine);

/// Each null where there is none.
struct OtherWays {
  std::unique_ptr<Compilation> alone;
  std::int64_t most_alone = 0;  ///< longest_alone()
  std::unique_ptr<Compilation> apart;
  std::int64_t least_apart = 0;  ///< ApartChoice::least_steps

  double microseconds() const;  ///< to compile them
};

/// The programs that may be faster than `c`, where the schedule was ours to choose. They give the
/// same bits and read the same packed weights. `options` are those that `c` was compiled with. What
/// cannot be compiled to code as `c` was is left out: `c` serves without it.
OtherWays compile_other_ways(const Compilation& c, const CompileOptions& options);

}  // namespace deepcpu
