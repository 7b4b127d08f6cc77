// SPDX-License-Identifier: Apache-2.0
#include "src/machine/pin.hpp"

#include <sched.h>

#include <array>
#include <cstddef>

namespace deepcpu {

bool pin_to(pthread_t thread, int cpu) noexcept {
  // One set has 1024 processors; kernels are built for up to 8192.
  std::array<cpu_set_t, 8> sets;
  if (cpu < 0 || cpu >= CPU_SETSIZE * static_cast<int>(sets.size())) return false;
  CPU_ZERO_S(sizeof sets, sets.data());
  CPU_SET_S(static_cast<std::size_t>(cpu), sizeof sets, sets.data());
  return pthread_setaffinity_np(thread, sizeof sets, sets.data()) == 0;
}

}  // namespace deepcpu
