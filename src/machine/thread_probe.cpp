// SPDX-License-Identifier: Apache-2.0
#include "src/machine/thread_probe.hpp"

#include <fmt/format.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "src/machine/pin.hpp"
#include "src/machine/system.hpp"
#include "src/quantile.hpp"

namespace deepcpu {
namespace {

bool pin_this_thread(int cpu) noexcept { return pin_to(pthread_self(), cpu); }

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

/// Starts a thread per task and runs all tasks at the same time, or none if the system refuses one
/// of the threads.
Status run_together(const std::vector<std::function<void()>>& tasks) {
  enum : int { kWait, kGo, kCancel };
  std::atomic<int> gate{kWait};
  std::vector<std::thread> threads;
  std::string error;
  try {
    for (const std::function<void()>& task : tasks) {
      threads.emplace_back([&gate, &task] {
        while (gate.load() == kWait) sched_yield();
        if (gate.load() == kGo) task();
      });
    }
  } catch (const std::exception& e) {
    error = fmt::format("threads={}: the system refuses so many ({})", tasks.size(), e.what());
  }
  gate.store(error.empty() ? kGo : kCancel);
  for (std::thread& thread : threads) thread.join();
  return error.empty() ? Status() : Status(Error(error));
}

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
  static_assert(sizeof word == sizeof(std::uint32_t));
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, nullptr, nullptr,
          0);
}

}  // namespace

std::vector<int> usable_cpus(const Machine& machine) {
  std::vector<int> cpus = one_per_core("", machine.cpus);
  if (machine.cpu_quota > 0.0) {
    const auto granted = static_cast<std::size_t>(std::ceil(machine.cpu_quota));
    if (cpus.size() > granted) cpus.resize(granted);
  }
  return cpus;
}

Status run_on(int cpu, const std::function<void()>& task) {
  return run_together({[&] {
    pin_this_thread(cpu);  // unpinned it measures as well, only less steadily
    task();
  }});
}

std::size_t place_offset(std::size_t buffer_bytes, std::size_t stream_bytes, int place) noexcept {
  constexpr std::size_t kPage = 4096;
  if (stream_bytes >= buffer_bytes) return 0;
  const std::size_t room = buffer_bytes - stream_bytes;
  const auto step = static_cast<std::size_t>(place % kPlaces);
  return room / (kPlaces - 1) * step / kPage * kPage;
}

Result<CoreGroup> CoreGroup::make(std::vector<int> cpus, const std::vector<std::size_t>& bytes) {
  std::vector<std::optional<Result<ProbeBuffer>>> made(cpus.size());
  std::vector<std::function<void()>> tasks;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    tasks.emplace_back([&, i] {
      pin_this_thread(cpus[i]);
      made[i] = ProbeBuffer::make(bytes[i]);
    });
  }
  if (const Status status = run_together(tasks); !status.ok()) return status.error();
  CoreGroup group;
  for (auto& buffer : made) {
    if (!buffer->ok()) return buffer->error();
    group.buffers_.push_back(std::move(**buffer));
  }
  group.cpus_ = std::move(cpus);
  return group;
}

Result<double> CoreGroup::rate(const Probe& probe, const Work& work) const {
  const auto active = static_cast<std::size_t>(work.active);
  std::vector<double> rates(active, 0.0);
  std::atomic<std::size_t> ready{0};
  std::atomic<double> start{0.0};
  std::vector<std::function<void()>> tasks;
  for (std::size_t i = 0; i < active; ++i) {
    tasks.emplace_back([&, i] {
      pin_this_thread(cpus_[i]);
      // The last one to be ready sets the start, with time for everyone to notice.
      if (ready.fetch_add(1) + 1 == active) start.store(steady_seconds() + 3e-4);
      while (start.load() == 0.0) sched_yield();
      const std::size_t offset = place_offset(buffers_[i].bytes(), work.bytes, work.place);
      rates[i] = probe.rate_between(work.kind, buffers_[i], offset, work.bytes, start.load(),
                                    work.seconds);
    });
  }
  if (const Status status = run_together(tasks); !status.ok()) return status.error();
  return std::accumulate(rates.begin(), rates.end(), 0.0) / static_cast<double>(active);
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

Result<double> one_way_latency(int from, int to) {
  constexpr std::uint32_t kTurns = 2000;
  constexpr std::uint32_t kRounds = 8;
  Counter ping;
  Counter pong;
  std::atomic<bool> pinned{true};
  double best = 0.0;
  const auto answer = [&] {
    if (!pin_this_thread(to)) pinned = false;
    for (std::uint32_t i = 1; i <= kTurns * kRounds; ++i) {
      await(ping, i);
      pong.value.store(i, std::memory_order_release);
    }
  };
  const auto ask = [&] {
    if (!pin_this_thread(from)) pinned = false;
    std::uint32_t turn = 0;
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const double begin = steady_seconds();
      for (std::uint32_t i = 0; i < kTurns; ++i) {
        ping.value.store(++turn, std::memory_order_release);
        await(pong, turn);
      }
      const double trip = (steady_seconds() - begin) / kTurns;
      if (round == 0 || trip < best) best = trip;
    }
  };
  if (const Status status = run_together({answer, ask}); !status.ok()) return status.error();
  if (!pinned) return Error(fmt::format("processors {} and {}: cannot be pinned to", from, to));
  return best / 2.0;
}

Result<double> wake_seconds(int from, int to) {
  constexpr std::uint32_t kWakes = 101;
  std::atomic<std::uint32_t> word{0};
  std::atomic<double> awake{0.0};
  std::vector<double> times;
  const auto parked = [&] {
    pin_this_thread(to);
    for (std::uint32_t i = 0; i < kWakes; ++i) {
      while (word.load() == i) futex(word, FUTEX_WAIT_PRIVATE, i);
      awake.store(steady_seconds());
    }
  };
  const auto waker = [&] {
    pin_this_thread(from);
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
  };
  if (const Status status = run_together({parked, waker}); !status.ok()) return status.error();
  return median(std::move(times));
}

}  // namespace deepcpu
