// SPDX-License-Identifier: Apache-2.0
/// Measurements that take several threads. Helper threads are pinned; the caller's never is.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/probe.hpp"

namespace deepcpu {

/// The processors that threads of this process can really use at the same time: one per core of
/// those of the affinity mask, as many of them as the quota grants (rounded up).
std::vector<int> usable_cpus(const Machine& machine);

/// Runs `task` on a thread of its own that is pinned to `cpu` if that can be done. Error: the
/// system refuses the thread.
Status run_on(int cpu, const std::function<void()>& task);

/// Processors with memory of their own to read from, written first by a thread on that processor.
class CoreGroup {
 public:
  /// bytes[i] for cpus[i]. Errors: not enough memory or threads.
  static Result<CoreGroup> make(std::vector<int> cpus, const std::vector<std::size_t>& bytes);

  int cores() const noexcept { return static_cast<int>(cpus_.size()); }
  const ProbeBuffer& buffer(std::size_t core) const noexcept { return buffers_[core]; }

  /// What each of the first `active` cores does: a stream of `bytes`, of which the `place`-th of
  /// several places in its memory is taken.
  struct Work {
    jit::RateKind kind = jit::RateKind::fma_memory;
    std::size_t bytes = 0;
    int active = 1;
    int place = 0;
    double seconds = 0.01;
  };
  /// Mean rate of those cores (Probe::rate_between) while all of them work. Error: no threads.
  Result<double> rate(const Probe& probe, const Work& work) const;

 private:
  std::vector<int> cpus_;
  std::vector<ProbeBuffer> buffers_;
};

/// Where in a buffer the `place`-th stream of so many bytes begins: a multiple of 4096. Other pages
/// lie differently in a cache that is indexed by physical address.
std::size_t place_offset(std::size_t buffer_bytes, std::size_t stream_bytes, int place) noexcept;
inline constexpr int kPlaces = 8;

/// The pairs of processors whose latency is measured: all of up to 6 processors; of more, each one
/// with its neighbour and with the first.
std::vector<std::pair<int, int>> cpu_pairs(const std::vector<int>& cpus);

/// Seconds in which a value written on one processor is seen on the other: half the best round
/// trip. Error: a thread cannot be pinned there, or cannot be had.
Result<double> one_way_latency(int from, int to);

/// Seconds from the call on one processor that wakes a thread parked on the other until that runs:
/// median of some wake-ups. Error: no threads to be had.
Result<double> wake_seconds(int from, int to);

}  // namespace deepcpu
