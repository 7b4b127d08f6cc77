// SPDX-License-Identifier: Apache-2.0
/// How good the cost model is: random schedules of the valid space of every problem, predicted and
/// measured; and the schedule that is chosen by estimate against the best one that was measured.
/// With --pruning: what the pruning rules lose, by timing whole spaces that are small.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/rank_correlation.hpp"
#include "src/machine/machine_model.hpp"
#include "src/model/random_numbers.hpp"
#include "src/quantile.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/race.hpp"
#include "src/tune/trial.hpp"

namespace {

using namespace deepcpu;
using nlohmann::ordered_json;

struct Flags {
  std::vector<std::string> problems;
  std::string file;
  std::string json;
  int threads = 2;
  int candidates = 40;
  double seconds = 4.0;
  std::uint64_t seed = 1;
  bool pruning = false;
  std::size_t largest = 700;  ///< space that is timed as a whole
};

struct Row {
  Schedule schedule;
  Prediction predicted;
  RaceTime measured;
};

template <class T>
T demand(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

/// Times all schedules in one race; the last entry is the estimate's choice.
std::vector<Row> measure_all(const ModelSpec& spec, const std::vector<Schedule>& schedules,
                             const ModelWork& work, const CostModel& model, double seconds) {
  const TrialData data = demand(TrialData::make(spec, 1));
  TrialShare share;
  std::vector<Trial> trials;
  std::vector<Row> rows;
  for (const Schedule& s : schedules) {
    auto trial = Trial::make(data, s, share);
    if (!trial) continue;
    trials.push_back(std::move(*trial));
    rows.push_back({s, model.predict(work, s, static_cast<double>(spec.steps)), {}});
  }
  std::vector<Racer> racers;
  for (Trial& t : trials) racers.push_back({[&t] { t.run(); }, {}});
  RaceOptions options;
  options.seconds = seconds;
  options.drop_losers = false;
  const auto times = race(racers, options);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].measured = times[i];
  return rows;
}

/// Where a single round is off by more than this, the machine was busy with something else; most
/// schedules would count as ties, and a correlation say nothing.
constexpr double kMostNoise = 0.25;

struct Quality {
  double rank = 0.0;  ///< NaN: too much noise to tell
  double loss = 0.0;  ///< estimate's time over the best one's, head to head, less 1
};

double head_to_head(const ModelSpec& spec, const Schedule& estimate, const Schedule& best,
                    double seconds);

ordered_json to_json(const Row& row) {
  ordered_json json;
  json["schedule"] = ordered_json::parse(row.schedule.to_json());
  json["predicted_us"] = row.predicted.us;
  const CostParts& p = row.predicted.parts;
  json["parts"] = {p.hoist, p.products, p.gates, p.exchange, p.calls};
  json["measured_us"] = row.measured.median_us;
  json["spread"] = row.measured.spread;
  return json;
}

void report(const ModelSpec& spec, const std::vector<Row>& rows, const Quality& q, double noise,
            ordered_json& out) {
  ordered_json json;
  json["problem"] = spec.str();
  json["spearman"] = q.rank;
  json["noise"] = noise;
  json["estimate_loss"] = q.loss;
  for (const Row& row : rows) json["rows"].push_back(to_json(row));
  out.push_back(std::move(json));
  fmt::print("{:<42} {:>9.3f} {:>7.1f} % {:>9.1f} % {:>10.1f} {:>10.1f} {:>4}\n", spec.str(),
             q.rank, 100 * noise, 100 * q.loss, rows.front().measured.median_us,
             rows.front().predicted.us, rows.front().schedule.threads);
  std::fflush(stdout);
}

Quality judge(const std::string& problem, const Flags& flags, ordered_json& out) {
  const ModelSpec spec = demand(ModelSpec::parse(problem));
  const Isa isa = host_isa();
  const MachineModel& machine = machine_model();
  const ModelWork work = demand(ModelWork::of(spec, isa, flags.threads));
  const CostModel model(machine, isa);
  const ScheduleSpace space(work, machine, flags.threads);
  std::uint64_t random = flags.seed;
  const auto draw = [&](std::uint64_t n) { return next_random(random) % n; };
  std::vector<Schedule> schedules = {demand(estimate_schedule(spec, isa, flags.threads, machine))};
  for (int i = 0; i < flags.candidates; ++i) schedules.push_back(space.sample(draw));
  // The best ones by prediction too, so that "the best measured" is a strong opponent.
  for (const Ranked& r : rank_schedules(space, work, model, static_cast<double>(spec.steps), 10)) {
    schedules.push_back(r.schedule);
  }
  const auto rows = measure_all(spec, schedules, work, model, flags.seconds);
  Quality q;
  std::vector<double> predicted, measured, spread;
  std::size_t best = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (rows[i].measured.median_us < rows[best].measured.median_us) best = i;
    if (static_cast<int>(i) > flags.candidates) continue;
    predicted.push_back(rows[i].predicted.us);
    measured.push_back(rows[i].measured.median_us);
    spread.push_back(rows[i].measured.spread);
  }
  const double noise = median(spread);
  q.rank = noise > kMostNoise ? NAN : bench::rank_correlation(predicted, measured, noise);
  q.loss = head_to_head(spec, rows.front().schedule, rows[best].schedule, flags.seconds * 0.5);
  report(spec, rows, q, noise, out);
  return q;
}

