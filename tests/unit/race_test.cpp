// SPDX-License-Identifier: Apache-2.0
/// race() on a clock that only moves when a racer runs.
#include "src/tune/race.hpp"

#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"

namespace deepcpu {
namespace {

/// Seconds on the clock of these tests.
double now = 0.0;
double clock_of_test() noexcept { return now; }

/// Racers of known times.
class Track {
 public:
  explicit Track(std::vector<double> us, std::uint64_t seed = 1)
      : us_(std::move(us)), calls(us_.size(), 0), random_(seed) {
    for (std::size_t i = 0; i < us_.size(); ++i) {
      racers.push_back({[this, i] {
                          ++calls[i];
                          const double factor = random_.uniform(1.0 - noise, 1.0 + noise);
                          now += 1e-6 * us_[i] * factor * (1.0 + drift * now);
                        },
                        {}});
    }
  }
  Track(const Track&) = delete;
  Track& operator=(const Track&) = delete;

  std::vector<RaceTime> run(const RaceOptions& options) {
    now = 0.0;
    return race(racers, options, clock_of_test);
  }

 private:
  std::vector<double> us_;

 public:
  double noise = 0.0;
  double drift = 0.0;  ///< per second; multiplies all times
  std::vector<int> calls;
  std::vector<Racer> racers;

 private:
  test::Random random_;
};

TEST_CASE("race: times without noise are exact") {
  Track track({100.0, 50.0, 200.0});
  RaceOptions options;
  options.drop_losers = false;
  options.seconds = 0.1;
  const auto times = track.run(options);
  REQUIRE(times.size() == 3);
  CHECK(times[0].median_us == Approx(100.0));
  CHECK(times[1].median_us == Approx(50.0));
  CHECK(times[1].ratio == Approx(0.5));
  CHECK(times[2].ratio == Approx(2.0));
  CHECK(times[2].spread == Approx(0.0).margin(1e-9));
  CHECK(times[0].rounds == times[2].rounds);
  CHECK(winner(times) == 1);
}

TEST_CASE("race: of close racers with noise the fastest wins") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const std::size_t fastest = seed % 5;
    std::vector<double> us(5, 100.0);
    us[fastest] = 90.0;
    Track track(us, seed);
    track.noise = 0.2;
    CHECK(winner(track.run({})) == fastest);
  }
}

TEST_CASE("race: losers are dropped, racer 0 and close ones stay") {
  Track track({300.0, 100.0, 101.0, 150.0, 900.0});
  const auto times = track.run({});
  CHECK(winner(times) == 1);
  CHECK(times[0].rounds == times[1].rounds);
  CHECK(times[2].rounds == times[1].rounds);
  CHECK(times[4].rounds == 3);
  CHECK(times[3].rounds < times[1].rounds);
  CHECK(times[3].rounds >= times[4].rounds);
}

TEST_CASE("race: nobody is dropped when nobody may be") {
  Track track({300.0, 100.0, 900.0});
  RaceOptions options;
  options.drop_losers = false;
  const auto times = track.run(options);
  CHECK(times[2].rounds == times[1].rounds);
}

TEST_CASE("race: drift that slows all alike does not choose the winner") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Track track({100.0, 97.0, 95.0, 99.0}, seed);
    track.drift = 3.0;
    track.noise = 0.02;
    RaceOptions options;
    options.seconds = 3.0;
    const auto times = track.run(options);
    CHECK(winner(times) == 2);
    CHECK(times[2].ratio == Approx(0.95).epsilon(0.02));
  }
}

TEST_CASE("race: ends by time, after the least rounds or after the most") {
  RaceOptions options;
  options.drop_losers = false;
  options.seconds = 0.01;
  Track late({1000.0, 1000.0});
  CHECK(late.run(options)[1].rounds == options.least_rounds);
  options.seconds = 0.05;
  options.least_rounds = 2;
  Track timely({1000.0, 1000.0});
  // A turn is a call that does not count and one that does: 4 ms a round.
  CHECK(timely.run(options)[1].rounds == 13);
  options.seconds = 1e9;
  options.most_rounds = 9;
  Track patient({1000.0, 1000.0});
  CHECK(patient.run(options)[0].rounds == 9);
}

