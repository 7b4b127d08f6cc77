// SPDX-License-Identifier: Apache-2.0
/// The kernels that this process has emitted: kept in memory, never on disk, shared by all models
/// whose plans are equal. All functions are thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepcpu {
#pragma GCC visibility push(default)

/// What the kernel cache has done since the process began; clear_kernels() does not reset it.
struct KernelCounters {
  std::uint64_t hits = 0;       ///< calls that found a finished kernel
  std::uint64_t misses = 0;     ///< calls that compiled or waited for another thread's compile
  std::uint64_t compiles = 0;   ///< compilations that gave a kernel
  std::uint64_t failures = 0;   ///< compilations that gave an error
  std::uint64_t evictions = 0;  ///< kernels dropped because the cache was full
  std::size_t size = 0;         ///< kernels held now
};

KernelCounters kernel_counters();
/// Most kernels held, 1024 by default; the least recently used go first. 0 keeps none.
void set_kernel_capacity(std::size_t kernels);
/// Drops all kernels. Models that use them keep them alive.
void clear_kernels();

#pragma GCC visibility pop
}  // namespace deepcpu
