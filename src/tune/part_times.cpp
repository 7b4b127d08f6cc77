// SPDX-License-Identifier: Apache-2.0
#include "src/tune/part_times.hpp"

#include <algorithm>
#include <utility>

#include "jit/emitter.hpp"

namespace deepcpu {
namespace {

/// What is left in the plans.
struct Kept {
  bool hoist = true;
  bool products = true;  ///< in the time loop
  bool gates = true;
};
constexpr Kept kAll{true, true, true};
constexpr Kept kHoist{true, false, false};
constexpr Kept kLoop{false, true, true};
constexpr Kept kGates{false, false, true};
constexpr Kept kNothing{false, false, false};

/// Emits the kernel anew with less in it.
Status reduce(Kernel& kernel, bool stages, bool products) {
  if (stages && products) return {};
  jit::KernelPlan& plan = kernel.bound.plan;
  plan.weights_in_registers = false;
  if (!stages) plan.stages.clear();
  for (jit::Stage& s : plan.stages) s.products.clear();
  auto code = jit::emit(plan);
  if (!code) return code.error();
  kernel.code = std::move(*code);
  return {};
}

Status reduce(Compilation& c, Kept kept) {
  for (LayerCode& layer : c.layers) {
    // What runs among other products cannot be told from them: parts are those of its plain form.
    if (!kept.hoist || !kept.products || !kept.gates) layer.ahead.reset();
    if (auto st = reduce(layer.step, kept.gates, kept.products); !st) return st;
    if (!layer.hoist) continue;
    if (auto st = reduce(*layer.hoist, kept.hoist, kept.hoist); !st) return st;
  }
  return {};
}

/// The orders of one participant, as if it were the only one.
std::unique_ptr<PanelOrders> only(const PanelOrders& all, int participant) {
  auto out = std::make_unique<PanelOrders>();
  out->numbers = all.numbers;
  out->stages = all.stages;
  const jit::PanelRange* from = all.of(participant);
  for (std::size_t s = 0; s < all.stages; ++s) {
    jit::PanelRange range = from[s];
    for (const std::uint32_t*& order : range.order) {
      order = out->numbers.data() + (order - all.numbers.data());
    }
    out->ranges.push_back(range);
  }
  return out;
}

Result<Compilation> compile(const TrialData& data, const Schedule& schedule) {
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  auto compiled = compile_program(data.spec, options);
  if (!compiled) return compiled;
  if (!compiled->notes.empty()) return Error(compiled->notes.front());
  if (!compiled->layers.front().step.code) {
    return Error("isa=interpreter: parts are measured where there is code");
  }
  return compiled;
}

/// One participant of `shared`, on one thread: its panels, its layers and directions, no exchange.
Result<Compilation> alone(const TrialData& data, const Compilation& shared, int participant) {
  Schedule schedule = shared.schedule;
  schedule.exchange = Exchange::flag;  // which one participant skips
  auto out = compile(data, schedule);
  if (!out) return out;
  out->program = shared.program;
  out->program.participants = 1;
  out->program.group = 1;
  out->program.hoisters = 0;
  int seat = 0;
  for (ProgramStep& step : out->program.steps) {
    const bool own = shared.program.runs_on(step, participant);
    if (own) seat = participant - step.first;
    step.first = own ? 0 : 1;
  }
  out->program.only_part = seat / shared.program.group;
  seat %= shared.program.group;
  for (std::size_t l = 0; l < out->layers.size(); ++l) {
    LayerPanels& panels = out->layers[l].shared_panels;
    const LayerPanels& from = shared.layers[l].shared_panels;
    panels.step = only(*from.step, seat);
    if (from.hoist) panels.hoist = only(*from.hoist, seat);
  }
  return out;
}

/// Reduced and whole runs of one problem, timed in turns.
class Parts {
 public:
  explicit Parts(const TrialData& data) : data_(data) {}

  Status add(Result<Compilation> compiled, Kept kept) {
    if (!compiled) return compiled.error();
    if (auto st = reduce(*compiled, kept); !st) return st;
    auto trial = Trial::make(data_, std::move(*compiled), share_);
    if (!trial) return trial.error();
    trials_.push_back(std::move(*trial));
    return {};
  }

  std::vector<RaceTime> race(double seconds) {
    std::vector<Racer> racers;
    for (Trial& t : trials_) racers.push_back({[&t] { t.run(); }, {}});
    RaceOptions options;
    options.seconds = seconds;
    options.drop_losers = false;
    return deepcpu::race(racers, options);
  }

 private:
  const TrialData& data_;
  TrialShare share_;
  std::vector<Trial> trials_;
};

/// Hoisted products that participants take as they have time, were measured on the first of them,
/// who runs the time loop, too. Who takes how many was not: they are divided so that all are done
/// at the same time, as far as the time loop allows.
void share_hoist(std::vector<OwnTimes>& participants) {
  OwnTimes& first = participants.front();
  const double all = first.hoist_us;
  const double even = (all + first.loop_us) / static_cast<double>(participants.size());
  first.hoist_us = std::clamp(even - first.loop_us, 0.0, all);
  const double each = (all - first.hoist_us) / static_cast<double>(participants.size() - 1);
  for (std::size_t p = 1; p < participants.size(); ++p) participants[p] = {each, 0.0, 0.0};
}

constexpr Kept kOwnParts[] = {kHoist, kLoop, kGates, kNothing};

Status add_all(Parts& parts, const TrialData& data, const Schedule& schedule,
               const Compilation& whole) {
  for (const Kept kept : {kAll, kNothing}) {
    if (auto st = parts.add(compile(data, schedule), kept); !st) return st;
  }
  for (int p = 0; p < whole.program.participants; ++p) {
    for (const Kept kept : kOwnParts) {
      if (auto st = parts.add(alone(data, whole, p), kept); !st) return st;
    }
  }
  return {};
}

}  // namespace

std::size_t PartTimes::busiest() const {
  const auto less = [](const OwnTimes& a, const OwnTimes& b) { return a.total() < b.total(); };
  return static_cast<std::size_t>(std::max_element(participants.begin(), participants.end(), less) -
                                  participants.begin());
}

double PartTimes::rest_us() const {
  return run.median_us - calls_us - participants[busiest()].total();
}

Result<PartTimes> measure_parts(const TrialData& data, const Schedule& schedule, double seconds) {
  const auto whole = compile(data, schedule);
  if (!whole) return whole.error();
  Parts parts(data);
  if (auto st = add_all(parts, data, schedule, *whole); !st) return st.error();
  const std::vector<RaceTime> times = parts.race(seconds);
  const bool hoists = std::any_of(whole->layers.begin(), whole->layers.end(),
                                  [](const LayerCode& l) { return l.hoist != nullptr; });
  PartTimes out;
  out.run = times[0];
  out.calls_us = times[1].median_us;
  for (std::size_t at = 2; at < times.size(); at += std::size(kOwnParts)) {
    const double nothing = times[at + 3].median_us;
    const auto beyond = [&](std::size_t i) {
      return std::max(0.0, times[at + i].median_us - nothing);
    };
    out.participants.push_back({hoists ? beyond(0) : 0.0, beyond(1), beyond(2)});
  }
  if (whole->program.hoisters > 0) share_hoist(out.participants);
  const bool ahead = std::any_of(whole->layers.begin(), whole->layers.end(),
                                 [](const LayerCode& l) { return l.ahead != nullptr; });
  const double gained = ahead ? std::max(0.0, -out.rest_us()) : 0.0;
  for (OwnTimes& own : out.participants) own.hoist_us = std::max(0.0, own.hoist_us - gained);
  return out;
}

}  // namespace deepcpu
