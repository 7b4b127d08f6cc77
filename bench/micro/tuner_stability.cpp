// SPDX-License-Identifier: Apache-2.0
/// How repeatable tuning is: every problem is tuned several times, then all the schedules that were
/// found are timed head to head, and with them the one that is chosen by estimate.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "src/machine/machine_model.hpp"
#include "src/quantile.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/race.hpp"
#include "src/tune/trial.hpp"
#include "src/tune/tuner.hpp"

namespace {

using namespace deepcpu;

struct Flags {
  std::vector<std::string> problems;
  int threads = 2;
  int times = 10;
  double seconds = 2.0;
};

template <class T>
T demand(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

/// Times relative to each other, all timed in races in which nobody is dropped. A schedule made
/// anew can be some per cent faster or slower, so all are made several times and the median counts.
std::vector<double> head_to_head(const ModelSpec& spec, const std::vector<Schedule>& schedules,
                                 double seconds) {
  constexpr int kMakings = 7;
  const TrialData data = demand(TrialData::make(spec, 1));
  TrialShare share;
  std::vector<std::vector<double>> marks(schedules.size());
  for (int making = 0; making < kMakings; ++making) {
    std::vector<Trial> trials;
    for (const Schedule& s : schedules) trials.push_back(demand(Trial::make(data, s, share)));
    std::vector<Racer> racers;
    for (Trial& t : trials) racers.push_back({[&t] { t.run(); }, {}});
    RaceOptions options;
    options.seconds = seconds / kMakings;
    options.drop_losers = false;
    const auto times = race(racers, options);
    double sum = 0.0;
    for (const RaceTime& t : times) sum += t.ratio;
    for (std::size_t i = 0; i < times.size(); ++i) marks[i].push_back(times[i].ratio / sum);
  }
  std::vector<double> medians;
  for (const std::vector<double>& each : marks) medians.push_back(median(each));
  return medians;
}

void study(const std::string& problem, const Flags& flags) {
  const ModelSpec spec = demand(ModelSpec::parse(problem));
  std::vector<Schedule> found;
  std::size_t different = 0;
  std::vector<Schedule> all = {
      demand(estimate_schedule(spec, host_isa(), flags.threads, machine_model()))};
  for (int i = 0; i < flags.times; ++i) {
    TuneOptions options;
    options.threads = flags.threads;
    options.seconds = flags.seconds;
    const Schedule s = demand(tune(spec, options)).schedule;
    if (std::find(found.begin(), found.end(), s) != found.end()) continue;
    ++different;
    found.push_back(s);
  }
  all.insert(all.end(), found.begin(), found.end());
  const std::vector<double> ratios = head_to_head(spec, all, 2 * flags.seconds);
  const auto [best, worst] = std::minmax_element(ratios.begin() + 1, ratios.end());
  fmt::print("{:<36} {:>9} {:>13.1f} % {:>13.1f} %\n", spec.str(), different,
             100.0 * (*worst / *best - 1.0), 100.0 * (ratios.front() / *best - 1.0));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tunes problems several times and compares what was found");
  Flags flags;
  app.add_option("problems", flags.problems, "Problems")->required();
  app.add_option("--threads", flags.threads, "Cap")->check(CLI::Range(1, 1024));
  app.add_option("--times", flags.times, "How often each is tuned")->check(CLI::Range(1, 1000));
  app.add_option("--seconds", flags.seconds, "Time limit of one tuning");
  CLI11_PARSE(app, argc, argv);
  fmt::print("{:<36} {:>9} {:>15} {:>15}\n", "problem", "different", "worst over best",
             "estimate over");
  try {
    for (const std::string& problem : flags.problems) study(problem, flags);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_tuner_stability: {}\n", e.what());
    return 1;
  }
}
