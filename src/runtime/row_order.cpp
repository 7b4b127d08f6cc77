// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/row_order.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace deepcpu {

void RowOrder::set(std::span<const std::int64_t> lengths, std::int64_t steps) {
  ragged_ = !lengths.empty();
  std::iota(order_.begin(), order_.end(), 0);
  std::fill(length_.begin(), length_.end(), steps);
  if (!ragged_) return;
  auto of = [&](std::size_t at) { return lengths[static_cast<std::size_t>(order_[at])]; };
  // Insertion sort: stable, in place, and batches are short.
  for (std::size_t i = 1; i < order_.size(); ++i) {
    for (std::size_t j = i; j > 0 && of(j - 1) < of(j); --j) std::swap(order_[j - 1], order_[j]);
  }
  for (std::size_t i = 0; i < order_.size(); ++i) length_[i] = of(i);
}

std::int32_t RowOrder::live(std::int64_t step) const {
  const auto end =
      std::find_if(length_.begin(), length_.end(), [step](std::int64_t n) { return n <= step; });
  return static_cast<std::int32_t>(end - length_.begin());
}

}  // namespace deepcpu
