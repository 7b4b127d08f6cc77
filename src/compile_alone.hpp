// SPDX-License-Identifier: Apache-2.0
/// A second program for a model on several threads: the same on one, for when that is faster.
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

struct AloneProgram {
  std::unique_ptr<Compilation> compiled;  ///< null: there is none
  std::int64_t most_steps = 0;            ///< longest_alone()
};

/// The program for one thread where there are such runs and the schedule was ours to choose. It
/// gives the same bits and reads the same packed weights. `options` are those that `c` was compiled
/// with. There is none, either, where it cannot be compiled to code as `c` was: `c` serves without
/// it.
AloneProgram compile_alone(const Compilation& c, const CompileOptions& options);

}  // namespace deepcpu
