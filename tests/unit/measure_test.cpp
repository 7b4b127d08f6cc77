// SPDX-License-Identifier: Apache-2.0
#include "src/tune/measure.hpp"

#include <vector>

#include "tests/catch.hpp"

namespace {

using deepcpu::measure;
using deepcpu::MeasureOptions;
using deepcpu::Timing;

/// A clock that only the timed callable moves.
double g_now = 0.0;
double fake_clock() noexcept { return g_now; }

/// The n-th call takes seconds[n]; when they are used up they start again.
struct Script {
  std::vector<double> seconds;
  std::size_t calls = 0;
  void operator()() { g_now += seconds[calls++ % seconds.size()]; }
};

Timing time(Script& script, const MeasureOptions& options) {
  g_now = 0.0;
  return measure([&] { script(); }, options, fake_clock);
}

}  // namespace

TEST_CASE("measure warms up, then takes samples of one slow call each") {
  Script script{{0.25}};
  const Timing t = time(script, {.warm_up_seconds = 1.0,
                                 .floor_seconds = 0.125,
                                 .seconds = 2.0,
                                 .least_samples = 3,
                                 .most_samples = 100});
  CHECK(t.calls == 1);
  CHECK(t.samples == 8);
  CHECK(script.calls == 4 + 1 + 8);  // warm-up, one look at the floor, samples
  CHECK(t.median_us == 250000.0);
  CHECK(t.min_us == 250000.0);
  CHECK(t.p99_us == 250000.0);
  CHECK(t.spread == 0.0);
}

TEST_CASE("measure doubles the calls until a sample reaches the floor") {
  Script script{{0x1p-20}};
  const Timing t = time(script, {.warm_up_seconds = 0.0,
                                 .floor_seconds = 5 * 0x1p-20,
                                 .seconds = 0.0,
                                 .least_samples = 4,
                                 .most_samples = 100});
  CHECK(t.calls == 8);
  CHECK(t.samples == 4);
  CHECK(script.calls == 1 + (1 + 2 + 4 + 8) + 4 * 8);
  CHECK(t.median_us == 0x1p-20 * 1e6);
}

TEST_CASE("measure pauses before every call, outside of the time") {
  Script script{{0.25}};
  int pauses = 0;
  MeasureOptions options{.warm_up_seconds = 3.0,
                         .floor_seconds = 10.0,
                         .seconds = 8.0,
                         .least_samples = 3,
                         .most_samples = 100};
  options.pause = [&] {
    ++pauses;
    g_now += 0.75;
  };
  const Timing t = time(script, options);
  CHECK(t.calls == 1);
  CHECK(t.samples == 8);
  CHECK(pauses == 3 + 8);
  CHECK(script.calls == 3 + 8);
  CHECK(t.median_us == 250000.0);
}

TEST_CASE("measure keeps to the least and the most samples") {
  const MeasureOptions slow{.warm_up_seconds = 0.0,
                            .floor_seconds = 0.0,
                            .seconds = 0.5,
                            .least_samples = 5,
                            .most_samples = 7};
  Script seconds{{1.0}};
  CHECK(time(seconds, slow).samples == 5);
  Script instants{{0x1p-10}};
  CHECK(time(instants, slow).samples == 7);
}

TEST_CASE("measure gives median, 99th percentile, minimum and spread by nearest rank") {
  Script script;
  script.seconds = {1.0, 1.0};  // the warm-up and the look at the floor
  for (int i = 200; i > 0; --i) script.seconds.push_back(i);
  const Timing t = time(script, {.warm_up_seconds = 0.0,
                                 .floor_seconds = 0.0,
                                 .seconds = 0.0,
                                 .least_samples = 200,
                                 .most_samples = 200});
  REQUIRE(t.samples == 200);
  CHECK(t.median_us == Approx(100.5e6));
  CHECK(t.p99_us == Approx(198e6));
  CHECK(t.min_us == Approx(1e6));
  CHECK(t.spread == Approx(100 / 100.5));
}

TEST_CASE("measure ends although the clock stands still") {
  Script script{{0.0}};
  const Timing t = time(script, {.warm_up_seconds = 0.0,
                                 .floor_seconds = 1.0,
                                 .seconds = 0.0,
                                 .least_samples = 1,
                                 .most_samples = 1});
  CHECK(t.samples == 1);
  CHECK(t.median_us == 0.0);
  CHECK(t.spread == 0.0);
}

TEST_CASE("time_once times one call with the clock given") {
  Script script{{0.5}};
  g_now = 0.0;
  CHECK(deepcpu::time_once([&] { script(); }, fake_clock) == 500000.0);
  CHECK(script.calls == 1);
}

TEST_CASE("the clock of measurements runs forward") {
  const double before = deepcpu::wall_seconds();
  CHECK(deepcpu::time_once([] {}) >= 0.0);
  CHECK(deepcpu::wall_seconds() >= before);
}
