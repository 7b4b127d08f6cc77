// SPDX-License-Identifier: Apache-2.0
/// Which runs go on several threads, for machines whose times are made up.
#include "src/runtime/team_choice.hpp"

#include <functional>

#include "tests/catch.hpp"

namespace deepcpu {
namespace {

using Way = TeamChoice::Way;

/// Runs of 10 steps; `time(way, run)` is what they take. Gives how many went alone.
int runs(TeamChoice& choice, int count, const std::function<double(Way, int)>& time,
         std::int64_t steps = 10) {
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
  TeamChoice choice;
  for (std::uint32_t run = 0; run < TeamChoice::kFirst; ++run) {
    CHECK(choice.next(10, false) == Way::team);
    choice.took(50.0);
  }
  constexpr int kRuns = 100000;
  const int alone = runs(choice, kRuns, team_is_faster);
  CHECK(alone >= static_cast<int>(TeamChoice::kTrials) * kRuns / 5000);
  CHECK(alone <= kRuns / 1000);
}

TEST_CASE("team choice: one thread takes over if it is faster, and gives back") {
  TeamChoice choice;
  CHECK(runs(choice, 1000, alone_is_faster) >= 980);
  CHECK(runs(choice, 5000, team_is_faster) < 5000 - 400);
  CHECK(runs(choice, 5000, team_is_faster) < 50);
  // A change for the worse is seen within few runs, whatever the period has become.
  CHECK(runs(choice, 200, alone_is_faster) >= 180);
}

TEST_CASE("team choice: neither the first runs nor interrupted ones decide") {
  TeamChoice choice;
  const auto cold = [](Way way, int run) { return run < 3 ? 900.0 : team_is_faster(way, run); };
  CHECK(runs(choice, 400, cold) <= static_cast<int>(TeamChoice::kTrials));
  const auto interrupted = [](Way way, int run) {
    return run % 50 == 7 ? 4000.0 : team_is_faster(way, run);
  };
  CHECK(runs(choice, 5000, interrupted) < 500);
  // The first trial finds cold caches.
  TeamChoice other;
  bool first = true;
  const auto cold_trial = [&](Way way, int run) {
    if (way == Way::team || !first) return alone_is_faster(way, run);
    first = false;
    return 900.0;
  };
  CHECK(runs(other, 100, cold_trial) >= 80);
}

TEST_CASE("team choice: near equals do not take turns") {
  TeamChoice choice;
  const auto near = [](Way way, int) { return way == Way::team ? 52.0 : 50.0; };
  CHECK(runs(choice, 10000, near) <= 30);
}

TEST_CASE("team choice: short and long runs are apart, ragged and empty ones do not count") {
  TeamChoice choice;
  CHECK(runs(choice, 500, alone_is_faster, 1) >= 480);
  CHECK(choice.next(1, false) == Way::alone);
  choice.took(70.0);
  CHECK(choice.next(100, false) == Way::team);
  choice.took(70.0);
  CHECK(choice.next(1, true) == Way::alone);
  choice.took(1e9);
  CHECK(choice.next(1, false) == Way::alone);
  choice.took(70.0);
  for (int i = 0; i < 1000; ++i) {
    CHECK(choice.next(0, false) == Way::team);
    choice.took(1.0);
  }
}

}  // namespace
}  // namespace deepcpu
