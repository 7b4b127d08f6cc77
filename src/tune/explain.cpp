// SPDX-License-Identifier: Apache-2.0
#include "src/tune/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "src/dag/matmul_dag.hpp"
#include "src/dag/phases.hpp"
#include "src/schedule/check.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/measure.hpp"
#include "src/tune/tuner.hpp"

namespace deepcpu {
namespace {

/// Alternatives that stand there only because they are predicted to be next best.
constexpr std::size_t kNextBest = 6;
/// Most alternatives: with the schedule itself they are timed in one race of the tuner.
constexpr std::size_t kMost = 22;
/// Share of the time that timing candidates takes; the parts have the rest.
constexpr double kCandidatesShare = 0.75;

/// A decision that an alternative may take otherwise.
using Decides = bool (*)(const Schedule&, const Schedule&);
template <auto Field>
bool decides(const Schedule& a, const Schedule& b) {
  return a.*Field != b.*Field;
}
template <auto Field>
bool layers_decide(const Schedule& a, const Schedule& b) {
  return !std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                     [](const auto& x, const auto& y) { return x.*Field == y.*Field; });
}
bool hoists_otherwise(const Schedule& a, const Schedule& b) {
  return !std::equal(
      a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
      [](const auto& x, const auto& y) { return (x.hoist_block > 0) == (y.hoist_block > 0); });
}
constexpr Decides kDecisions[] = {
    decides<&Schedule::parallel>,
    decides<&Schedule::exchange>,
    decides<&Schedule::split_rows>,
    layers_decide<&LayerSchedule::panel>,
    layers_decide<&LayerSchedule::sweep>,
    layers_decide<&LayerSchedule::weights>,
    layers_decide<&LayerSchedule::fuse_gates>,
    hoists_otherwise,
    layers_decide<&LayerSchedule::hoist_block>,
    layers_decide<&LayerSchedule::hoist_ahead>,
    layers_decide<&LayerSchedule::hoist_rows>,
    layers_decide<&LayerSchedule::tile_rows>,
};

/// Takes the next best schedules, the best of every number of threads, and the best that takes each
/// decision otherwise, from a list in order.
class Picker {
 public:
  explicit Picker(const Schedule& chosen) : chosen_(chosen), otherwise_(std::size(kDecisions)) {}

  /// Whether no schedule with so many threads came before.
  bool first_of(int threads) {
    new_count_ = std::find(counts_.begin(), counts_.end(), threads) == counts_.end();
    if (new_count_) counts_.push_back(threads);
    return new_count_;
  }

  /// Called for every schedule, after first_of.
  bool take(const Schedule& s) {
    bool yes = new_count_;
    if (s == chosen_ || taken_ == kMost) return false;
    for (std::size_t d = 0; d < otherwise_.size(); ++d) {
      if (otherwise_[d] || !kDecisions[d](chosen_, s)) continue;
      otherwise_[d] = true;
      yes = true;
    }
    yes = yes || taken_ < kNextBest;
    if (yes) ++taken_;
    return yes;
  }

 private:
  const Schedule& chosen_;
  std::vector<int> counts_;
  std::vector<bool> otherwise_;
  std::size_t taken_ = 0;
  bool new_count_ = false;
};

/// What the pruning rules leave out next to a schedule: sweeps forward, gates apart.
std::vector<Schedule> beyond_pruning(const Schedule& chosen, const ModelWork& whole) {
  const ModelWork& work = whole.part(chosen.split_rows);
  Schedule forward = chosen;
  Schedule apart = chosen;
  const int sharers = Program::build(work.spec, chosen).group;
  for (std::size_t l = 0; l < chosen.layers.size(); ++l) {
    forward.layers[l].sweep = Sweep::forward;
    forward.layers[l].group = 1;
    const bool legal =
        !work.layers[l].one_gate_stages && chosen.layers[l].weights == Residency::streamed;
    LayerSchedule& other = apart.layers[l];
    other.fuse_gates = other.fuse_gates && !legal;
    if (!work.layers[l].widens(other.hoist_block > 0, other.fuse_gates, sharers)) {
      other.panel = Panel::narrow;
    }
    other.hoist_ahead = other.hoist_ahead && work.layers[l].fits_ahead(other, sharers);
  }
  return {forward, apart};
}

class Explainer {
 public:
  Explainer(const ModelSpec& spec, const ExplainOptions& options) : options_(options) {
    out_.spec = spec;
    out_.steps = static_cast<double>(spec.steps);
    out_.described = options.machine != nullptr;
    out_.machine = out_.described ? *options.machine : machine_model();
    out_.threads = std::clamp(options.threads, 1, std::max(1, out_.machine.cores));
    if (out_.threads < options.threads) {
      out_.notes.push_back(
          fmt::format("threads={}: the machine has {} cores; no more are counted "
                      "with",
                      options.threads, out_.machine.cores));
    }
  }