TEST_CASE("race: short calls are repeated until a turn is long enough") {
  Track track({1.0, 1.0});
  RaceOptions options;
  options.slot_seconds = 9.95e-5;
  options.most_rounds = 7;
  track.run(options);
  CHECK(track.calls[0] == 7 * (100 + 1));
}

TEST_CASE("race: a slow first call does not shorten later turns") {
  int calls = 0;
  const Racer racer{[&] { now += ++calls == 1 ? 1e-3 : 1e-6; }, {}};
  RaceOptions options;
  options.slot_seconds = 9.95e-5;
  options.most_rounds = options.least_rounds = 3;
  race({racer}, options, clock_of_test);
  // 1 + 1 in the first turn, 1 + 100 in each of two others.
  CHECK(calls == 204);
}

TEST_CASE("race: what is prepared is not timed") {
  int prepared = 0;
  int calls = 0;
  Racer racer{[&] {
                ++calls;
                now += 1e-5;
              },
              [&] {
                ++prepared;
                now += 1.0;
              }};
  RaceOptions options;
  options.most_rounds = 3;
  const auto times = race({racer}, options, clock_of_test);
  CHECK(times[0].median_us == Approx(10.0));
  CHECK(prepared == calls);
}

TEST_CASE("race: stop ends it after any turn with what is known") {
  // Turns at which it is stopped: in the first round, between rounds, and in a later one, which
  // begins with another racer than the first.
  for (int last = 1; last <= 12; ++last) {
    Track track({100.0, 50.0, 80.0});
    int turns = 0;
    RaceOptions options;
    options.drop_losers = false;
    options.stop = [&] { return ++turns == last; };
    const auto times = track.run(options);
    CHECK(turns == last);
    const int whole = last / 3;
    INFO("turn " << last);
    for (std::size_t i = 0; i < 3; ++i) {
      const int first = last > static_cast<int>(i) ? 1 : 0;
      CHECK(times[i].rounds == std::max(whole, first));
      if (times[i].rounds == 0) CHECK(times[i].median_us == 0.0);
    }
    CHECK(winner(times) == (last == 1 ? 0 : 1));
  }
}

TEST_CASE("race: the winner of several, the first of equals, without races that ended early") {
  const auto of = [](const std::vector<double>& ratios) {
    std::vector<RaceTime> times;
    for (const double ratio : ratios) {
      RaceTime t;
      t.ratio = ratio;
      t.rounds = ratio > 0.0 ? 3 : 0;
      times.push_back(t);
    }
    return times;
  };
  CHECK(winner({of({1.0, 0.9, 0.8})}, 0.01) == 2);
  CHECK(winner({of({1.0, 0.995, 1.1})}, 0.01) == 0);
  // The median counts: one good race is not enough.
  CHECK(winner({of({1.0, 0.5}), of({1.0, 1.2}), of({1.0, 1.3})}, 0.01) == 0);
  // Nobody wins by not having run.
  CHECK(winner({of({1.0, 0.0, 0.0})}, 0.01) == 0);
  CHECK(winner({of({1.0, 0.8}), of({1.0, 0.0})}, 0.01) == 1);
  CHECK(winner({of({1.0, 1.2}), of({1.0, 0.0})}, 0.01) == 0);
  CHECK(winner(std::vector<std::vector<RaceTime>>{}, 0.01) == 0);
}

TEST_CASE("race: progress names the leader, its time and who is left") {
  Track track({300.0, 100.0, 101.0, 900.0});
  RaceOptions options;
  int called = 0;
  RaceProgress final;
  options.progress = [&](const RaceProgress& p) {
    CHECK(p.rounds == ++called);
    final = p;
  };
  const auto times = track.run(options);
  CHECK(final.rounds == times[0].rounds);
  CHECK(final.leader == 1);
  CHECK(final.leader_us == Approx(100.0));
  CHECK(final.left == 3);
}

TEST_CASE("race: nobody, one, and calls that take no time") {
  CHECK(race({}, {}).empty());
  Track one({5.0});
  CHECK(winner(one.run({})) == 0);
  Track none({0.0, 0.0});
  RaceOptions options;
  options.most_rounds = 3;
  options.slot_seconds = 1e-6;
  const auto times = none.run(options);
  CHECK(times[1].ratio == 1.0);
}

}  // namespace
}  // namespace deepcpu
