// SPDX-License-Identifier: Apache-2.0
#include "src/compile_alone.hpp"

#include <algorithm>

#include "src/tune/cost_model.hpp"
#include "src/tune/estimate.hpp"

namespace deepcpu {
namespace {

bool has_code(const Kernel* kernel) { return kernel == nullptr || kernel->code != nullptr; }

bool has_code(const Compilation& c) {
  return std::all_of(c.layers.begin(), c.layers.end(), [](const LayerCode& layer) {
    return has_code(&layer.step) && has_code(layer.hoist.get()) && has_code(layer.ahead.get());
  });
}

}  // namespace

Result<std::int64_t> longest_alone(const ModelSpec& spec, const Schedule& chosen,
                                   const Schedule& alone, const MachineModel& machine) {
  // All journeys of a run over what they take by prediction, while a line takes 200 ns instead of
  // 47: then runs of lstm and gru i64h64t100, lstm i100h100t100 and i128h128t100 took 40 to 92 us
  // longer, 5 to 12 times the prediction, for every line that is handed over adds to it, and gru
  // i96h96t100 69 us, 15 times (148 us, where one thread takes 124).
  constexpr double kSlowJourneys = 15.0;
  constexpr std::int64_t kMost = std::int64_t{1} << 20;
  auto work = ModelWork::of(spec, chosen.isa, chosen.threads);
  if (!work) return work.error();
  const CostModel model(machine, chosen.isa);
  const auto longer = [&](std::int64_t count) {
    const auto steps = static_cast<double>(count);
    const Prediction several = model.predict(*work, chosen, steps);
    const double slow = several.us + (kSlowJourneys - 1.0) * several.journeys_us;
    return std::max(slow, several.us + machine.wake_us) > model.predict(*work, alone, steps).us;
  };
  std::int64_t most = 0;
  for (std::int64_t steps = 1; steps <= kMost && longer(steps); steps *= 2) most = steps;
  return most;
}

AloneProgram compile_alone(const Compilation& c, const CompileOptions& options) {
  const Isa isa = c.schedule.isa;
  if (options.schedule || c.program.participants == 1 || c.schedule.order != Order::exact)
    return {};
  const auto guess = estimate_schedule(c.spec, isa, 1, machine_model());
  if (!guess) return {};
  const auto most = longest_alone(c.spec, c.schedule, *guess, machine_model());
  if (!most || *most == 0) return {};
  CompileOptions one;
  one.threads = 1;
  one.isa = isa;
  auto alone = compile_program(c.spec, one);
  if (!alone || alone->schedule.order != Order::exact || alone->schedule.isa != isa) return {};
  if (has_code(c) && !has_code(*alone)) return {};
  return {std::make_unique<Compilation>(std::move(*alone)), *most};
}

}  // namespace deepcpu
