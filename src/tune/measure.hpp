// SPDX-License-Identifier: Apache-2.0
/// The only timer: how long a callable takes.
#pragma once

#include <cstdint>
#include <functional>

namespace deepcpu {

struct MeasureOptions {
  /// The callable runs this long, and once at least, before anything counts: caches and clocks
  /// settle.
  double warm_up_seconds = 0.02;
  /// Shortest sample. Calls per sample are doubled until a sample lasts this long, so that reading
  /// the clock does not show.
  double floor_seconds = 5e-5;
  /// Samples are taken for about this long, but no fewer and no more than the two numbers say.
  double seconds = 0.5;
  int least_samples = 11;
  int most_samples = 2000;
  /// If there is one, called before every call of the callable, outside of its time; a sample is
  /// one call then.
  std::function<void()> pause{};
};

/// Microseconds of one call. A sample is the mean of `calls` calls in a row.
struct Timing {
  double median_us = 0.0;
  double p99_us = 0.0;  ///< nearest rank; of fewer than 100 samples the largest
  double min_us = 0.0;
  double spread = 0.0;  ///< distance of the quartiles over the median; 0 if the median is 0
  std::uint64_t calls = 0;
  int samples = 0;
};

/// A spread from which on something else disturbed the clock.
inline constexpr double kDisturbed = 0.2;

/// Seconds since some fixed moment.
using Clock = double (*)() noexcept;
/// The clock that every measurement uses unless a test brings its own.
double wall_seconds() noexcept;

/// Times `run` on the calling thread. With a very slow `run`, least_samples + 2 calls are made.
Timing measure(const std::function<void()>& run, const MeasureOptions& options = {},
               Clock now = wall_seconds);

/// Microseconds of a single call, as it comes: for what happens only once.
double time_once(const std::function<void()>& run, Clock now = wall_seconds);

}  // namespace deepcpu
