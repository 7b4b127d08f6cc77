// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/wait.hpp"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

namespace deepcpu {
namespace {

constexpr auto kPause = std::chrono::microseconds(50);
constexpr int kYields = 20;
constexpr long kSleepNs = 100'000;
/// Pauses between two looks at the clock, which costs more than a pause.
constexpr int kPausesPerLook = 32;

bool reached(const volatile std::uint64_t* counter, std::uint64_t at_least) noexcept {
  auto& value = *const_cast<std::uint64_t*>(counter);
  return std::atomic_ref<std::uint64_t>(value).load(std::memory_order_acquire) >= at_least;
}

/// Sleeps unless the counter has changed since it was read.
void sleep_on(const volatile std::uint64_t* counter) noexcept {
  const auto seen = static_cast<std::uint32_t>(*counter);
  const timespec limit{0, kSleepNs};
  // The low half of the counter, little-endian.
  syscall(SYS_futex, reinterpret_cast<const volatile std::uint32_t*>(counter), FUTEX_WAIT_PRIVATE,
          seen, &limit, nullptr, 0);
}

}  // namespace

void wait_until(const volatile std::uint64_t* counter, std::uint64_t at_least) noexcept {
  const auto end = std::chrono::steady_clock::now() + kPause;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (reached(counter, at_least)) return;
      _mm_pause();
    }
  }
  for (int i = 0; i < kYields; ++i) {
    if (reached(counter, at_least)) return;
    sched_yield();
  }
  while (!reached(counter, at_least)) sleep_on(counter);
}

}  // namespace deepcpu
