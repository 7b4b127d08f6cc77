// SPDX-License-Identifier: Apache-2.0
#include "src/tune/tuner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/system.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/trial.hpp"

namespace deepcpu {
namespace {

struct EffortWord {
  Effort effort;
  std::string_view word;
};
constexpr std::array kEfforts = {
    EffortWord{Effort::estimate, "estimate"},
    EffortWord{Effort::measure, "measure"},
    EffortWord{Effort::exhaustive, "exhaustive"},
};

/// Candidates that are compiled and raced at once: each keeps scratch of its own.
constexpr std::size_t kHeat = 24;
/// Schedules that differ by less than this in a race count as equal; the better one by prediction
/// is taken. The tie rule keeps repeated tuning from wandering between equals.
constexpr double kTie = 0.01;
/// The play-off: most that take part, how close to the champion they came, how often each is made.
/// Made anew, lstm:i4h4b1t50 took 2.57 or 2.88 us, with a spread of 3 % within a making.
constexpr std::size_t kFinalists = 6;
constexpr double kClose = 0.10;
constexpr int kMakings = 7;
constexpr int kPlayoffRounds = 15;
/// Part of the time limit that is left to it.
constexpr double kPlayoffShare = 0.4;
/// Part of the time limit that ranking may take; then those that were ranked until then are timed.
constexpr double kRankShare = 0.25;

/// Same bits; any NaN equals any other.
bool equal_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  }
  return true;
}

/// One thread, x·W inside the step, the lowest tiles: the fewest decisions that can go wrong.
Schedule simplest(const ModelSpec& spec, Isa isa) {
  Schedule s;
  s.isa = isa;
  s.layers.resize(static_cast<std::size_t>(spec.layers()));
  for (LayerSchedule& l : s.layers) l.sweep = Sweep::forward;
  return s;
}

class Search {
 public:
  Search(const ModelSpec& spec, const TuneOptions& options, Isa isa, int threads)
      : spec_(spec),
        options_(options),
        isa_(isa),
        threads_(threads),
        machine_(options.machine != nullptr ? *options.machine : machine_model()),
        begin_(wall_seconds()),
        end_(begin_ + options.seconds) {}

  Result<TuneResult> run() {
    auto work = ModelWork::of(spec_, isa_, threads_);
    if (!work) return work.error();
    rank(*work);
    out_.steps = spec_.steps;
    if (options_.effort != Effort::estimate && isa_ != Isa::interpreter) {
      out_.effort = options_.effort;
      if (auto status = measure(); !status) return status.error();
    }
    conclude();
    return std::move(out_);
  }

 private:
  void rank(const ModelWork& work) {
    const CostModel model(machine_, isa_);
    const ScheduleSpace space(work, machine_, threads_);
    const std::size_t most = options_.effort == Effort::exhaustive
                                 ? std::numeric_limits<std::size_t>::max()
                                 : static_cast<std::size_t>(std::max(options_.candidates, 1));
    const auto steps = static_cast<double>(spec_.steps);
    // The choice by estimate always takes part, and stands in front: it is what has to be beaten.
    auto chosen = estimate_schedule(spec_, isa_, threads_, machine_);
    if (chosen) add({*chosen, model.predict(work, *chosen, steps), {}, {}});
    if (options_.effort != Effort::estimate) {
      for (const Schedule& s : options_.also) add({s, model.predict(work, s, steps), {}, {}});
    }
    const std::size_t given = out_.candidates.size();
    const std::size_t wanted = given < most ? most : 0;
    const auto stop = [this] { return enough(); };
    for (Ranked& r : rank_schedules(space, work, model, steps, wanted, stop)) {
      add({std::move(r.schedule), std::move(r.predicted), {}, {}}, given);
    }
    if (out_.candidates.size() > most) out_.candidates.resize(most);
    const Schedule plain = simplest(spec_, isa_);
    fallback_ = {plain, model.predict(work, plain, steps), {}, {}};
  }

  /// Whether ranking has to end. An estimate runs nothing, so it may look at all schedules.
  bool enough() {
    const bool late = options_.effort != Effort::estimate &&
                      wall_seconds() - begin_ > kRankShare * options_.seconds;
    cut_short_ = late || told_to_stop();
    return cut_short_;
  }

  void add(Candidate c) { add(std::move(c), out_.candidates.size()); }
  /// Unless it is one of the first `among`; the space visits no schedule twice.
  void add(Candidate c, std::size_t among) {
    const auto same = [&](const Candidate& other) { return other.schedule == c.schedule; };
    auto& all = out_.candidates;
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(among);
    if (std::none_of(all.begin(), end, same)) all.push_back(std::move(c));
  }

