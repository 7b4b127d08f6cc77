// SPDX-License-Identifier: Apache-2.0
/// How much memory this process takes at most while something runs.
#pragma once

#include <cstdint>
#include <optional>

namespace deepcpu::cli {

/// Counts from its construction on. Linux tells pages that are in memory, so what was reserved and
/// never touched does not count.
class PeakMemory {
 public:
  PeakMemory() noexcept;
  /// The most bytes so far beyond those at construction; nothing where the system does not tell.
  std::optional<std::int64_t> bytes() const noexcept;

 private:
  std::optional<std::int64_t> before_;
};

}  // namespace deepcpu::cli
