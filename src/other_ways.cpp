// SPDX-License-Identifier: Apache-2.0
#include "src/other_ways.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "src/guard_memory.hpp"
#include "src/runtime/team_choice.hpp"
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

/// What a run on several threads takes while lines travel slowly.
double slow_us(const Prediction& p) {
  // All journeys of a run over what they take by prediction, while a line takes 200 ns instead of
  // 47: then runs of lstm and gru i64h64t100, lstm i100h100t100 and i128h128t100 took 40 to 92 us
  // longer, 5 to 12 times the prediction, for every line that is handed over adds to it, and gru
  // i96h96t100 69 us, 15 times (148 us, where one thread takes 124).
  constexpr double kSlowJourneys = 15.0;
  return p.us + (kSlowJourneys - 1.0) * p.journeys_us;
}

/// Null if it is not like `c` in what must be the same.
std::unique_ptr<Compilation> compile_like(const Compilation& c, CompileOptions options) {
  options.isa = c.schedule.isa;
  auto other = compile_program(c.spec, options);
  if (!other || other->schedule.order != Order::exact) return nullptr;
  if (other->schedule.isa != c.schedule.isa || (has_code(c) && !has_code(*other))) return nullptr;
  return std::make_unique<Compilation>(std::move(*other));
}

}  // namespace

Result<std::int64_t> longest_alone(const ModelSpec& spec, const Schedule& chosen,
                                   const Schedule& alone, const MachineModel& machine) {
  constexpr std::int64_t kMost = std::int64_t{1} << 20;
  auto work = ModelWork::of(spec, chosen.isa, chosen.threads);
  if (!work) return work.error();
  const CostModel model(machine, chosen.isa);
  const auto longer = [&](std::int64_t count) {
    const auto steps = static_cast<double>(count);
    const Prediction several = model.predict(*work, chosen, steps);
    const double slow = std::max(slow_us(several), several.us + machine.wake_us);
    return slow > model.predict(*work, alone, steps).us;
  };
  std::int64_t most = 0;
  for (std::int64_t steps = 1; steps <= kMost && longer(steps); steps *= 2) most = steps;
  return most;
}

Result<HoistChoice> choose_hoist(const ModelSpec& spec, const Schedule& chosen,
                                 const Schedule& alone, const MachineModel& machine) {
  // A single line, 200 ns instead of 47. What `chosen` hands over in every step takes still longer
  // then: slow_us().
  constexpr double kSlowLine = 4.0;
  constexpr double kWorth = TeamChoice::kBetter;
  HoistChoice best;
  if (chosen.threads == 1 || chosen.parallel == Parallel::hoist) return best;
  if (spec.layers() > 1 || spec.directions() > 1) return best;  // there are no such schedules
  auto work = ModelWork::of(spec, chosen.isa, chosen.threads);
  if (!work) return work.error();
  MachineModel slow = machine;
  slow.exchange_ns *= kSlowLine;
  const CostModel model(slow, chosen.isa);
  const auto us = [&](const Schedule& s, std::int64_t steps) {
    return model.predict(*work, s, static_cast<double>(steps)).us;
  };
  double least = std::numeric_limits<double>::infinity();
  ScheduleSpace(*work, slow, chosen.threads).for_each([&](const Schedule& s) {
    if (s.parallel != Parallel::hoist || s.threads != chosen.threads) return true;
    const double own = us(s, spec.steps);
    if (own < least) best.schedule = s;
    least = std::min(least, own);
    return true;
  });
  const auto steps = static_cast<double>(spec.steps);
  const double team = slow_us(CostModel(machine, chosen.isa).predict(*work, chosen, steps));
  if (least > kWorth * std::min(team, us(alone, spec.steps))) return best;
  best.least_steps = spec.steps;
  while (best.least_steps > 1) {
    const std::int64_t half = best.least_steps / 2;
    if (us(best.schedule, half) >= us(alone, half)) break;
    best.least_steps = half;
  }
  return best;
}

namespace {

void add_alone(OtherWays& out, const Compilation& c, const Schedule& alone) {
  const auto most = longest_alone(c.spec, c.schedule, alone, machine_model());
  if (!most || *most == 0) return;
  CompileOptions one;
  one.threads = 1;
  out.alone = compile_like(c, one);
  out.most_alone = *most;
}

void add_hoist(OtherWays& out, const Compilation& c, const Schedule& alone) {
  const auto choice = choose_hoist(c.spec, c.schedule, alone, machine_model());
  if (!choice || choice->least_steps == 0) return;
  CompileOptions few;
  few.threads = choice->schedule.threads;
  few.schedule = choice->schedule;
  out.hoist = compile_like(c, few);
  out.least_hoist = choice->least_steps;
}

}  // namespace

OtherWays compile_other_ways(const Compilation& c, const CompileOptions& options) {
  OtherWays out;
  const bool given = options.schedule || c.schedule.order != Order::exact;
  if (given || c.program.participants == 1) return out;
  const auto start = std::chrono::steady_clock::now();
  const auto alone = guard_memory("choose another way", [&] {
    return estimate_schedule(c.spec, c.schedule.isa, 1, machine_model());
  });
  // Each without the other, where there is no memory for both.
  for (const auto add : {add_alone, add_hoist}) {
    if (!alone) break;
    (void)guard_memory("compile another way", [&]() -> Status {
      add(out, c, *alone);
      return {};
    });
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  out.microseconds = took.count();
  return out;
}

}  // namespace deepcpu
