// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/row_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace deepcpu {

Status check_within(std::span<const std::int64_t> lengths, std::int64_t steps) {
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] >= 0 && lengths[i] <= steps) continue;
    return Error(fmt::format("lengths[{}]={}: must be between 0 and T={}", i, lengths[i], steps));
  }
  return {};
}

bool RowOrder::set(std::span<const std::int64_t> lengths, std::int64_t steps) {
  if (lengths.empty() && !ragged_ && longest() == steps) return false;
  ragged_ = !lengths.empty();
  std::iota(order_.begin(), order_.end(), 0);
  std::fill(length_.begin(), length_.end(), steps);
  if (!ragged_) return true;
  const auto of = [&](std::int64_t row) { return lengths[static_cast<std::size_t>(row)]; };
  // std::stable_sort would allocate; no two keys are equal here, so any sort is stable.
  std::sort(order_.begin(), order_.end(),
            [&](std::int64_t a, std::int64_t b) { return of(a) != of(b) ? of(a) > of(b) : a < b; });
  std::transform(order_.begin(), order_.end(), length_.begin(), of);
  return true;
}

std::int32_t RowOrder::live(std::int64_t step) const {
  const auto end = std::partition_point(length_.begin(), length_.end(),
                                        [step](std::int64_t n) { return n > step; });
  return static_cast<std::int32_t>(end - length_.begin());
}

void RowOrder::live(std::int64_t first, std::span<std::int32_t> out) const {
  std::int32_t rows = live(first);
  for (std::int32_t& of_step : out) {
    while (rows > 0 && length(rows - 1) <= first) --rows;
    of_step = rows;
    ++first;
  }
}

}  // namespace deepcpu
