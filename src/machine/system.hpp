// SPDX-License-Identifier: Apache-2.0
/// What the operating system says. `root` is put in front of every path (empty on a real system),
/// so that tests can be any system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/machine/machine.hpp"

namespace deepcpu {

/// Number of processors in a list as the kernel writes it, `0-3,8`; 0 if it is not such a list.
std::size_t count_cpu_list(std::string_view list);

/// Completes the caches from /sys/devices/system/cpu/cpu<N>/cache: sizes where CPUID gave none,
/// and who shares a level wherever it is stated (CPUID only bounds that from above).
void read_sysfs_caches(const std::string& root, int cpu, Machine& out);

/// Processors that the calling thread may run on, ascending; {0} if the system does not say.
std::vector<int> affinity();

/// For each of those processors, the first of them that its core runs, by their lists of siblings
/// in /sys; a processor without such a list counts as a core.
std::vector<int> cores_of(const std::string& root, const std::vector<int>& cpus);
/// Of each core the first of those processors that it runs.
std::vector<int> one_per_core(const std::string& root, const std::vector<int>& cpus);

/// Processors' worth of time granted by the control groups of this process, version 1 or 2: the
/// smallest along the way from its group to the root; 0 = no limit.
double cgroup_cpu_quota(const std::string& root);

/// Threads that can run at once on `cpus` processors with a quota of so many processors' worth of
/// time (0 = no limit); at least 1.
int usable_threads(int cpus, double quota) noexcept;

/// Bytes that this process may still get without swapping or being ended: what the system has
/// available, or what the memory limits of the process's control groups leave, if that is less.
/// Pages of files count as available, since the system gives them up. UINT64_MAX if neither is
/// known.
std::uint64_t available_memory(const std::string& root);

}  // namespace deepcpu
