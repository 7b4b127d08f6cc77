// SPDX-License-Identifier: Apache-2.0
/// StreamCost: what reading weights over and over costs on one core, by cache level.
#pragma once

#include <cstddef>
#include <vector>

#include "src/machine/machine_model.hpp"

namespace deepcpu {

/// Weights that are walked once per time step.
struct Stream {
  double bytes = 0.0;
  bool alternating = false;
  double group_bytes = 0.0;  ///< kept in forward order when the sweep turns round
  double beside = 0.0;       ///< bytes of other data that pass through the caches meanwhile
  double slower = 1.0;       ///< reading from L2 and beyond takes so many times as long
};

/// One walk through a stream.
struct StreamTime {
  double seconds = 0.0;
  double l1_seconds = 0.0;          ///< of these, for what lies in the L1 cache
  double far_seconds = 0.0;         ///< and for what lies beyond the L2 cache
  double far_part = 0.0;            ///< of the bytes, 0 to 1
  double fetched_seconds = 0.0;     ///< what far_seconds would be if it lay in the L2 cache
  std::vector<double> level_bytes;  ///< by level, nearest first
};

class StreamCost {
 public:
  /// One core of `active` that work at the same time.
  StreamCost(const MachineModel& machine, Isa isa, int active);

  std::size_t levels() const noexcept { return levels_.size(); }
  StreamTime pass(const Stream& stream) const;
  /// Seconds to read `bytes` that were read just before.
  double reread_seconds(double bytes) const;
  /// Whether the L1 cache still has them.
  bool in_l1(double bytes) const { return bytes <= levels_.front().forward; }
  /// Seconds more that the first walk of a block takes, when `all` bytes pass between two blocks.
  double refill_seconds(const Stream& stream, double all) const;
  /// Of one vector instruction when nothing waits; of one vector loaded from the L1 cache.
  double vector_seconds() const noexcept { return vector_seconds_; }
  double load_seconds() const noexcept { return load_seconds_; }
  /// Of a multiply-add of half a vector of AVX-512: as fast as one of AVX2.
  double half_vector_seconds() const noexcept { return half_vector_seconds_; }
  double cycles(double count) const noexcept { return count * cycle_seconds_; }
  /// As IsaRates::overlap.
  double overlap() const noexcept { return overlap_; }
  /// How many times as long reading `gates` of `packed` gates that stand side by side takes, from
  /// L2 and beyond. An odd stride reaches all banks.
  double slower(std::uint32_t gates, std::uint32_t packed) const noexcept;

 private:
  struct Level {
    double seconds_per_byte;
    double forward;
    double alternating;
  };
  /// Bytes of a stream that a level, with all nearer ones, serves in every walk.
  double served(std::size_t level, const Stream& stream) const;

  std::vector<Level> levels_;
  double vector_seconds_;
  double half_vector_seconds_;
  double load_seconds_;
  double cycle_seconds_;
  double overlap_;
  double strided_;
};

}  // namespace deepcpu
