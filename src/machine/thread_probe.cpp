// SPDX-License-Identifier: Apache-2.0
#include "src/machine/thread_probe.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace deepcpu {
namespace {

bool pin_this_thread(int cpu) {
  const int cpus = cpu + 1;
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus),
                                                             [](cpu_set_t* s) { CPU_FREE(s); });
  if (set == nullptr) return false;
  const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
  CPU_ZERO_S(bytes, set.get());
  CPU_SET_S(static_cast<std::size_t>(cpu), bytes, set.get());
  return pthread_setaffinity_np(pthread_self(), bytes, set.get()) == 0;
}

/// A counter alone in its pair of cache lines (prefetchers fetch pairs).
struct alignas(128) Counter {
  std::atomic<std::uint32_t> value{0};
};

/// Waits until the counter has reached a value. Gives the processor away now and then, so that two
/// threads on one processor still come to an end.
void await(const Counter& counter, std::uint32_t at_least) {
  for (std::uint32_t polls = 1; counter.value.load(std::memory_order_acquire) < at_least; ++polls) {
    if (polls % (1U << 14) == 0) sched_yield();
  }
}

/// One side of the ping-pong: answers, or (`first`) begins.
void play(const Counter& mine, const Counter& theirs, std::uint32_t from, std::uint32_t turns,
          bool first) {
  auto& own = const_cast<Counter&>(mine);
  for (std::uint32_t i = from + 1; i <= from + turns; ++i) {
    if (first) own.value.store(i, std::memory_order_release);
    await(theirs, i);
    if (!first) own.value.store(i, std::memory_order_release);
  }
}

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
  static_assert(sizeof word == sizeof(std::uint32_t));
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, nullptr, nullptr,
          0);
}

}  // namespace

std::vector<int> usable_cpus(const Machine& machine) {
  std::vector<int> cpus = machine.cpus;
  if (machine.cpu_quota > 0.0) {
    const auto granted = static_cast<std::size_t>(std::ceil(machine.cpu_quota));
    if (cpus.size() > granted) cpus.resize(granted);
  }
  return cpus;
}

Result<double> read_rate_together(const Probe& probe, const std::vector<int>& cpus,
                                  std::size_t bytes, double seconds) {
  std::vector<double> rates(cpus.size(), 0.0);
  std::vector<std::string> errors(cpus.size());
  std::vector<std::thread> threads;
  std::atomic<std::size_t> ready{0};
  std::atomic<double> start{0.0};
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    threads.emplace_back([&, i] {
      pin_this_thread(cpus[i]);  // unpinned it still reads; only less steadily
      Result<ProbeBuffer> buffer = ProbeBuffer::make(bytes);  // touched here: near this processor
      if (!buffer.ok()) errors[i] = buffer.error().message();
      ready.fetch_add(1);
      while (start.load() == 0.0) sched_yield();
      if (buffer.ok()) rates[i] = probe.read_rate_between(*buffer, bytes, start.load(), seconds);
    });
  }
  while (ready.load() < cpus.size()) sched_yield();
  // Time enough for every thread to walk its stream once beforehand.
  start.store(steady_seconds() + seconds * 0.5);
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) {
    if (!error.empty()) return Error(error);
  }
  double sum = 0.0;
  for (const double rate : rates) sum += rate;
  return sum;
}

std::vector<std::pair<int, int>> cpu_pairs(const std::vector<int>& cpus) {
  constexpr std::size_t kAll = 6;
  std::vector<std::pair<int, int>> pairs;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    for (std::size_t j = i + 1; j < cpus.size(); ++j) {
      if (cpus.size() <= kAll || i == 0 || j == i + 1) pairs.emplace_back(cpus[i], cpus[j]);
    }
  }
  return pairs;
}

double one_way_latency(int from, int to) {
  constexpr std::uint32_t kTurns = 2000;
  constexpr std::uint32_t kRounds = 8;
  const auto ping = std::make_unique<Counter>();
  const auto pong = std::make_unique<Counter>();
  std::atomic<bool> pinned_to{false};
  std::atomic<bool> pinned_from{false};
  double best = 0.0;
  std::thread answers([&] {
    pinned_to = pin_this_thread(to);
    play(*pong, *ping, 0, kTurns * kRounds, false);
  });
  std::thread asks([&] {
    pinned_from = pin_this_thread(from);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const double begin = steady_seconds();
      play(*ping, *pong, round * kTurns, kTurns, true);
      const double trip = (steady_seconds() - begin) / kTurns;
      if (round == 0 || trip < best) best = trip;
    }
  });
  asks.join();
  answers.join();
  return pinned_to && pinned_from ? best / 2.0 : 0.0;
}

double wake_seconds() {
  constexpr std::uint32_t kWakes = 30;
  std::atomic<std::uint32_t> word{0};
  std::atomic<double> awake{0.0};
  std::thread parked([&] {
    for (std::uint32_t i = 0; i < kWakes; ++i) {
      while (word.load() == i) futex(word, FUTEX_WAIT_PRIVATE, i);
      awake.store(steady_seconds());
    }
  });
  std::vector<double> times;
  for (std::uint32_t i = 0; i < kWakes; ++i) {
    // Long enough for the thread to be parked and its processor to idle.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    awake.store(0.0);
    const double begin = steady_seconds();
    word.store(i + 1);
    futex(word, FUTEX_WAKE_PRIVATE, 1);
    while (awake.load() == 0.0) sched_yield();
    times.push_back(awake.load() - begin);
  }
  parked.join();
  std::nth_element(times.begin(), times.begin() + kWakes / 2, times.end());
  return times[kWakes / 2];
}

}  // namespace deepcpu
