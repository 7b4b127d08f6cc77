// SPDX-License-Identifier: Apache-2.0
/// How much of a stream a cache serves, found from rates alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace deepcpu {

/// A stream of so many bytes was read at this rate.
struct StreamRate {
  double bytes = 0.0;
  double rate = 0.0;
};

/// A level must be so much faster than the next one, else the rates say nothing of its capacity:
/// they repeat within a few percent, and the served part is their difference over the gap.
inline constexpr double kLeastGap = 1.35;

/// The part of a stream, 0 to 1, that comes at the rate `inner` when the rest comes at `outer` and
/// all of it at `rate`: time is the sum of both.
double served_part(double rate, double inner, double outer) noexcept;

/// The size at which the served part falls through one half, interpolated. `curve` ascends in
/// bytes; single points on the wrong side are outvoted. Nothing if the gap is too small, or if the
/// first point is not served or the last one is.
std::optional<double> forward_capacity(const std::vector<StreamRate>& curve, double inner,
                                       double outer);

/// Mean of the bytes that are served of streams larger than the level, without the quarter at
/// either end. Nothing if the gap is too small or there are no streams.
std::optional<double> alternating_capacity(const std::vector<StreamRate>& streams, double inner,
                                           double outer);

/// What is read to find the capacities of one level.
struct CapacityPlan {
  std::size_t inner = 0;                 ///< bytes that surely fit
  std::size_t outer = 0;                 ///< bytes that surely come from the next level
  std::vector<std::size_t> forward;      ///< sizes around the edge, ascending
  std::vector<std::size_t> alternating;  ///< sizes beyond it
  std::size_t group = 0;                 ///< bytes between which an alternating walk turns round
};

/// For a private level of `stated` bytes, behind which `outer` bytes come from the next level.
CapacityPlan private_plan(std::uint64_t stated, std::size_t outer);
/// For the last level, whose size one core sees is not known: doubling from `inner` bytes, which
/// fit, to `most`, which come from memory. No alternating sizes.
CapacityPlan coarse_plan(std::size_t inner, std::size_t most);
/// For a level of about `capacity` bytes: around it and, within `most`, beyond it.
CapacityPlan fine_plan(std::size_t inner, std::uint64_t capacity, std::size_t most);

}  // namespace deepcpu