// ---- what pruning loses -------------------------------------------------------------------------

/// Schedules that are compiled and raced at once, as the tuner does.
constexpr std::size_t kHeat = 24;
constexpr int kTournaments = 3;
/// How often the finalists, and then the last two, are compiled and bound to memory anew.
constexpr int kMakings = 9;
constexpr int kLastMakings = 15;

/// What a run of so many steps does: all blocks that are at least as long as the run are one, and
/// sums ahead need a whole block behind another.
Schedule as_run(Schedule s, std::int64_t steps) {
  for (LayerSchedule& l : s.layers) {
    if (l.hoist_block > steps) {
      l.hoist_block = static_cast<int>(std::bit_ceil(static_cast<std::uint64_t>(steps)));
    }
    if (steps < 2 * std::int64_t{l.hoist_block}) l.hoist_ahead = false;
  }
  return s;
}

/// The schedules of a space that do different things. Were two in it that do the same, the luckier
/// one of them would be taken for better.
std::vector<Schedule> all_of(const ScheduleSpace& space, bool pruned, std::int64_t steps) {
  std::vector<Schedule> out;
  const auto visit = [&](const Schedule& any) {
    Schedule s = as_run(any, steps);
    if (std::find(out.begin(), out.end(), s) == out.end()) out.push_back(std::move(s));
    return true;
  };
  pruned ? space.for_each(visit) : space.for_each_valid(visit);
  return out;
}

/// Times of all of them in one race.
std::vector<RaceTime> times_of(const TrialData& data, const std::vector<Schedule>& schedules,
                               const RaceOptions& options) {
  TrialShare share;
  std::vector<Trial> trials;
  for (const Schedule& s : schedules) trials.push_back(demand(Trial::make(data, s, share)));
  std::vector<Racer> racers;
  for (Trial& t : trials) racers.push_back({[&t] { t.run(); }, {}});
  return race(racers, options);
}

/// The fastest, by races with drop-out; the winner of one takes part in the next.
Schedule fastest(const TrialData& data, const std::vector<Schedule>& all, double seconds) {
  Schedule champion = all.front();
  for (std::size_t first = 1; first < all.size(); first += kHeat) {
    std::vector<Schedule> heat = {champion};
    const std::size_t last = std::min(all.size(), first + kHeat);
    for (std::size_t i = first; i < last; ++i) heat.push_back(all[i]);
    RaceOptions options;
    options.seconds = seconds * static_cast<double>(last - first) / static_cast<double>(all.size());
    champion = heat[winner(times_of(data, heat, options))];
  }
  return champion;
}

/// The winners of several tournaments. The same schedule compiled and bound to memory anew can be a
/// tenth faster or slower on a tiny problem, so one tournament may pick a lucky one.
std::vector<Schedule> finalists(const TrialData& data, const std::vector<Schedule>& all,
                                double seconds) {
  std::vector<Schedule> out;
  for (int i = 0; i < kTournaments; ++i) {
    Schedule s = fastest(data, all, seconds / kTournaments);
    if (std::find(out.begin(), out.end(), s) == out.end()) out.push_back(std::move(s));
  }
  return out;
}

/// Times against the first, the median over several makings of all of them.
std::vector<double> ratios_of(const TrialData& data, const std::vector<Schedule>& schedules,
                              int makings, double seconds) {
  RaceOptions options;
  options.drop_losers = false;
  options.seconds = seconds / makings;
  std::vector<std::vector<double>> ratios(schedules.size());
  for (int i = 0; i < makings; ++i) {
    const auto times = times_of(data, schedules, options);
    for (std::size_t n = 0; n < times.size(); ++n) ratios[n].push_back(times[n].ratio);
  }
  std::vector<double> out;
  for (const auto& r : ratios) out.push_back(median(r));
  return out;
}

/// The race that found the best of many schedules may have found the luckiest: the two are compiled
/// and bound to memory anew, and race by themselves.
double head_to_head(const ModelSpec& spec, const Schedule& estimate, const Schedule& best,
                    double seconds) {
  if (as_run(estimate, spec.steps) == as_run(best, spec.steps)) return 0.0;
  const TrialData data = demand(TrialData::make(spec, 1));
  return ratios_of(data, {best, estimate}, kMakings, seconds).back() - 1.0;
}

/// What searching the pruned space instead of all of it costs: the winners are found by some races
/// and compared in others. The least of several noisy medians is lower than it should be, so the
/// races that found a winner may not say how much better it is.
struct PruningLoss {
  Schedule best;  ///< of all
  Schedule kept;  ///< of the pruned space
  double loss = 0.0;
};

