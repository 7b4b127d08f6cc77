// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// Whether every length is one of a run of `steps` steps. The error names the row.
Status check_within(std::span<const std::int64_t> lengths, std::int64_t steps);

/// The batch rows sorted by length, longest first: then the rows that are still live at a step are
/// always the first ones, and finished rows cost nothing.
class RowOrder {
 public:
  explicit RowOrder(std::int64_t batch)
      : order_(static_cast<std::size_t>(batch)), length_(static_cast<std::size_t>(batch)) {
    std::iota(order_.begin(), order_.end(), 0);
  }

  /// All rows of `steps` steps if `lengths` is empty. Does not allocate, and writes nothing and
  /// gives false if that was so before: other threads still have these numbers in their caches.
  [[nodiscard]] bool set(std::span<const std::int64_t> lengths, std::int64_t steps);

  bool ragged() const noexcept { return ragged_; }
  std::int64_t longest() const noexcept { return length_.empty() ? 0 : length_.front(); }
  /// The caller's row at sorted position `at`.
  std::int64_t row(std::int64_t at) const { return order_[static_cast<std::size_t>(at)]; }
  std::int64_t length(std::int64_t at) const { return length_[static_cast<std::size_t>(at)]; }
  /// Rows longer than `step`.
  std::int32_t live(std::int64_t step) const;
  /// The same for the steps `first`, `first + 1`, ...: one number each in `out`.
  void live(std::int64_t first, std::span<std::int32_t> out) const;

 private:
  std::vector<std::int64_t> order_;
  std::vector<std::int64_t> length_;
  bool ragged_ = false;
};

}  // namespace deepcpu
