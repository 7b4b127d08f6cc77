// SPDX-License-Identifier: Apache-2.0
/// Which processors the helpers of a process's sessions are bound to.
#pragma once

#include <cstddef>
#include <vector>

namespace deepcpu {

/// The processor of the same core that comes first. noexcept once read_cores() has returned.
int core_of(int cpu) noexcept;
/// Reads from the system which processors share a core, once. Throws std::bad_alloc.
void read_cores();

/// `cpus`, each core's first before all further ones; `cores[i]` is the core of cpus[i].
std::vector<int> cores_first(const std::vector<int>& cpus, const std::vector<int>& cores);

/// Processors for a team of so many threads, as many as there are at most; the first is left to the
/// caller. `teams[i]` says how many teams have cpus[i] already. A team stands at a multiple of its
/// size, so that where neighbours share a cache few teams stand across two: the first place that is
/// free, from where the caller is (`own`, an index) on. Where there is no such place, those that
/// the fewest teams have.
std::vector<int> pick_processors(const std::vector<int>& cpus, const std::vector<int>& teams,
                                 std::size_t threads, std::size_t own);

/// A team's processors, among those that the calling thread may use, for as long as it lives.
/// Thread-safe. In a forked child those of the parent do not count, nor does giving them back.
class Placement {
 public:
  Placement() = default;
  /// Throws std::bad_alloc.
  explicit Placement(std::size_t threads);
  ~Placement();
  Placement(Placement&& other) noexcept;
  Placement& operator=(Placement&& other) noexcept;
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  /// As pick_processors() gives them.
  const std::vector<int>& cpus() const noexcept { return cpus_; }

 private:
  std::vector<int> cpus_;
  unsigned forks_ = 0;
};

/// How many processes lie between the one that first asked and this.
unsigned forks() noexcept;

}  // namespace deepcpu