  bool told_to_stop() const { return options_.stop && options_.stop(); }
  bool over() const { return wall_seconds() > end_ || told_to_stop(); }

  Status measure() {
    auto data = TrialData::make(spec_, options_.seed);
    if (!data) return data.error();
    data_ = std::move(*data);
    auto reference = Trial::make(data_, fallback_.schedule, share_);
    if (!reference) return reference.error();
    expected_ = reference->result();
    // Heats: the winner of one takes part in the next, so that all are compared through it.
    std::size_t champion = 0;
    for (std::size_t first = 0; first < out_.candidates.size() && !over(); first += kHeat) {
      const std::size_t last = std::min(first + kHeat, out_.candidates.size());
      std::vector<std::size_t> entrants;
      if (first > 0) entrants.push_back(champion);
      for (std::size_t i = first; i < last; ++i) entrants.push_back(i);
      waiting_ = out_.candidates.size() - last;
      champion = heat(entrants, (1.0 - kPlayoffShare) * static_cast<double>(last - first) /
                                    static_cast<double>(out_.candidates.size() - first));
    }
    best_ = playoff(champion);
    const auto untimed = [](const Candidate& c) {
      return c.refused.empty() && c.measured.rounds == 0;
    };
    out_.stopped = cut_short_ || told_to_stop() ||
                   std::any_of(out_.candidates.begin(), out_.candidates.end(), untimed);
    return {};
  }

  /// Races the entrants for `share` of the time that is left; returns the winner.
  std::size_t heat(const std::vector<std::size_t>& entrants, double share) {
    std::vector<Trial> trials;
    std::vector<std::size_t> who;
    trials.reserve(entrants.size());
    for (const std::size_t i : entrants) {
      if (!trials.empty() && over()) break;
      auto trial = Trial::make(data_, out_.candidates[i].schedule, share_);
      if (!trial) {
        out_.candidates[i].refused = trial.error().message();
      } else if (!is_right(*trial)) {
        out_.candidates[i].refused = "its result differs from that of the simplest schedule";
      } else {
        trials.push_back(std::move(*trial));
        who.push_back(i);
      }
    }
    if (trials.empty()) return entrants.front();
    const auto times = race(racers(trials), race_options(share));
    for (std::size_t n = 0; n < who.size(); ++n) out_.candidates[who[n]].measured = times[n];
    return who[settle(times)];
  }

  /// Those that stayed in a race as long as the champion and came close to it, the champion first.
  std::vector<std::size_t> finalists(std::size_t champion) const {
    const auto& all = out_.candidates;
    std::vector<std::size_t> out = {champion};
    for (std::size_t i = 0; i < all.size() && out.size() < kFinalists; ++i) {
      const RaceTime& t = all[i].measured;
      const bool close = t.median_us <= all[champion].measured.median_us * (1.0 + kClose);
      if (i != champion && all[i].refused.empty() && t.rounds > 0 && close) out.push_back(i);
    }
    return out;
  }

  /// A schedule made anew can be some per cent faster or slower, by where its memory lies. So those
  /// that came close are made several times, and the median over the makings decides.
  std::size_t playoff(std::size_t champion) {
    const std::vector<std::size_t> who = finalists(champion);
    std::vector<std::vector<RaceTime>> makings;
    for (int making = 0; making < kMakings && who.size() > 1 && !over(); ++making) {
      std::vector<Trial> trials;
      for (const std::size_t i : who) {
        auto trial = Trial::make(data_, out_.candidates[i].schedule, share_);
        if (!trial) return champion;
        trials.push_back(std::move(*trial));
      }
      RaceOptions options = race_options(1.0 / (kMakings - making));
      options.drop_losers = false;
      options.most_rounds = kPlayoffRounds;
      makings.push_back(race(racers(trials), options));
    }
    return who[winner(makings, kTie)];
  }

  bool is_right(Trial& trial) const {
    std::vector<float> result = trial.result();
    if (options_.tamper) options_.tamper(trial.schedule(), result);
    return equal_bits(result, expected_);
  }

  std::vector<Racer> racers(std::vector<Trial>& trials) const {
    std::vector<Racer> out;
    for (Trial& t : trials) {
      Racer r{[&t] { t.run(); }, {}};
      if (options_.cold) r.prepare = [&t] { t.evict(); };
      out.push_back(std::move(r));
    }
    return out;
  }