PruningLoss compare_winners(const TrialData& data, const std::vector<Schedule>& all,
                            const std::vector<Schedule>& pruned, double seconds) {
  auto last = finalists(data, pruned, seconds * 0.2);
  const auto kept = static_cast<std::ptrdiff_t>(last.size());
  for (const Schedule& s : finalists(data, all, seconds * 0.4)) last.push_back(s);
  const auto ratios = ratios_of(data, last, kMakings, seconds * 0.2);
  const auto least = [&](std::ptrdiff_t end) {
    const auto at = std::min_element(ratios.begin(), ratios.begin() + end) - ratios.begin();
    return last[static_cast<std::size_t>(at)];
  };
  PruningLoss out{least(std::ssize(ratios)), least(kept)};
  // If the best of all is among those that are left, nothing was lost, whoever won there.
  if (std::find(pruned.begin(), pruned.end(), out.best) != pruned.end()) out.kept = out.best;
  if (out.best == out.kept) return out;
  out.loss = ratios_of(data, {out.best, out.kept}, kLastMakings, seconds * 0.2).back() - 1.0;
  return out;
}

double pruning_loss(const std::string& problem, const Flags& flags) {
  const ModelSpec spec = demand(ModelSpec::parse(problem));
  const ModelWork work = demand(ModelWork::of(spec, host_isa(), flags.threads));
  const ScheduleSpace space(work, machine_model(), flags.threads);
  const auto valid = space.sizes().valid;
  if (valid.log10() > std::log10(static_cast<double>(flags.largest))) {
    fmt::print("{:<42} {:>8} valid schedules: too many\n", spec.str(), valid.str());
    return NAN;
  }
  const auto all = all_of(space, false, spec.steps);
  const auto few = all_of(space, true, spec.steps);
  const PruningLoss out =
      compare_winners(demand(TrialData::make(spec, 1)), all, few, flags.seconds);
  fmt::print("{:<42} {:>8} {:>8} {:>8.1f} %\n", spec.str(), all.size(), few.size(), 100 * out.loss);
  if (out.loss > 0.03) fmt::print("  best {}\n  kept {}\n", out.best.to_json(), out.kept.to_json());
  std::fflush(stdout);
  return out.loss;
}

int run_pruning(const Flags& flags) {
  fmt::print("{:<42} {:>8} {:>8} {:>10}\n", "problem", "valid", "pruned", "loss");
  std::vector<double> losses;
  for (const std::string& problem : flags.problems) {
    const double loss = pruning_loss(problem, flags);
    if (!std::isnan(loss)) losses.push_back(loss);
  }
  if (losses.empty()) return 0;
  const auto below = std::count_if(losses.begin(), losses.end(), [](double l) { return l < 0.03; });
  fmt::print("pruning loses {:.1f} % at the median, {:.1f} % at most, under 3 % on {} of {}\n",
             100 * median(losses), 100 * *std::max_element(losses.begin(), losses.end()), below,
             losses.size());
  return 0;
}

int run(Flags flags) {
  if (!flags.file.empty()) {
    std::ifstream in(flags.file);
    for (std::string line; std::getline(in, line);) {
      line = line.substr(0, line.find('#'));
      line.erase(line.find_last_not_of(" \t\r") + 1);
      if (!line.empty()) flags.problems.push_back(line);
    }
  }
  fmt::print("machine: {}\n", machine_model().note);
  if (flags.pruning) return run_pruning(flags);
  fmt::print("{:<42} {:>9} {:>9} {:>11} {:>10} {:>10} {:>4}\n", "problem", "spearman", "noise",
             "over best", "us", "predicted", "thr");
  ordered_json out = ordered_json::array();
  std::vector<double> rank, loss;
  for (const std::string& problem : flags.problems) {
    const Quality q = judge(problem, flags, out);
    if (!std::isnan(q.rank)) rank.push_back(q.rank);
    loss.push_back(q.loss);
  }
  const auto near = std::count_if(loss.begin(), loss.end(), [](double l) { return l <= 0.10; });
  fmt::print(
      "median rank correlation {:.3f} of {} problems; estimate within 10 % of the best on {} "
      "of {}\n",
      median(rank), rank.size(), near, loss.size());
  if (!flags.json.empty()) std::ofstream(flags.json) << out.dump(1) << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Compares the cost model's predictions with measured times");
  Flags flags;
  app.add_option("problems", flags.problems, "Problems");
  app.add_option("--file", flags.file, "More problems, one per line");
  app.add_option("--json", flags.json, "Write all rows to this file");
  app.add_option("--threads", flags.threads, "Cap")->check(CLI::Range(1, 1024));
  app.add_option("--candidates", flags.candidates, "Random schedules per problem");
  app.add_option("--seconds", flags.seconds, "Time per problem");
  app.add_option("--seed", flags.seed, "Of the random schedules");
  app.add_flag("--pruning", flags.pruning, "What the pruning rules lose on small spaces");
  app.add_option("--largest", flags.largest, "Most schedules of a space that is timed as a whole");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(flags);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_cost_model: {}\n", e.what());
    return 1;
  }
}
