// SPDX-License-Identifier: Apache-2.0
/// Measurements that take several threads. Helper threads are pinned; the caller's never is.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/probe.hpp"

namespace deepcpu {

/// The processors that threads of this process can really use at the same time: those of the
/// affinity mask, as many of them as the quota grants (rounded up).
std::vector<int> usable_cpus(const Machine& machine);

/// Sum of the rates, bytes per second, at which one thread on each processor reads its own stream
/// of `bytes` for `seconds`. Errors: not enough memory or
/// threads.
Result<double> read_rate_together(const Probe& probe, const std::vector<int>& cpus,
                                  std::size_t bytes, double seconds);

/// The pairs of processors whose latency is measured: all of up to 6 processors; of more, each one
/// with its neighbour and with the first.
std::vector<std::pair<int, int>> cpu_pairs(const std::vector<int>& cpus);

/// Seconds in which a value written on one processor is seen on the other: half the best round
/// trip. Error: a thread cannot be pinned there, or cannot be had.
Result<double> one_way_latency(int from, int to);

/// Seconds from the call that wakes a parked thread until it runs: median of some wake-ups.
/// Error: no threads to be had.
Result<double> wake_seconds();

}  // namespace deepcpu
