// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/team.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/sanitizers.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

constexpr int kMost = 16;

/// What each participant did: plain numbers, so that a thread sanitizer sees whether the team
/// orders them.
struct Board {
  std::array<int, kMost> calls{};
  std::array<std::thread::id, kMost> thread{};
  std::array<int, kMost> cpus{};

  static void work(void* self, int participant) noexcept {
    auto& board = *static_cast<Board*>(self);
    const auto p = static_cast<std::size_t>(participant);
    ++board.calls[p];
    board.thread[p] = std::this_thread::get_id();
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) board.cpus[p] = CPU_COUNT(&allowed);
  }
};

TEST_CASE("every participant of a team does every job once") {
  for (const int helpers : {0, 1, 2, 7}) {
    for (const int spin_us : {0, 50}) {
      ThreadTeam team(helpers, {.spin_us = spin_us, .pin = true});
      REQUIRE(team.complete());
      Board board;
      constexpr int kJobs = 300;
      for (int i = 1; i <= kJobs; ++i) {
        team.run(&Board::work, &board);
        for (int p = 0; p <= helpers; ++p) REQUIRE(board.calls[static_cast<std::size_t>(p)] == i);
      }
      CHECK(board.thread[0] == std::this_thread::get_id());
      for (int p = 1; p <= helpers; ++p) {
        for (int q = 0; q < p; ++q) {
          CHECK(board.thread[static_cast<std::size_t>(p)] !=
                board.thread[static_cast<std::size_t>(q)]);
        }
      }
    }
  }
}

TEST_CASE("helpers that are parked wake up, and can be ended there") {
  Board board;
  {
    ThreadTeam team(2, {.spin_us = 10, .pin = true});
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // far beyond spin_us
      team.run(&Board::work, &board);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  CHECK(board.calls[0] == 20);
  CHECK(board.calls[1] == 20);
  CHECK(board.calls[2] == 20);
}

TEST_CASE("a team that never had a job ends") {
  for (int i = 0; i < 50; ++i) const ThreadTeam team(i % 4, {.spin_us = i, .pin = true});
}

int cpus_of_this_thread() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : -1;
}

TEST_CASE("helpers are pinned to one processor each unless told not to, the caller never") {
  const int before = cpus_of_this_thread();
  for (const bool pin : {false, true}) {
    Board board;
    ThreadTeam team(2, {.spin_us = 50, .pin = pin});
    team.run(&Board::work, &board);
    CHECK(board.cpus[0] == before);
    CHECK(board.cpus[1] == (pin ? 1 : before));
    CHECK(board.cpus[2] == (pin ? 1 : before));
  }
  CHECK(cpus_of_this_thread() == before);
}

TEST_CASE("a helper is pinned inside the process's affinity mask", "[fork]") {
  const Ending ending = run_forked([] {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 2;
    int last = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) last = CPU_ISSET(cpu, &allowed) ? cpu : last;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return 3;
    Board board;
    ThreadTeam team(3);
    for (int i = 0; i < 20; ++i) team.run(&Board::work, &board);  // progress on one processor
    return board.cpus[1] == 1 && board.cpus[3] == 1 && board.calls[3] == 20 ? 0 : 4;
  });
  CHECK(ending.status == 0);
}

/// Binds the calling thread to each processor that it may use, in turn; no helper may then run
/// where it is. Counts how often one does.
int meetings() {
  struct Places {
    std::array<int, kMost> cpu{};
    static void work(void* self, int participant) noexcept {
      static_cast<Places*>(self)->cpu[static_cast<std::size_t>(participant)] = sched_getcpu();
    }
  };
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return -1;
  const int helpers = std::min(CPU_COUNT(&allowed) - 1, 3);
  ThreadTeam team(helpers);
  int count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return -1;
    Places places;
    team.run(&Places::work, &places);
    for (int h = 1; h <= helpers; ++h) {
      count += places.cpu[static_cast<std::size_t>(h)] == cpu ? 1 : 0;
    }
  }
  return count;
}

