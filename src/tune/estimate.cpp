// SPDX-License-Identifier: Apache-2.0
#include "src/tune/estimate.hpp"

#include <algorithm>
#include <utility>

namespace deepcpu {
namespace {

/// With its place in the order of visits.
struct Visited {
  Ranked ranked;
  std::size_t place = 0;
};

bool better(const Visited& a, const Visited& b) {
  const double x = a.ranked.predicted.us;
  const double y = b.ranked.predicted.us;
  return x < y || (x == y && a.place < b.place);
}

/// Predicted time with a charge for every thread beyond the first.
double cautious_us(const Ranked& r) {
  return r.predicted.us * (r.schedule.threads > 1 ? 1.0 + kThreadGain : 1.0);
}

}  // namespace

std::vector<Ranked> rank_schedules(const ScheduleSpace& space, const ModelWork& work,
                                   const CostModel& model, double steps, std::size_t most,
                                   const std::function<bool()>& stop) {
  std::vector<Ranked> out;
  if (most == 0) return out;
  std::vector<Visited> best;  // a heap once it is full, the worst in front
  std::size_t place = 0;
  space.for_each([&](const Schedule& s) {
    if (stop && stop()) return false;
    Visited v{{s, model.predict(work, s, steps)}, place++};
    if (best.size() < most) {
      best.push_back(std::move(v));
      if (best.size() == most) std::make_heap(best.begin(), best.end(), better);
    } else if (better(v, best.front())) {
      std::pop_heap(best.begin(), best.end(), better);
      best.back() = std::move(v);
      std::push_heap(best.begin(), best.end(), better);
    }
    return true;
  });
  std::sort(best.begin(), best.end(), better);
  out.reserve(best.size());
  for (Visited& v : best) out.push_back(std::move(v.ranked));
  return out;
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