  RaceOptions race_options(double share) {
    RaceOptions race;
    race.seconds = std::max(0.0, end_ - wall_seconds()) * share;
    race.stop = [this] { return over(); };
    race.progress = [this](const RaceProgress& p) { report(p); };
    return race;
  }

  void report(const RaceProgress& heat) const {
    if (!options_.progress) return;
    TuneProgress p;
    p.candidates = out_.candidates.size();
    p.left = heat.left + static_cast<int>(waiting_);
    p.rounds = heat.rounds;
    p.best_us = heat.leader_us;
    p.done = std::clamp(1.0 - (end_ - wall_seconds()) / options_.seconds, 0.0, 1.0);
    options_.progress(p);
  }

  /// The winner, or the first of those that are as good: candidates stand in the model's order.
  static std::size_t settle(const std::vector<RaceTime>& times) {
    const std::size_t best = winner(times);
    for (std::size_t i = 0; i < times.size(); ++i) {
      const bool stayed = times[i].rounds == times[best].rounds;
      if (stayed && times[i].ratio <= times[best].ratio * (1.0 + kTie)) return i;
    }
    return best;
  }

  /// Those that were timed first, by their time; then those that were not; refused ones last.
  static bool before(const Candidate& a, const Candidate& b) {
    const auto place = [](const Candidate& c) { return c.refused.empty() ? 0 : 1; };
    const auto time = [](const Candidate& c) {
      return c.measured.rounds > 0 ? c.measured.median_us : std::numeric_limits<double>::infinity();
    };
    return place(a) != place(b) ? place(a) < place(b) : time(a) < time(b);
  }

  void conclude() {
    auto& all = out_.candidates;
    const auto at = [&](std::size_t i) { return all.begin() + static_cast<std::ptrdiff_t>(i); };
    if (!all[best_].refused.empty()) {
      best_ = static_cast<std::size_t>(std::min_element(at(0), all.end(), before) - at(0));
    }
    if (!all[best_].refused.empty()) {
      best_ = all.size();
      all.push_back(fallback_);
    }
    std::rotate(at(0), at(best_), at(best_ + 1));
    std::stable_sort(at(1), all.end(), before);
    const Candidate& best = all.front();
    out_.schedule = best.schedule;
    out_.predicted_us = best.predicted.us;
    out_.measured_us = best.measured.median_us;
    out_.spread = best.measured.spread;
  }

  const ModelSpec& spec_;
  const TuneOptions& options_;
  Isa isa_;
  int threads_;
  const MachineModel& machine_;
  double begin_;
  double end_;
  TrialData data_;
  TrialShare share_;
  std::vector<float> expected_;
  Candidate fallback_;       ///< the reference
  std::size_t waiting_ = 0;  ///< candidates whose heat has not begun
  std::size_t best_ = 0;
  bool cut_short_ = false;  ///< ranking was ended before it had seen all schedules
  TuneResult out_;
};

}  // namespace

std::string_view to_string(Effort effort) noexcept {
  for (const EffortWord& row : kEfforts) {
    if (row.effort == effort) return row.word;
  }
  return "?";
}

Result<Effort> parse_effort(std::string_view text) {
  for (const EffortWord& row : kEfforts) {
    if (row.word == text) return row.effort;
  }
  return Error(fmt::format("effort={}: must be estimate, measure or exhaustive", quote(text)));
}

Result<TuneResult> tune(const ModelSpec& spec, const TuneOptions& options) {
  if (auto status = spec.validate(); !status) return status.error();
  if (options.threads < 1) {
    return Error(fmt::format("threads={}: must be at least 1", options.threads));
  }
  if (!(options.seconds > 0)) {
    return Error(fmt::format("seconds={}: must be above 0", options.seconds));
  }
  const bool elsewhere = options.machine != nullptr;
  if (elsewhere && options.effort != Effort::estimate) {
    return Error(fmt::format("effort={}: must be estimate for a machine that is described",
                             to_string(options.effort)));
  }
  const Isa best = elsewhere ? options.machine->isas.back().isa : host_isa();
  const Isa isa = options.isa ? std::min(*options.isa, best) : best;
  const int processors =
      elsewhere ? options.machine->cores
                : usable_threads(static_cast<int>(affinity().size()), machine().cpu_quota);
  return guard_memory("search for a schedule", [&]() -> Result<TuneResult> {
    return Search(spec, options, isa, std::min(options.threads, processors)).run();
  });
}

}  // namespace deepcpu