TEST_CASE("a helper leaves the processor on which it finds the caller") {
  int count = -1;
  std::thread([&] { count = meetings(); }).join();
  CHECK(count == 0);
}

/// A call in which the caller goes to the helper's processor and waits for it there. The helper
/// goes on when it finds itself on another one.
struct Chase {
  cpu_set_t allowed{};
  std::atomic<int> helper_cpu{-1};
  Counter caller_came;
  Counter helper_left;
  bool left = false;

  static void work(void* self, int participant) noexcept {
    auto& chase = *static_cast<Chase*>(self);
    participant == 0 ? chase.follow() : chase.leave();
  }
  void follow() noexcept {
    while (helper_cpu.load() < 0) sched_yield();
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(helper_cpu.load(), &one);
    sched_setaffinity(0, sizeof one, &one);
    caller_came.store(1);
    wait_until(&helper_left.value, 1);
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
  void leave() noexcept {
    const int from = sched_getcpu();
    helper_cpu.store(from);
    wait_until(&caller_came.value, 1);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!left && std::chrono::steady_clock::now() < end) left = sched_getcpu() != from;
    helper_left.store(1);
  }
};

TEST_CASE("a caller that waits on a helper's processor sends it to another one") {
  Chase chase;
  REQUIRE(sched_getaffinity(0, sizeof chase.allowed, &chase.allowed) == 0);
  if (CPU_COUNT(&chase.allowed) < 2) return;
  ThreadTeam team(1);
  team.run(&Chase::work, &chase);
  CHECK(chase.left);
}

#if !DEEPCPU_THREAD_SANITIZER  // it refuses threads after a fork of a process that has several
TEST_CASE("a team starts its helpers anew in a forked child, and is not ended by it", "[fork]") {
  for (const bool parked : {false, true}) {
    ThreadTeam team(2, {.spin_us = parked ? 0 : 50});
    Board board;
    team.run(&Board::work, &board);
    if (parked) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const Ending ending = run_forked([&] {
      alarm(20);
      std::thread([] {}).join();  // takes the place of one that is gone
      if (!team.follow_fork()) return 2;
      for (int i = 0; i < 20; ++i) team.run(&Board::work, &board);
      team.~ThreadTeam();
      return board.calls[0] == 21 && board.calls[1] == 21 && board.calls[2] == 21 ? 0 : 3;
    });
    CHECK(ending.signal == 0);
    CHECK(ending.status == 0);
    const Ending unused = run_forked([&] {
      alarm(20);
      team.~ThreadTeam();
      return 0;
    });
    CHECK(unused.signal == 0);
    CHECK(unused.status == 0);
    CHECK(team.follow_fork());
    team.run(&Board::work, &board);
    CHECK(board.calls[2] == 2);
  }
}
#endif

TEST_CASE("waiting ends when the counter has reached the number or passed it") {
  Counter counter;
  counter.store(5);
  wait_until(&counter.value, 5);
  wait_until(&counter.value, 1);
  for (const int delay_us : {0, 20, 200, 3000}) {  // polls, pauses, yields, sleeps
    Counter late;
    int message = 0;
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
      message = 42;
      late.store(2);
    });
    wait_until(&late.value, 1);
    CHECK(message == 42);
    CHECK(late.load() == 2);
    other.join();
  }
}

#if !DEEPCPU_SANITIZER  // they cannot live with a limited address space
/// Bytes of address space of this process.
rlim_t address_space() {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  file >> pages;
  return pages * 4096;
}

TEST_CASE("a team of which only some helpers can be started is not complete and ends", "[fork]") {
  const Ending ending = run_forked([] {
    const rlim_t room = address_space() + (rlim_t{30} << 20);  // three stacks of 8 MiB
    const rlimit limit{room, room};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
    const ThreadTeam team(kMost);
    return team.complete() ? 3 : 0;
  });
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}
#endif

}  // namespace