  Result<Explanation> run() {
    if (auto st = choose(); !st) return st.error();
    // A schedule that was given may name more threads than the machine has cores.
    const int given =
        options_.schedule ? std::min(options_.schedule->threads, options_.threads) : 1;
    auto work = ModelWork::of(out_.spec, out_.isa, std::max(out_.threads, given));
    if (!work) return work.error();
    if (auto st = check_given(*work); !st) return st.error();
    const CostModel model(out_.machine, out_.isa);
    describe(*work);
    rank(*work, model);
    if (out_.described) {
      out_.not_measured = "the machine is described, it is not this one";
    } else {
      measure();
    }
    conclude(model, *work);
    return std::move(out_);
  }

 private:
  /// The schedule that a Model would have, or the one that was given.
  Status choose() {
    out_.chosen_by = options_.schedule ? "given" : "by estimate, without running anything";
    return out_.described ? choose_there() : choose_here();
  }

  Status choose_here() {
    CompileOptions compile;
    compile.threads = options_.threads;
    compile.isa = options_.isa;
    compile.schedule = options_.schedule;
    auto compiled = compile_program(out_.spec, compile);
    if (!compiled) return compiled.error();
    out_.schedule = compiled->schedule;
    if (compiled->tuned) out_.chosen_by = "tuned before, from wisdom";
    out_.isa = compiled->schedule.isa;
    for (const std::string& note : compiled->notes) out_.notes.push_back(note);
    return {};
  }

  Status choose_there() {
    const Isa best = out_.machine.isas.back().isa;
    out_.isa = options_.isa && *options_.isa < best ? *options_.isa : best;
    if (options_.schedule) {
      out_.schedule = *options_.schedule;
      if (out_.schedule.isa > out_.isa) {
        return Error(fmt::format("schedule.isa={}: {} is the best there",
                                 to_string(out_.schedule.isa), to_string(out_.isa)));
      }
      out_.isa = out_.schedule.isa;
      return {};
    }
    auto estimated = estimate_schedule(out_.spec, out_.isa, out_.threads, out_.machine);
    if (!estimated) return estimated.error();
    out_.schedule = std::move(*estimated);
    return {};
  }

  /// What compile_program checks, where it was not asked.
  Status check_given(const ModelWork& work) const {
    if (!options_.schedule || !out_.described) return {};
    const Schedule& s = out_.schedule;
    if (auto st = check_schedule(s, out_.spec.hidden.size()); !st) {
      return Error("schedule." + st.error().message());
    }
    if (s.threads > options_.threads) {
      return Error(fmt::format("schedule.threads={}: must be between 1 and {}", s.threads,
                               options_.threads));
    }
    if (auto st = check_division(out_.spec, s); !st)
      return Error("schedule." + st.error().message());
    const int sharers = Program::build(work.spec, s).group;
    for (std::size_t l = 0; l < s.layers.size(); ++l) {
      const LayerWork::Fits& fits = work.layers[l].fits(s.layers[l].panel);
      if (s.layers[l].hoist_ahead && !work.layers[l].fits_ahead(s.layers[l], sharers)) {
        return Error(fmt::format(
            "schedule.layers[{}].hoist_ahead=true: is not emitted for this problem", l));
      }
      if (s.layers[l].weights != Residency::registers) continue;
      const bool hoisted = s.layers[l].hoist_block > 0;
      if (s.threads > 1 || !fits.registers[hoisted][s.layers[l].fuse_gates]) {
        return Error(fmt::format(
            "schedule.layers[{}].weights=registers: needs threads=1 and weights that fit", l));
      }
    }
    return {};
  }

  void describe(const ModelWork& work) {
    const MatmulDag dag = MatmulDag::build(out_.spec.cell);
    out_.dag = dag.to_text(out_.spec);
    out_.phases = phases_text(dag, out_.spec);
    out_.space = ScheduleSpace(work, out_.machine, out_.threads).sizes();
    out_.limit = limit_of(work, out_.machine, out_.steps, out_.threads);
  }

  /// Fills the alternatives and what so many threads give.
  void rank(const ModelWork& work, const CostModel& model) {
    std::vector<Ranked> all;
    const auto add = [&](const Schedule& s) {
      all.push_back({s, model.predict(work, s, out_.steps)});
      return true;
    };
    ScheduleSpace(work, out_.machine, out_.threads).for_each(add);
    for (const Schedule& s : beyond_pruning(out_.schedule, work)) add(s);
    std::stable_sort(all.begin(), all.end(), [](const Ranked& a, const Ranked& b) {
      return a.predicted.us < b.predicted.us;
    });
    Picker picker(out_.schedule);
    for (Ranked& r : all) {
      if (picker.first_of(r.schedule.threads)) {
        const double limit = limit_of(work, out_.machine, out_.steps, r.schedule.threads).us;
        out_.over_threads.push_back({r.schedule.threads, r.predicted.us, 0.0, limit});
      }
      if (listed(r.schedule) || !picker.take(r.schedule)) continue;
      out_.alternatives.push_back({std::move(r.schedule), "", std::move(r.predicted), {}, 0.0, ""});
    }
    std::sort(out_.over_threads.begin(), out_.over_threads.end(),
              [](const ThreadPoint& a, const ThreadPoint& b) { return a.threads < b.threads; });
  }

