// SPDX-License-Identifier: Apache-2.0
#include "src/dag/phases.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace deepcpu {
namespace {

constexpr int kStep = 2;  // index of the part that stays in the time loop

std::vector<Phase>& part(PhasedSchedule& schedule, int i) {
  return i == 0 ? schedule.whole : i == 1 ? schedule.block : schedule.step;
}

/// Walks depth first through the choices of the next phase.
class Enumerator {
 public:
  Enumerator(const MatmulDag& dag, const std::function<bool(const PhasedSchedule&)>& visit)
      : dag_(dag),
        visit_(visit),
        poset_(unroll(dag, 1, Direction::forward, 1, Grain::classes)),
        done_(poset_.size(), false) {}

  bool run() { return extend(0); }

 private:
  bool extend(int current) {
    const Phase ready = ready_classes(current);
    if (current == kStep && ready.empty()) return visit_(schedule_);
    // From "all that are ready" down to "the last one alone": the fewest phases come first.
    std::vector<bool> take(ready.size(), true);
    for (bool more = !ready.empty(); more; more = fewer(take)) {
      Phase phase;
      for (std::size_t i = 0; i < ready.size(); ++i) {
        if (take[i]) phase.push_back(ready[i]);
      }
      mark(phase, true);
      part(schedule_, current).push_back(phase);
      const bool go_on = extend(current);
      part(schedule_, current).pop_back();
      mark(phase, false);
      if (!go_on) return false;
    }
    return current == kStep || extend(current + 1);
  }

  /// The next smaller non-empty choice, counting down in binary; false if there is none.
  static bool fewer(std::vector<bool>& take) {
    std::size_t i = take.size();
    while (i > 0 && !take[i - 1]) take[--i] = true;
    if (i == 0) return false;
    take[i - 1] = false;
    return std::find(take.begin(), take.end(), true) != take.end();
  }

  Phase ready_classes(int current) const {
    Phase ready;
    for (std::size_t c = 0; c < poset_.size(); ++c) {
      bool now = !done_[c] && (current == kStep || !dag_.classes()[c].recurrent);
      for (std::size_t a = 0; a < poset_.size() && now; ++a) {
        now = !poset_.before[a][c] || done_[a];
      }
      if (now) ready.push_back(static_cast<int>(c));
    }
    return ready;
  }

  void mark(const Phase& phase, bool done) {
    for (const int c : phase) done_[static_cast<std::size_t>(c)] = done;
  }

  const MatmulDag& dag_;
  const std::function<bool(const PhasedSchedule&)>& visit_;
  Poset poset_;
  std::vector<bool> done_;
  PhasedSchedule schedule_;
};

std::string plain(const std::optional<Count>& count) {
  constexpr double kListed = 15.0;  // longer numbers say more as a power of ten
  if (!count) return "too many to count";
  if (count->log10() < kListed) return count->str();
  return fmt::format("10^{:.1f}", count->log10());
}

std::string raw_count(std::size_t elements) {
  if (elements == 0) return "1";
  const double exponent = log10_fubini(static_cast<double>(elements));
  if (exponent < 15.0) return plain(count_schedules(Poset(elements)));
  return fmt::format("10^{:.1f}", exponent);
}

void add_part(std::string& text, std::string_view name, const std::vector<Phase>& phases) {
  if (phases.empty()) return;
  if (!text.empty()) text += " | ";
  text += name;
  for (const Phase& phase : phases) text += fmt::format(" {{{}}}", fmt::join(phase, " "));
}

}  // namespace

bool for_each_schedule(const MatmulDag& dag,
                       const std::function<bool(const PhasedSchedule&)>& visit) {
  return Enumerator(dag, visit).run();
}

std::optional<Count> count_schedules(const MatmulDag& dag) {
  std::vector<bool> hoistable;
  for (const MatmulClass& c : dag.classes()) hoistable.push_back(!c.recurrent);
  if (hoistable.empty()) return Count(1);
  return count_schedules(unroll(dag, 1, Direction::forward, 1, Grain::classes), hoistable);
}

Status check_schedule(const MatmulDag& dag, const PhasedSchedule& schedule) {
  const Poset poset = unroll(dag, 1, Direction::forward, 1, Grain::classes);
  std::vector<int> place(poset.size(), -1);
  int phases = 0;
  PhasedSchedule copy = schedule;
  for (int i = 0; i <= kStep; ++i) {
    for (const Phase& phase : part(copy, i)) {
      for (const int c : phase) {
        if (c < 0 || c >= static_cast<int>(poset.size())) {
          return Error(fmt::format("class {}: there are {} classes", c, poset.size()));
        }
        int& at = place[static_cast<std::size_t>(c)];
        if (at >= 0) return Error(fmt::format("class {}: stands in two phases", c));
        if (i != kStep && dag.classes()[static_cast<std::size_t>(c)].recurrent) {
          return Error(fmt::format("class {}: is time-dependent and cannot be hoisted", c));
        }
        at = phases;
      }
      ++phases;
    }
  }
  for (std::size_t c = 0; c < poset.size(); ++c) {
    if (place[c] < 0) return Error(fmt::format("class {}: stands in no phase", c));
    for (std::size_t a = 0; a < poset.size(); ++a) {
      if (poset.before[a][c] && place[a] >= place[c]) {
        return Error(fmt::format("class {}: needs class {} in an earlier phase", c, a));
      }
    }
  }
  return {};
}

std::string to_text(const PhasedSchedule& schedule) {
  std::string text;
  add_part(text, "whole", schedule.whole);
  add_part(text, "block", schedule.block);
  add_part(text, "step", schedule.step);
  return text.empty() ? "nothing" : text;
}

std::string phases_text(const MatmulDag& dag, const ModelSpec& spec) {
  constexpr int kShown = 20;
  const std::size_t step_products = dag.nodes().size();
  const std::size_t all = step_products * static_cast<std::size_t>(spec.steps) *
                          static_cast<std::size_t>(spec.layers() * spec.directions());
  std::string text = fmt::format("phases of {}\n", dag.cell().name());
  auto out = std::back_inserter(text);
  fmt::format_to(out, "sequences of phases\n");
  fmt::format_to(out, "  {} products of all steps and layers, any order: {}\n", all,
                 raw_count(all));
  fmt::format_to(out, "  {} products of one step, any order: {}\n", step_products,
                 raw_count(step_products));
  const auto valid = [&](Grain grain) {
    return plain(count_schedules(unroll(dag, 1, Direction::forward, 1, grain)));
  };
  fmt::format_to(out, "  {} products of one step, valid: {}\n", step_products,
                 valid(Grain::products));
  fmt::format_to(out, "  {} classes of one step, valid: {}\n", dag.classes().size(),
                 valid(Grain::classes));
  fmt::format_to(out, "  {} classes, valid, hoisted whole, in blocks or in the step: {}\n",
                 dag.classes().size(), plain(count_schedules(dag)));
  fmt::format_to(out, "the first {} of these (classes as in the MM-DAG)\n", kShown);
  int shown = 0;
  for_each_schedule(dag, [&](const PhasedSchedule& schedule) {
    fmt::format_to(out, "  {}\n", to_text(schedule));
    return ++shown < kShown;
  });
  return text;
}

}  // namespace deepcpu
