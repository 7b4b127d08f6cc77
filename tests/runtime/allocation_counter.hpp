// SPDX-License-Identifier: Apache-2.0
/// Counts heap allocations of the whole process, of all threads.
#pragma once

#include <cstdint>

namespace deepcpu::test {

/// From its construction on, every malloc, calloc, realloc, aligned_alloc and their kin (so also
/// operator new) of any thread is counted. One at a time.
class AllocationCounter {
 public:
  AllocationCounter() noexcept;
  ~AllocationCounter();
  AllocationCounter(const AllocationCounter&) = delete;
  AllocationCounter& operator=(const AllocationCounter&) = delete;

  std::uint64_t count() const noexcept;
};

}  // namespace deepcpu::test
