// SPDX-License-Identifier: Apache-2.0
#include "src/tune/race.hpp"

#include <algorithm>
#include <cmath>

#include "src/quantile.hpp"

namespace deepcpu {
namespace {

/// How far above the best a racer may be: kMarginStart / rounds, but never less than kMargin. The
/// median of n rounds wanders by about the spread of a round over the root of n; 30 % is the
/// largest spread seen on a virtual machine that does little else.
constexpr double kMarginStart = 1.0;
constexpr double kMargin = 0.03;
/// What a call takes at least, where the clock does not move in between.
constexpr double kLeastSeconds = 1e-9;

class Track {
 public:
  Track(const std::vector<Racer>& racers, const RaceOptions& options, Clock now)
      : racers_(racers),
        options_(options),
        now_(now),
        us_(racers.size()),
        calls_(racers.size(), 0),
        left_(racers.size(), true) {}

  std::vector<RaceTime> run() {
    const double end = now_() + options_.seconds;
    int round = 0;
    while (round < options_.most_rounds && (round < options_.least_rounds || now_() < end)) {
      if (!run_round(static_cast<std::size_t>(round))) break;
      ++round;
      if (options_.drop_losers && round >= kTrialRounds) drop(round);
      if (options_.progress) report(round);
    }
    return summary();
  }

 private:
  /// False if it was stopped before its end.
  bool run_round(std::size_t round) {
    for (std::size_t turn = 0; turn < racers_.size(); ++turn) {
      // Another one starts each round, so that none always follows the same one.
      const std::size_t i = (turn + round) % racers_.size();
      if (!left_[i]) continue;
      us_[i].push_back(time(i));
      if (options_.stop && options_.stop()) {
        const bool whole = turn + 1 == racers_.size();
        if (round > 0 && !whole) forget(round);
        return false;
      }
    }
    return true;
  }

  void forget(std::size_t round) {
    for (std::vector<double>& us : us_) {
      if (us.size() > round) us.pop_back();
    }
  }

  void report(int round) const {
    RaceProgress p;
    p.rounds = round;
    p.left = static_cast<int>(std::count(left_.begin(), left_.end(), true));
    p.leader = leader();
    p.leader_us = median(us_[p.leader]);
    options_.progress(p);
  }

  int calls_per_turn(double seconds) const {
    const double calls = std::ceil(options_.slot_seconds / std::max(seconds, 1e-9));
    return static_cast<int>(std::clamp(calls, 1.0, 1e6));
  }

  double call(std::size_t i) {
    if (racers_[i].prepare) racers_[i].prepare();
    const double start = now_();
    racers_[i].run();
    return now_() - start;
  }

  /// Microseconds per call in one turn. The first call brings the caches back and does not count.
  double time(std::size_t i) {
    const double first = call(i);
    if (calls_[i] == 0) calls_[i] = calls_per_turn(first);
    double sum = 0.0;
    if (racers_[i].prepare) {
      for (int n = 0; n < calls_[i]; ++n) sum += call(i);
    } else {
      const double start = now_();
      for (int n = 0; n < calls_[i]; ++n) racers_[i].run();
      sum = now_() - start;
    }
    const double each = std::max(sum / calls_[i], kLeastSeconds);
    // The very first call is slower than those to come.
    if (us_[i].empty()) calls_[i] = calls_per_turn(each);
    return 1e6 * each;
  }

  double ratio(std::size_t i) const {
    std::vector<double> ratios;
    for (std::size_t r = 0; r < us_[i].size(); ++r) ratios.push_back(us_[i][r] / us_[0][r]);
    return median(std::move(ratios));
  }

  std::size_t leader() const {
    std::size_t best = 0;
    double least = 1.0;
    for (std::size_t i = 1; i < racers_.size(); ++i) {
      const double r = left_[i] && !us_[i].empty() ? ratio(i) : INFINITY;
      if (r < least) {
        least = r;
        best = i;
      }
    }
    return best;
  }

  void drop(int round) {
    const double margin = std::max(kMargin, kMarginStart / round);
    const double limit = ratio(leader()) * (1.0 + margin);
    for (std::size_t i = 1; i < racers_.size(); ++i) {
      if (left_[i] && ratio(i) > limit) left_[i] = false;
    }
  }

  std::vector<RaceTime> summary() const {
    std::vector<RaceTime> out;
    for (std::size_t i = 0; i < racers_.size(); ++i) {
      RaceTime t;
      t.rounds = static_cast<int>(us_[i].size());
      t.median_us = median(us_[i]);
      if (t.median_us > 0) {
        t.spread = (quantile(us_[i], 0.75) - quantile(us_[i], 0.25)) / t.median_us;
      }
      t.ratio = t.rounds > 0 ? ratio(i) : 0.0;
      out.push_back(t);
    }
    return out;
  }

  const std::vector<Racer>& racers_;
  const RaceOptions& options_;
  Clock now_;
  std::vector<std::vector<double>> us_;
  std::vector<int> calls_;
  std::vector<bool> left_;
};

}  // namespace

std::vector<RaceTime> race(const std::vector<Racer>& racers, const RaceOptions& options,
                           Clock now) {
  if (racers.empty()) return {};
  return Track(racers, options, now).run();
}

std::size_t winner(const std::vector<RaceTime>& times) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < times.size(); ++i) {
    const bool longer = times[i].rounds > times[best].rounds;
    const bool as_long = times[i].rounds == times[best].rounds;
    if (longer || (as_long && times[i].ratio < times[best].ratio)) best = i;
  }
  return best;
}

std::size_t winner(const std::vector<std::vector<RaceTime>>& races, double tie) {
  std::vector<std::vector<double>> marks;
  for (const std::vector<RaceTime>& times : races) {
    if (std::any_of(times.begin(), times.end(), [](const RaceTime& t) { return t.rounds == 0; })) {
      continue;
    }
    double sum = 0.0;
    for (const RaceTime& t : times) sum += t.ratio;
    marks.resize(times.size());
    for (std::size_t i = 0; i < times.size(); ++i) marks[i].push_back(times[i].ratio / sum);
  }
  if (marks.empty()) return 0;
  std::vector<double> medians;
  for (std::vector<double>& each : marks) medians.push_back(median(std::move(each)));
  const double least = *std::min_element(medians.begin(), medians.end());
  const auto good = [&](double m) { return m <= least * (1.0 + tie); };
  return static_cast<std::size_t>(std::find_if(medians.begin(), medians.end(), good) -
                                  medians.begin());
}

}  // namespace deepcpu
