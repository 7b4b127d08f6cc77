// SPDX-License-Identifier: Apache-2.0
#include "src/compile_alone.hpp"

#include <algorithm>

#include "src/tune/cost_model.hpp"

namespace deepcpu {

Result<bool> may_take_longer(const ModelSpec& spec, const Schedule& chosen, const Schedule& alone,
                             const MachineModel& machine) {
  // Of a journey that takes 47 ns otherwise; it took 240 to 245 for minutes at a time.
  constexpr double kSlowJourney = 5.2;
  auto work = ModelWork::of(spec, chosen.isa, chosen.threads);
  if (!work) return work.error();
  const CostModel model(machine, chosen.isa);
  const auto steps = static_cast<double>(spec.steps);
  const Prediction several = model.predict(*work, chosen, steps);
  const double one = model.predict(*work, alone, steps).us;
  const double slow = several.us + (kSlowJourney - 1.0) * several.journeys_us;
  return std::max(slow, several.us + machine.wake_us) > one;
}

Result<std::unique_ptr<Compilation>> compile_alone(const Compilation& c,
                                                   const CompileOptions& options) {
  if (options.schedule || c.program.participants == 1) return std::unique_ptr<Compilation>();
  CompileOptions one;
  one.threads = 1;
  one.isa = c.schedule.isa;
  auto alone = compile_program(c.spec, one);
  if (!alone) return alone.error();
  const bool same_bits = c.schedule.order == Order::exact &&
                         alone->schedule.order == Order::exact &&
                         c.schedule.isa == alone->schedule.isa;
  if (!same_bits) return std::unique_ptr<Compilation>();
  const auto wanted = may_take_longer(c.spec, c.schedule, alone->schedule, machine_model());
  if (!wanted) return wanted.error();
  return *wanted ? std::make_unique<Compilation>(std::move(*alone)) : nullptr;
}

}  // namespace deepcpu
