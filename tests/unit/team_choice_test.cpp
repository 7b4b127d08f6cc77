// SPDX-License-Identifier: Apache-2.0
/// What the threads of a run share, for machines whose times are made up.
#include "src/runtime/team_choice.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"

namespace deepcpu {
namespace {

using Way = TeamChoice::Way;
using Time = std::function<double(Way, int)>;

constexpr std::int64_t kMostSteps = 1023;  // the most of 10 binary digits
constexpr TeamChoice::Range kAlone{kMostSteps, 0};

/// Runs of 10 steps; `time(way, run)` is what they take. Gives how many went alone.
int runs(TeamChoice& choice, int count, const Time& time, std::int64_t steps = 10) {
  int alone = 0;
  for (int run = 0; run < count; ++run) {
    const Way way = choice.next(steps, false);
    alone += way == Way::alone ? 1 : 0;
    choice.took(time(way, run));
  }
  return alone;
}

double team_is_faster(Way way, int) { return way == Way::team ? 50.0 : 80.0; }
double alone_is_faster(Way way, int) { return way == Way::team ? 95.0 : 70.0; }

TEST_CASE("team choice: a team that is faster stays, and few runs are spent on trials") {
  TeamChoice choice(kAlone);
  CHECK(runs(choice, static_cast<int>(TeamChoice::kFirst), team_is_faster) == 0);
  constexpr int kRuns = 100000;
  const int alone = runs(choice, kRuns, team_is_faster);
  CHECK(alone >= static_cast<int>(TeamChoice::kTrials) * kRuns / 5000);
  CHECK(alone <= kRuns / 1000);
}

TEST_CASE("team choice: one thread takes over if it is faster, and gives back") {
  TeamChoice choice(kAlone);
  CHECK(runs(choice, 1000, alone_is_faster) >= 950);
  CHECK(runs(choice, 5000, team_is_faster) < 5000 - 400);
  CHECK(runs(choice, 5000, team_is_faster) < 50);
  // A change for the worse is seen within few runs, whatever the period has become.
  CHECK(runs(choice, 200, alone_is_faster) >= 100);
}

TEST_CASE("team choice: neither the first runs nor cold caches decide") {
  TeamChoice choice(kAlone);
  const Time cold = [](Way way, int run) { return run < 3 ? 900.0 : team_is_faster(way, run); };
  CHECK(runs(choice, 400, cold) <= static_cast<int>(TeamChoice::kTrials));
  // The first run after each change of the way.
  TeamChoice other(kAlone);
  Way last = Way::team;
  const Time cold_trial = [&](Way way, int run) {
    const bool changed = way != last;
    last = way;
    return changed ? 900.0 : alone_is_faster(way, run);
  };
  CHECK(runs(other, 200, cold_trial) >= 150);
}

/// Mean time over that of the team alone, for a session that meets these times.
double loss(const Time& time) {
  constexpr int kRuns = 100000;
  TeamChoice choice(kAlone);
  double sum = 0.0;
  double team = 0.0;
  runs(choice, kRuns, [&](Way way, int run) {
    const double taken = time(way, run);
    sum += taken;
    team += way == Way::team ? taken : time(Way::team, run);
    return taken;
  });
  return sum / team;
}

TEST_CASE("team choice: what disturbs some runs does not decide") {
  const auto near = [](Way way) { return way == Way::team ? 100.0 : 118.0; };
  for (const int period : {600, 2000}) {
    CHECK(loss([&](Way way, int run) { return near(way) * (run % period < 2 ? 2.5 : 1.0); }) <
          1.02);
  }
  test::Random random(1);
  CHECK(loss([&](Way way, int) { return near(way) * (random.next() % 10 == 0 ? 2.0 : 1.0); }) <
        1.05);
  CHECK(loss([&](Way way, int) {
          return near(way) * (0.8 + 0.4 * static_cast<double>(random.next() % 1000) / 1000.0);
        }) < 1.05);
  CHECK(loss([](Way way, int run) { return run % 50 == 7 ? 4000.0 : team_is_faster(way, run); }) <
        1.05);
}

TEST_CASE("team choice: near equals do not take turns") {
  TeamChoice choice(kAlone);
  const Time near = [](Way way, int) { return way == Way::team ? 51.0 : 50.0; };
  CHECK(runs(choice, 10000, near) <= 30);
}

TEST_CASE("team choice: short and long runs are apart, ragged and empty ones do not count") {
  TeamChoice choice(kAlone);
  CHECK(runs(choice, 500, alone_is_faster, 1) >= 450);
  CHECK(choice.next(1, false) == Way::alone);
  choice.took(70.0);
  CHECK(choice.next(0, false) == Way::alone);  // stays where the states are
  choice.took(1.0);
  CHECK(choice.next(100, false) == Way::team);
  choice.took(70.0);
  CHECK(choice.next(0, false) == Way::team);
  choice.took(1.0);
  CHECK(choice.next(1, true) == Way::alone);
  choice.took(1e9);
  CHECK(choice.next(1, false) == Way::alone);
  choice.took(70.0);
}

TEST_CASE("team choice: runs that are longer than may gain go on the team") {
  TeamChoice choice(kAlone);
  CHECK(runs(choice, 1000, alone_is_faster, kMostSteps + 1) == 0);
  CHECK(runs(choice, 1000, alone_is_faster, kMostSteps) >= 950);
  CHECK(runs(choice, 100, alone_is_faster, kMostSteps + 1) == 0);
  TeamChoice never;
  CHECK(runs(never, 1000, alone_is_faster, 1) == 0);
}

/// How often runs of so many steps went each way.
std::array<int, 3> ways(TeamChoice& choice, int count, std::int64_t steps,
                        const std::array<double, 3>& times) {
  std::array<int, 3> out{};
  for (int run = 0; run < count; ++run) {
    const auto way = static_cast<std::size_t>(choice.next(steps, false));
    ++out[way];
    choice.took(times[way]);
  }
  return out;
}

TEST_CASE("team choice: of three ways the fastest is taken") {
  for (const std::size_t fastest : {0U, 1U, 2U}) {
    TeamChoice choice({kMostSteps, 5});
    std::array<double, 3> times = {90.0, 80.0, 70.0};
    times[fastest] = 50.0;
    const auto taken = ways(choice, 10000, 100, times);
    for (std::size_t way = 0; way < 3; ++way) {
      INFO(fastest << " " << way);
      CHECK(taken[way] >= 1);
      if (way == fastest) CHECK(taken[way] >= 9900);
    }
    // From any to any other.
    for (const std::size_t next : {0U, 1U, 2U}) {
      times = {90.0, 90.0, 90.0};
      times[next] = 50.0;
      (void)ways(choice, 5000, 100, times);
      CHECK(ways(choice, 1000, 100, times)[next] >= 990);
    }
  }
}

TEST_CASE("team choice: each way only for runs that may gain by it") {
  TeamChoice choice({3, 9});
  const std::array<double, 3> times = {90.0, 50.0, 40.0};
  CHECK(ways(choice, 1000, 3, times)[2] >= 950);
  // Too long for one thread, too short for the other way.
  CHECK(ways(choice, 1000, 4, times)[0] == 1000);
  CHECK(ways(choice, 1000, 7, times)[0] == 1000);
  const auto nine = ways(choice, 1000, 9, times);
  CHECK(nine[1] >= 950);
  CHECK(nine[2] == 0);
  TeamChoice hoist({0, 1});
  CHECK(ways(hoist, 1000, 1, times)[1] >= 950);
}

TEST_CASE("team choice: runs of one class go the same ways, whichever come") {
  for (const std::int64_t limit : {64, 100, 127}) {
    TeamChoice choice({limit, limit});
    std::array<double, 3> times = {90.0, 80.0, 70.0};
    for (const std::size_t fastest : {2U, 1U, 0U, 2U}) {
      times = {90.0, 90.0, 90.0};
      times[fastest] = 50.0;
      for (int i = 0; i < 3000; ++i) (void)ways(choice, 1, i % 3 == 0 ? 127 : 64 + i % 30, times);
      CHECK(ways(choice, 500, 70, times)[fastest] >= 490);
    }
  }
}

TEST_CASE("team choice: runs with lengths do not go a way that has one thread for them") {
  TeamChoice choice({0, 1});
  CHECK(ways(choice, 500, 10, {90.0, 50.0, 0.0})[1] >= 450);
  CHECK(choice.next(10, true) == Way::team);
  choice.took(1e9);
  CHECK(choice.next(10, false) == Way::hoist);
}

}  // namespace
}  // namespace deepcpu
