// SPDX-License-Identifier: Apache-2.0
/// Quantiles of measured times and rates.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace deepcpu {

/// To decide by: always one of the values. In ascending order it is the one nearest to `share`,
/// between 0 and 1, of the way from the first to the last, of two equally near the greater one. 0
/// if there are no values.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0.0;
  const auto at =
      static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}
inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

/// To print: by nearest rank, the least value that at least `share` of the values do not exceed.
/// `sorted` is in ascending order and not empty.
inline double nearest_rank(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}
/// Of an even number the mean of the two in the middle.
inline double median_of_sorted(const std::vector<double>& sorted) {
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

}  // namespace deepcpu
