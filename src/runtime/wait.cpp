// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/wait.hpp"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#include "jit/kernel_plan.hpp"

namespace deepcpu {
namespace {

/// Before it sleeps. Several times what a sleeper takes to notice (a slice, the timer's slack, the
/// way back to a processor): participants that slept sooner could keep each other asleep, a slice
/// in every step, once a disturbance has sent one of them to sleep. Experiment: DESIGN, 26.
constexpr auto kAwake = std::chrono::microseconds(1000);
/// Before it yields.
constexpr auto kPause = std::chrono::microseconds(4);
/// A yield that took longer has given the processor to a thread that does not give it back by
/// itself, for a turn of the scheduler. No other follows until this many times as long has passed.
constexpr auto kLongYield = std::chrono::milliseconds(1);
constexpr int kYieldRest = 20;
constexpr long kSleepNs = 100'000;
/// Pauses between two looks at the clock, which costs more than a pause.
constexpr int kPausesPerLook = 32;

thread_local WhileWaiting::Call call_meanwhile = nullptr;
thread_local void* call_context = nullptr;

/// A 64-bit counter that has to reach a value.
struct CounterAtLeast {
  const volatile std::uint64_t* counter;
  std::uint64_t at_least;

  std::uint64_t load() const noexcept {
    auto& value = *const_cast<std::uint64_t*>(counter);
    return std::atomic_ref<std::uint64_t>(value).load(std::memory_order_acquire);
  }
  bool reached() const noexcept { return load() >= at_least; }
  /// The low half of the counter, little-endian.
  const volatile void* word() const noexcept { return counter; }
  std::uint32_t word_now() const noexcept { return static_cast<std::uint32_t>(load()); }
};

/// A number that somebody has to write.
struct NumberWritten {
  const volatile std::uint32_t* number;

  bool reached() const noexcept { return word_now() != jit::kUnwritten; }
  const volatile void* word() const noexcept { return number; }
  std::uint32_t word_now() const noexcept {
    auto& value = *const_cast<std::uint32_t*>(number);
    return std::atomic_ref<std::uint32_t>(value).load(std::memory_order_acquire);
  }
};

/// Sleeps unless the awaited word has changed by now. Reads the word before it looks at it once
/// more: a change between the two makes the system call return at once.
template <class Awaited>
void sleep_on(const Awaited& awaited) noexcept {
  const std::uint32_t seen = awaited.word_now();
  if (awaited.reached()) return;
  const timespec limit{0, kSleepNs};
  syscall(SYS_futex, awaited.word(), FUTEX_WAIT_PRIVATE, seen, &limit, nullptr, 0);
}

/// True if it is reached within kPause.
template <class Awaited>
bool pause_for(const Awaited& awaited) noexcept {
  const auto end = std::chrono::steady_clock::now() + kPause;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (awaited.reached()) return true;
      _mm_pause();
    }
  }
  return false;
}

template <class Awaited>
void wait_for(const Awaited& awaited) noexcept {
  if (awaited.reached()) return;
  const auto end = std::chrono::steady_clock::now() + kAwake;
  do {
    if (pause_for(awaited)) return;
    if (call_meanwhile != nullptr) call_meanwhile(call_context);
    give_way();
  } while (std::chrono::steady_clock::now() < end);
  while (!awaited.reached()) sleep_on(awaited);
}

}  // namespace

void give_way() noexcept {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point rest_until;
  const auto start = Clock::now();
  if (start < rest_until) return;
  sched_yield();
  const auto end = Clock::now();
  if (end - start > kLongYield) rest_until = end + kYieldRest * (end - start);
}

WhileWaiting::WhileWaiting(Call call, void* context) noexcept
    : outer_call_(call_meanwhile), outer_context_(call_context) {
  call_meanwhile = call;
  call_context = context;
}

WhileWaiting::~WhileWaiting() {
  call_meanwhile = outer_call_;
  call_context = outer_context_;
}

void wait_until(const volatile std::uint64_t* counter, std::uint64_t at_least) noexcept {
  wait_for(CounterAtLeast{counter, at_least});
}

void wait_until_written(const volatile std::uint32_t* numbers, std::uint64_t count) noexcept {
  for (std::uint64_t i = 0; i < count; ++i) wait_for(NumberWritten{numbers + i});
}

}  // namespace deepcpu
