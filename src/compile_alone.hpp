// SPDX-License-Identifier: Apache-2.0
/// A second program for a model on several threads: the same on one, for when that is faster.
#pragma once

#include <memory>

#include "src/compile.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu {

/// Whether runs on the threads of `chosen` may take longer than on one: by prediction, if cache
/// lines travel as slowly between cores as they do at times, or if helpers have to be woken.
/// Errors: as lowering.
Result<bool> may_take_longer(const ModelSpec& spec, const Schedule& chosen, const Schedule& alone,
                             const MachineModel& machine);

/// The program for one thread where may_take_longer() and the schedule was ours to choose, else
/// null. It gives the same bits and reads the same packed weights. `options` are those that `c` was
/// compiled with.
Result<std::unique_ptr<Compilation>> compile_alone(const Compilation& c,
                                                   const CompileOptions& options);

}  // namespace deepcpu
