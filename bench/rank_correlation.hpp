// SPDX-License-Identifier: Apache-2.0
/// Spearman's rank correlation of predicted and measured times.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace deepcpu::bench {

/// Ranks from 1; values closer than their noise to the one before share the mean of their ranks.
inline std::vector<double> ranks(const std::vector<double>& values, double noise) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i + 1;
    while (end < order.size() && values[order[end]] <= values[order[i]] * (1.0 + noise)) ++end;
    const double mean = (static_cast<double>(i + 1) + static_cast<double>(end)) / 2.0;
    for (std::size_t j = i; j < end; ++j) out[order[j]] = mean;
    i = end;
  }
  return out;
}

/// Pearson's. NaN if all of b is the same: then nothing is known.
inline double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  const double ma = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mb = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) * (a[i] - ma);
    bb += (b[i] - mb) * (b[i] - mb);
  }
  if (bb == 0) return NAN;
  return aa > 0 ? ab / std::sqrt(aa * bb) : 0.0;
}

/// Times closer than `noise` (relative) count as equal. NaN if all that was measured is a tie.
inline double rank_correlation(const std::vector<double>& predicted,
                               const std::vector<double>& measured, double noise) {
  return correlation(ranks(predicted, noise), ranks(measured, noise));
}

}  // namespace deepcpu::bench
