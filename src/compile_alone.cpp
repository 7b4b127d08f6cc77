// SPDX-License-Identifier: Apache-2.0
#include "src/compile_alone.hpp"

#include <algorithm>

#include "src/tune/cost_model.hpp"
#include "src/tune/estimate.hpp"

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
  const Isa isa = c.schedule.isa;
  const auto guess = estimate_schedule(c.spec, isa, 1, machine_model());
  if (!guess) return guess.error();
  const auto wanted = may_take_longer(c.spec, c.schedule, *guess, machine_model());
  if (!wanted) return wanted.error();
  if (!*wanted) return std::unique_ptr<Compilation>();
  CompileOptions one;
  one.threads = 1;
  one.isa = isa;
  auto alone = compile_program(c.spec, one);
  if (!alone) return alone.error();
  const bool same_bits = c.schedule.order == Order::exact &&
                         alone->schedule.order == Order::exact && alone->schedule.isa == isa;
  return same_bits ? std::make_unique<Compilation>(std::move(*alone)) : nullptr;
}

}  // namespace deepcpu
