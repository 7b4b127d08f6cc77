// SPDX-License-Identifier: Apache-2.0
#include "src/tune/estimate.hpp"

#include <algorithm>
#include <utility>

namespace deepcpu {
namespace {

bool better(const Ranked& a, const Ranked& b) { return a.predicted.us < b.predicted.us; }

/// Predicted time with a charge for every thread beyond the first.
double cautious_us(const Ranked& r) {
  return r.predicted.us * (r.schedule.threads > 1 ? 1.0 + kThreadGain : 1.0);
}

}  // namespace

std::vector<Ranked> rank_schedules(const ScheduleSpace& space, const ModelWork& work,
                                   const CostModel& model, double steps, std::size_t most) {
  std::vector<Ranked> best;
  if (most == 0) return best;
  space.for_each([&](const Schedule& s) {
    Prediction p = model.predict(work, s, steps);
    if (best.size() == most && p.us >= best.back().predicted.us) return true;
    if (best.size() == most) best.pop_back();
    Ranked r{s, std::move(p)};
    best.insert(std::upper_bound(best.begin(), best.end(), r, better), std::move(r));
    return true;
  });
  return best;
}

Result<Schedule> estimate_schedule(const ModelSpec& spec, Isa isa, int threads,
                                   const MachineModel& machine) {
  auto work = ModelWork::of(spec, isa);
  if (!work) return work.error();
  const CostModel model(machine, isa);
  const ScheduleSpace space(*work, machine, threads);
  const auto steps = static_cast<double>(spec.steps);
  Ranked best;
  bool any = false;
  space.for_each([&](const Schedule& s) {
    Ranked r{s, model.predict(*work, s, steps)};
    if (any && cautious_us(r) >= cautious_us(best)) return true;
    best = std::move(r);
    any = true;
    return true;
  });
  return best.schedule;
}

}  // namespace deepcpu
