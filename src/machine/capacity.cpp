// SPDX-License-Identifier: Apache-2.0
#include "src/machine/capacity.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace deepcpu {
namespace {

/// An alternating walk turns round between groups of this part of the level: small against it, and
/// long enough for prefetchers, as panels of weights are.
constexpr std::size_t kGroupsPerLevel = 16;

std::size_t scaled(double bytes, double factor) { return static_cast<std::size_t>(bytes * factor); }

}  // namespace

double served_part(double rate, double inner, double outer) noexcept {
  if (rate <= 0.0 || outer <= 0.0 || inner <= outer) return 0.0;
  return std::clamp((1.0 / outer - 1.0 / rate) / (1.0 / outer - 1.0 / inner), 0.0, 1.0);
}

std::optional<double> forward_capacity(const std::vector<StreamRate>& curve, double inner,
                                       double outer) {
  if (curve.size() < 2 || inner < kLeastGap * outer) return std::nullopt;
  std::vector<double> over;  // served part less one half
  for (const StreamRate& s : curve) over.push_back(served_part(s.rate, inner, outer) - 0.5);
  // The edge after the first k points that most of the curve agrees with: what is above one half
  // before it and below one half after it.
  std::size_t edge = 0;
  double sum = 0.0;
  double best = 0.0;
  for (std::size_t k = 1; k <= over.size(); ++k) {
    sum += over[k - 1];
    if (sum > best) {
      best = sum;
      edge = k;
    }
  }
  if (edge == 0 || edge == over.size()) return std::nullopt;
  const double before = std::max(over[edge - 1], 0.0);
  const double after = std::min(over[edge], 0.0);
  const double way = before > after ? before / (before - after) : 0.5;
  return curve[edge - 1].bytes * std::pow(curve[edge].bytes / curve[edge - 1].bytes, way);
}

std::optional<double> alternating_capacity(const std::vector<StreamRate>& streams, double inner,
                                           double outer) {
  if (streams.empty() || inner < kLeastGap * outer) return std::nullopt;
  std::vector<double> found;
  for (const StreamRate& s : streams) found.push_back(s.bytes * served_part(s.rate, inner, outer));
  std::sort(found.begin(), found.end());
  const auto drop = static_cast<std::ptrdiff_t>(found.size() / 4);  // at either end
  const double sum = std::accumulate(found.begin() + drop, found.end() - drop, 0.0);
  return sum / static_cast<double>(found.size() - 2 * static_cast<std::size_t>(drop));
}

CapacityPlan private_plan(std::uint64_t stated, std::size_t outer) {
  const auto bytes = static_cast<double>(stated);
  CapacityPlan plan{scaled(bytes, 0.5), outer, {}, {}, stated / kGroupsPerLevel};
  for (const double f : {0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 1.75, 2.0, 2.5}) {
    plan.forward.push_back(scaled(bytes, f));
  }
  for (const double f : {1.5, 1.75, 2.0, 3.0}) plan.alternating.push_back(scaled(bytes, f));
  return plan;
}

CapacityPlan coarse_plan(std::size_t inner, std::size_t most) {
  CapacityPlan plan{inner, most, {}, {}, 0};
  for (std::size_t bytes = inner * 2; bytes <= most / 2; bytes *= 2) plan.forward.push_back(bytes);
  return plan;
}

CapacityPlan fine_plan(std::size_t inner, std::uint64_t capacity, std::size_t most) {
  const auto bytes = static_cast<double>(capacity);
  CapacityPlan plan{inner, most, {}, {}, capacity / kGroupsPerLevel};
  for (const double f : {0.4, 0.6, 0.75, 0.9, 1.1, 1.35, 1.7, 2.2}) {
    const std::size_t size = scaled(bytes, f);
    if (size > inner && size < most) plan.forward.push_back(size);
  }
  for (const double f : {1.25, 1.5, 1.75, 2.0}) {
    if (scaled(bytes, f) < most) plan.alternating.push_back(scaled(bytes, f));
  }
  return plan;
}

}  // namespace deepcpu
