// SPDX-License-Identifier: Apache-2.0
#include "src/tune/estimate.hpp"

#include <algorithm>
#include <limits>
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

}  // namespace

double cautious_us(const Schedule& schedule, const Prediction& predicted) {
  if (schedule.threads == 1) return predicted.us;
  return predicted.us * (1.0 + kThreadGain) + kJourneyRisk * predicted.journeys_us;
}

double ranking_us(const Schedule& schedule, const Prediction& predicted) {
  const double even = predicted.even ? kEvenGain * predicted.us : 0.0;
  return cautious_us(schedule, predicted) - even;
}

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
  auto work = ModelWork::of(spec, isa, threads);
  if (!work) return work.error();
  const CostModel model(machine, isa);
  const ScheduleSpace space(*work, machine, threads);
  const auto steps = static_cast<double>(spec.steps);
  struct Best {
    Schedule schedule;
    double ranking_us = std::numeric_limits<double>::infinity();
    double cautious_us = std::numeric_limits<double>::infinity();
  };
  Best alone;
  Best several;  // threads
  space.for_each([&](const Schedule& s) {
    const Prediction predicted = model.predict(*work, s, steps);
    Best& best = s.threads == 1 ? alone : several;
    const double us = ranking_us(s, predicted);
    if (us < best.ranking_us) best = {s, us, cautious_us(s, predicted)};
    return true;
  });
  return several.cautious_us < alone.cautious_us ? several.schedule : alone.schedule;
}

}  // namespace deepcpu