  bool listed(const Schedule& s) const {
    return std::any_of(out_.alternatives.begin(), out_.alternatives.end(),
                       [&](const Alternative& a) { return a.schedule == s; });
  }

  void measure() {
    if (out_.isa == Isa::interpreter) {
      out_.not_measured = "the interpreter serves, and it is not what the cost model predicts";
      return;
    }
    if (options_.measure) {
      if (auto st = race_candidates(); !st) out_.not_measured = st.error().message();
    }
    if (!out_.not_measured.empty()) return;
    const double share = options_.measure ? 1.0 - kCandidatesShare : 1.0;
    auto data = TrialData::make(out_.spec, 1);
    auto parts = data ? measure_parts(*data, out_.schedule, options_.seconds * share)
                      : Result<PartTimes>(data.error());
    if (parts) {
      note_spread(parts->run.spread);
      out_.measured = std::move(*parts);
    } else {
      out_.not_measured = parts.error().message();
    }
  }

  Status race_candidates() {
    TuneOptions tuning;
    tuning.threads = out_.threads;
    tuning.isa = out_.isa;
    tuning.seconds = options_.seconds * kCandidatesShare;
    tuning.also.push_back(out_.schedule);
    for (const Alternative& a : out_.alternatives) tuning.also.push_back(a.schedule);
    tuning.candidates = static_cast<int>(tuning.also.size());
    auto result = tune(out_.spec, tuning);
    if (!result) return result.error();
    take(std::move(*result));
    return {};
  }

  void take(TuneResult result) {
    if (!options_.schedule) {
      out_.schedule = result.schedule;
      out_.chosen_by = fmt::format("by timing {} candidates", result.candidates.size());
    }
    if (result.stopped) out_.notes.emplace_back("some candidates were not timed: time was up");
    out_.alternatives.clear();
    for (Candidate& c : result.candidates) {
      if (c.schedule == out_.schedule) out_.raced = c.measured;
    }
    for (Candidate& c : result.candidates) {
      const double us = time_beside(c.measured, out_.raced);
      note_time(c.schedule.threads, us, c.measured.rounds);
      if (c.schedule == out_.schedule) continue;
      out_.alternatives.push_back(
          {std::move(c.schedule), "", std::move(c.predicted), c.measured, us, c.refused});
    }
    std::stable_sort(out_.alternatives.begin(), out_.alternatives.end(),
                     [](const Alternative& x, const Alternative& y) {
                       const bool timed = x.measured_us > 0;
                       return timed && (y.measured_us <= 0 || x.measured_us < y.measured_us);
                     });
  }

  /// Losers leave the race early, so medians are of different rounds. Ratios to one racer in the
  /// same rounds compare.
  static double time_beside(const RaceTime& time, const RaceTime& chosen) {
    if (time.rounds == 0) return 0.0;
    return chosen.rounds > 0 ? chosen.median_us * time.ratio / chosen.ratio : time.median_us;
  }

  /// Of so many threads the schedule that stayed longest in the race counts.
  void note_time(int threads, double us, int rounds) {
    int& most = rounds_[threads];
    for (ThreadPoint& p : out_.over_threads) {
      const bool better = rounds > most || (rounds == most && us < p.measured_us);
      if (p.threads != threads || rounds == 0 || !better) continue;
      p.measured_us = us;
      most = rounds;
    }
  }

  /// A note where something else disturbed the clock.
  void note_spread(double spread) {
    if (spread < kDisturbed) return;
    out_.notes.push_back(
        fmt::format("the machine was busy with something else: the quartiles of "
                    "the times are {:.0f} % apart",
                    100 * spread));
  }

  void conclude(const CostModel& model, const ModelWork& work) {
    out_.predicted = model.predict(work, out_.schedule, out_.steps);
    out_.groups = model.per_group(work, out_.schedule, out_.steps);
    for (Alternative& a : out_.alternatives) {
      a.differs = differences(out_.schedule, a.schedule);
      if (a.why.empty()) a.why = why_not(out_, a);
    }
  }

  Explanation out_;
  const ExplainOptions& options_;
  std::map<int, int> rounds_;  ///< most rounds of a schedule, by threads
};

}  // namespace

Result<Explanation> explain(const ModelSpec& spec, const ExplainOptions& options) {
  if (auto st = spec.validate(); !st) return st.error();
  if (options.threads < 1) {
    return Error(fmt::format("threads={}: must be at least 1", options.threads));
  }
  return Explainer(spec, options).run();
}

}  // namespace deepcpu
