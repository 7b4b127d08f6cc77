// SPDX-License-Identifier: Apache-2.0
/// What each constant of the cost model is worth: predictions with half and with twice of it,
/// against the times that `bench_cost_model --json` wrote. Measures nothing itself; the machine
/// model must be the one that the times were taken with.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/rank_correlation.hpp"
#include "src/machine/machine_model.hpp"
#include "src/tune/cost_model.hpp"

namespace {

using namespace deepcpu;
using nlohmann::json;

template <class T>
T demand(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

/// A problem with its schedules and their times; the first is the choice by estimate.
struct Measured {
  std::string name;
  ModelSpec spec;
  ModelWork work;
  std::vector<Schedule> schedules;
  std::vector<double> us;
  std::size_t random = 0;  ///< so many after the first were drawn at random
  double noise = 0.0;
};

struct Quality {
  double rank = 0.0;       ///< median over the problems
  double mean_loss = 0.0;  ///< of what would be chosen among the schedules, over the best of them
  std::size_t near = 0;    ///< problems in which that is within 10 %
  std::vector<double> losses;
};

Measured read_problem(const json& from, std::size_t candidates) {
  Measured out;
  out.name = from.at("problem").get<std::string>();
  out.spec = demand(ModelSpec::parse(out.name));
  out.work = demand(ModelWork::of(out.spec, host_isa(), machine_model().cores));
  out.noise = from.at("noise").get<double>();
  for (const json& row : from.at("rows")) {
    out.schedules.push_back(demand(Schedule::from_json(row.at("schedule").dump())));
    out.us.push_back(row.at("measured_us").get<double>());
  }
  out.random = std::min(candidates, out.us.size() - 1);
  return out;
}

Quality judge(const std::vector<Measured>& problems, const OwnCosts& own) {
  // As bench_cost_model: where rounds differ by more, the machine was busy with something else.
  constexpr double kMostNoise = 0.25;
  const CostModel model(machine_model(), host_isa(), own);
  Quality q;
  std::vector<double> ranks;
  for (const Measured& p : problems) {
    std::vector<double> us;
    for (const Schedule& s : p.schedules) {
      us.push_back(model.predict(p.work, s, static_cast<double>(p.spec.steps)).us);
    }
    const auto first = static_cast<std::ptrdiff_t>(1);
    const auto last = first + static_cast<std::ptrdiff_t>(p.random);
    const double rank =
        bench::rank_correlation({us.begin() + first, us.begin() + last},
                                {p.us.begin() + first, p.us.begin() + last}, p.noise);
    if (p.noise <= kMostNoise && !std::isnan(rank)) ranks.push_back(rank);
    const auto chosen = std::min_element(us.begin(), us.end()) - us.begin();
    const double best = *std::min_element(p.us.begin(), p.us.end());
    const double loss = p.us[static_cast<std::size_t>(chosen)] / best - 1.0;
    q.losses.push_back(loss);
    q.mean_loss += loss / static_cast<double>(problems.size());
    q.near += loss <= 0.10 ? 1 : 0;
  }
  std::sort(ranks.begin(), ranks.end());
  if (!ranks.empty()) q.rank = ranks[ranks.size() / 2];
  return q;
}

struct Constant {
  const char* name;
  double OwnCosts::*value;
};

constexpr Constant kConstants[] = {
    {"tile_cycles", &OwnCosts::tile_cycles},
    {"row_cycles", &OwnCosts::row_cycles},
    {"stage_cycles", &OwnCosts::stage_cycles},
    {"exposed_latency", &OwnCosts::exposed_latency},
    {"fetch_hidden", &OwnCosts::fetch_hidden},
    {"beside", &OwnCosts::beside},
    {"division_cycles", &OwnCosts::division_cycles},
    {"lines_by_flag", &OwnCosts::lines_by_flag},
    {"lines_by_data", &OwnCosts::lines_by_data},
    {"lines_hidden", &OwnCosts::lines_hidden},
    {"poll_cycles", &OwnCosts::poll_cycles},
    {"gather_cycles", &OwnCosts::gather_cycles},
    {"block_us", &OwnCosts::block_us},
    {"call_us", &OwnCosts::call_us},
    {"team_lines", &OwnCosts::team_lines},
};

void print(const std::string& what, const Quality& q, std::size_t problems) {
  fmt::print("{:<26} {:>9.3f} {:>9.1f} % {:>6} of {}\n", what, q.rank, 100 * q.mean_loss, q.near,
             problems);
}

/// The problems in which the choice loses `least` and more.
void print_losses(const std::vector<Measured>& problems, const Quality& q, double least) {
  for (std::size_t i = 0; i < problems.size(); ++i) {
    if (q.losses[i] < least) continue;
    fmt::print("  {:<40} {:>6.1f} %\n", problems[i].name, 100 * q.losses[i]);
  }
}

void study(const std::vector<std::string>& files, std::size_t candidates, double least) {
  std::vector<Measured> problems;
  for (const std::string& file : files) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error(file + ": cannot be read");
    for (const json& one : json::parse(in)) problems.push_back(read_problem(one, candidates));
  }
  fmt::print("machine: {}\n", machine_model().note);
  fmt::print("{:<26} {:>9} {:>11} {:>12}\n", "", "spearman", "mean loss", "within 10 %");
  const Quality now = judge(problems, {});
  print("as it is", now, problems.size());
  print_losses(problems, now, least);
  for (const Constant& c : kConstants) {
    for (const double factor : {0.5, 2.0}) {
      OwnCosts own;
      own.*c.value *= factor;
      print(fmt::format("{} {} -> {}", c.name, OwnCosts{}.*c.value, own.*c.value),
            judge(problems, own), problems.size());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Judges each constant of the cost model by times that were measured before");
  std::vector<std::string> files;
  std::size_t candidates = 40;
  app.add_option("files", files, "As bench_cost_model --json wrote them")->required();
  app.add_option("--candidates", candidates, "Random schedules per problem in it");
  double least = 10.0;
  app.add_option("--losses", least, "Names problems that lose so many per cent and more [10]");
  CLI11_PARSE(app, argc, argv);
  try {
    study(files, candidates, least / 100);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_own_costs: {}\n", e.what());
    return 1;
  }
}
