// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/placement.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/forked.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

using Cpus = std::vector<int>;

/// 0, 1, ... count - 1
Cpus numbered(int count) {
  Cpus cpus(static_cast<std::size_t>(count));
  std::iota(cpus.begin(), cpus.end(), 0);
  return cpus;
}

/// Places teams of these sizes one after the other, the callers all at `own`.
std::vector<Cpus> place(int processors, const std::vector<std::size_t>& sizes,
                        std::size_t own = 0) {
  const Cpus cpus = numbered(processors);
  Cpus teams(cpus.size());
  std::vector<Cpus> out;
  for (const std::size_t size : sizes) {
    out.push_back(pick_processors(cpus, teams, size, own));
    for (const int cpu : out.back()) ++teams[static_cast<std::size_t>(cpu)];
  }
  return out;
}

TEST_CASE("placement: teams stand side by side, at multiples of their size") {
  CHECK(place(8, {2, 2, 2, 2}) == std::vector<Cpus>{{0, 1}, {2, 3}, {4, 5}, {6, 7}});
  CHECK(place(8, {4, 2, 2}) == std::vector<Cpus>{{0, 1, 2, 3}, {4, 5}, {6, 7}});
  CHECK(place(8, {2, 4, 2}) == std::vector<Cpus>{{0, 1}, {4, 5, 6, 7}, {2, 3}});
  CHECK(place(16, {3, 3}) == std::vector<Cpus>{{0, 1, 2}, {3, 4, 5}});
}

TEST_CASE("placement: the first team is where its caller is") {
  CHECK(place(8, {2}, 5) == std::vector<Cpus>{{4, 5}});
  CHECK(place(8, {2, 2}, 7) == std::vector<Cpus>{{6, 7}, {0, 1}});
  CHECK(place(3, {2}, 2) == std::vector<Cpus>{{0, 1}});
}

TEST_CASE("placement: without a free place, those that the fewest teams have") {
  CHECK(place(3, {2, 2}) == std::vector<Cpus>{{0, 1}, {2, 0}});
  CHECK(place(4, {2, 2, 2}) == std::vector<Cpus>{{0, 1}, {2, 3}, {0, 1}});
  CHECK(place(8, {3, 3, 3}) == std::vector<Cpus>{{0, 1, 2}, {3, 4, 5}, {6, 7, 0}});
}

TEST_CASE("placement: a team of as many threads as processors, or more, has them all") {
  CHECK(place(2, {2, 2}) == std::vector<Cpus>{{0, 1}, {0, 1}});
  CHECK(place(2, {3}, 1) == std::vector<Cpus>{{0, 1}});
  CHECK(place(1, {2}) == std::vector<Cpus>{{0}});
}

TEST_CASE("placement: cores come before their further processors") {
  CHECK(cores_first({0, 1, 2, 3}, {0, 1, 0, 1}) == Cpus{0, 1, 2, 3});
  CHECK(cores_first({0, 1, 2, 3}, {0, 0, 2, 2}) == Cpus{0, 2, 1, 3});
  // Of the first core only the second processor is allowed.
  CHECK(cores_first({1, 2, 3}, {0, 2, 2}) == Cpus{1, 2, 3});
  for (const int cpu : {0, 1, 100'000}) CHECK(core_of(cpu) <= cpu);
}

int processors() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

/// How many processors the placements have together, each counted once.
std::size_t together(const std::vector<Placement>& placements) {
  std::set<int> all;
  for (const Placement& p : placements) all.insert(p.cpus().begin(), p.cpus().end());
  return all.size();
}

TEST_CASE("placement: as long as there are free ones, made by several threads at once") {
  const int count = std::min(processors(), 8);
  std::vector<Placement> placements(static_cast<std::size_t>(count));
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (Placement& p : placements) {
    threads.emplace_back([&] {
      while (!go) std::this_thread::yield();
      p = Placement(1);
    });
  }
  go = true;
  for (std::thread& t : threads) t.join();
  CHECK(together(placements) == placements.size());
  // What is given back is free again.
  for (int i = 0; i < 3; ++i) {
    const Cpus before = placements.back().cpus();
    placements.back() = Placement();
    if (processors() > 8) break;
    placements.back() = Placement(1);
    CHECK(placements.back().cpus() == before);
  }
}

TEST_CASE("placement: a forked child begins with none, and does not give back its parent's",
          "[fork]") {
  if (processors() < 2) return;
  const int count = std::min(processors(), 8);
  std::vector<Placement> parents;
  for (int i = 0; i < count; ++i) parents.emplace_back(1);
  const Ending ending = run_forked([&] {
    parents.clear();
    std::vector<Placement> own;
    for (int i = 0; i < count; ++i) own.emplace_back(1);
    return together(own) == own.size() ? 0 : 1;
  });
  CHECK(ending.status == 0);
}

}  // namespace
