// SPDX-License-Identifier: Apache-2.0
/// Makes allocations of the calling thread fail.
#pragma once

#include <cstdint>

namespace deepcpu::test {

/// While it lives, the allocation number `nth` (counted from 0) of the calling thread fails, and
/// with `persist` all later ones too: operator new throws; without a sanitizer aligned_alloc gives
/// null as well. One at a time in a thread; it must end in the thread that made it.
class AllocationFailure {
 public:
  explicit AllocationFailure(std::int64_t nth, bool persist = false) noexcept;
  ~AllocationFailure();
  AllocationFailure(const AllocationFailure&) = delete;
  AllocationFailure& operator=(const AllocationFailure&) = delete;

  /// Whether an allocation has failed.
  bool hit() const noexcept;
};

/// Whether the allocation that is about to be made is to fail. For the replaced functions.
bool allocation_fails() noexcept;

}  // namespace deepcpu::test
