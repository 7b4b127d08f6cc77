// SPDX-License-Identifier: Apache-2.0
#include "src/tune/measure.hpp"

#include <algorithm>
#include <vector>

#include "src/machine/probe.hpp"
#include "src/quantile.hpp"

namespace deepcpu {
namespace {

/// Bounds the doubling when the clock stands still.
constexpr std::uint64_t kMostCalls = std::uint64_t{1} << 24;

double seconds_of(const std::function<void()>& run, std::uint64_t calls, Clock now) {
  const double start = now();
  for (std::uint64_t i = 0; i < calls; ++i) run();
  return now() - start;
}

/// Calls that together last at least `floor` seconds.
std::uint64_t calls_per_sample(const std::function<void()>& run, double floor, Clock now) {
  std::uint64_t calls = 1;
  while (calls < kMostCalls && seconds_of(run, calls, now) < floor) calls *= 2;
  return calls;
}

Timing summarize(std::vector<double> us, std::uint64_t calls) {
  std::sort(us.begin(), us.end());
  Timing t;
  t.median_us = median_of_sorted(us);
  t.p99_us = nearest_rank(us, 0.99);
  t.min_us = us.front();
  const double quartiles = nearest_rank(us, 0.75) - nearest_rank(us, 0.25);
  t.spread = t.median_us > 0 ? quartiles / t.median_us : 0.0;
  t.calls = calls;
  t.samples = static_cast<int>(us.size());
  return t;
}

}  // namespace

double wall_seconds() noexcept { return steady_seconds(); }

Timing measure(const std::function<void()>& run, const MeasureOptions& options, Clock now) {
  const auto pause = [&] {
    if (options.pause) options.pause();
  };
  const double start = now();
  do {
    pause();
    run();
  } while (now() - start < options.warm_up_seconds);
  const std::uint64_t calls = options.pause ? 1 : calls_per_sample(run, options.floor_seconds, now);
  const int least = std::max(1, options.least_samples);
  const double end = now() + options.seconds;
  std::vector<double> us;
  us.reserve(static_cast<std::size_t>(std::max(least, options.most_samples)));
  const auto taken = [&] { return static_cast<int>(us.size()); };
  while (taken() < least || (taken() < options.most_samples && now() < end)) {
    pause();
    us.push_back(seconds_of(run, calls, now) * 1e6 / static_cast<double>(calls));
  }
  return summarize(std::move(us), calls);
}

double time_once(const std::function<void()>& run, Clock now) {
  return seconds_of(run, 1, now) * 1e6;
}

}  // namespace deepcpu
