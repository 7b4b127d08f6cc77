// SPDX-License-Identifier: Apache-2.0
#include "src/machine/system.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <sstream>

namespace deepcpu {
namespace {

/// First line of a file, nothing if it cannot be read.
std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A size as sysfs writes it: `32K`, `1024K`, `32M`.
std::uint64_t parse_size(std::string text) {
  std::uint64_t unit = 1;
  if (!text.empty() && (text.back() == 'K' || text.back() == 'M' || text.back() == 'G')) {
    unit = text.back() == 'K' ? 1ULL << 10 : text.back() == 'M' ? 1ULL << 20 : 1ULL << 30;
    text.pop_back();
  }
  const std::uint64_t count = number<std::uint64_t>(text).value_or(0);
  return count > (1ULL << 50) / unit ? 0 : count * unit;
}

void merge_sysfs_cache(const std::string& folder, Machine& out) {
  const std::string type = first_line(folder + "type").value_or("");
  const std::string level = first_line(folder + "level").value_or("");
  if (type != "Data" && type != "Unified") return;
  Cache* cache = level == "1"   ? &out.l1d
                 : level == "2" ? &out.l2
                 : level == "3" ? &out.l3
                                : nullptr;
  if (cache == nullptr) return;
  if (cache->bytes == 0) {
    cache->bytes = parse_size(first_line(folder + "size").value_or(""));
    const auto line =
        number<std::uint32_t>(first_line(folder + "coherency_line_size").value_or(""));
    if (line && *line != 0) cache->line = *line;
  }
  const std::size_t sharing = count_cpu_list(first_line(folder + "shared_cpu_list").value_or(""));
  if (sharing != 0) cache->shared_by = static_cast<std::uint32_t>(sharing);
}

double smaller_limit(double a, double b) {
  if (a <= 0.0) return b;
  if (b <= 0.0) return a;
  return a < b ? a : b;
}

double quota_over_period(std::string_view quota, std::string_view period) {
  const auto q = number<std::int64_t>(quota);
  const auto p = number<std::int64_t>(period);
  if (!q || !p || *q <= 0 || *p <= 0) return 0.0;  // "max" and -1 are no limit
  return static_cast<double>(*q) / static_cast<double>(*p);
}

/// Version 2: `cpu.max` holds "<quota or max> <period>".
double quota_v2(const std::string& folder) {
  std::istringstream line(first_line(folder + "/cpu.max").value_or(""));
  std::string quota;
  std::string period;
  line >> quota >> period;
  return quota_over_period(quota, period);
}

/// Version 1: one file each.
double quota_v1(const std::string& folder) {
  return quota_over_period(first_line(folder + "/cpu.cfs_quota_us").value_or(""),
                           first_line(folder + "/cpu.cfs_period_us").value_or(""));
}

/// Smallest limit of the groups from `path` up to the root of `mount`. Inside a container the path
/// may be the host's, of which only the root is mounted; missing folders have no limit.
double along_path(const std::string& mount, std::string path, double (*limit)(const std::string&)) {
  double least = 0.0;
  for (;;) {
    least = smaller_limit(least, limit(mount + (path == "/" ? "" : path)));
    const std::size_t slash = path.rfind('/');
    if (path.size() <= 1 || slash == std::string::npos) return least;
    path.resize(slash == 0 ? 1 : slash);
  }
}

bool has_controller(const std::string& controllers, std::string_view wanted) {
  std::istringstream list(controllers);
  std::string name;
  while (std::getline(list, name, ',')) {
    if (name == wanted) return true;
  }
  return false;
}

/// A limit of the control groups of this process: the smallest along the way from its group to the
/// root, version 1 or 2. `v1` and `v2` read a folder's; 0 = no limit.
struct GroupLimit {
  std::string_view controller;
  double (*v1)(const std::string& folder);
  double (*v2)(const std::string& folder);
};

double least_limit(const std::string& root, const GroupLimit& limit) {
  std::ifstream groups(root + "/proc/self/cgroup");
  const std::string base = root + "/sys/fs/cgroup";
  double least = 0.0;
  const auto look = [&](const std::string& mount, const std::string& path, auto read) {
    least = smaller_limit(least, along_path(mount, path, read));
  };
  std::string line;  // "<hierarchy>:<controllers>:<path>"
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      look(base, path, limit.v2);
      look(base + "/unified", path, limit.v2);
    } else if (has_controller(controllers, limit.controller)) {
      look(fmt::format("{}/{}", base, limit.controller), path, limit.v1);
      look(fmt::format("{}/{}", base, controllers), path, limit.v1);
    }
  }
  return least;
}

/// The number after `key` in a file of lines `key number`, or `key: number kB`; 0 if there is none.
double value_of(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string word;
  double value = 0.0;
  while (file >> word) {
    if (word == key && file >> value) return value;
    file.clear();
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0.0;
}

/// What a memory limit leaves: at least 1, since 0 means that there is no limit.
double room(const std::string& limit, const std::string& used, double file_pages) {
  const auto most = number<std::uint64_t>(first_line(limit).value_or(""));
  const auto taken = number<std::uint64_t>(first_line(used).value_or(""));
  if (!most || !taken) return 0.0;  // "max" is no limit
  return std::max(1.0, static_cast<double>(*most) - static_cast<double>(*taken) + file_pages);
}

double memory_v2(const std::string& folder) {
  const std::string stat = folder + "/memory.stat";
  return room(folder + "/memory.max", folder + "/memory.current",
              value_of(stat, "inactive_file") + value_of(stat, "active_file"));
}

double memory_v1(const std::string& folder) {
  const std::string stat = folder + "/memory.stat";
  return room(folder + "/memory.limit_in_bytes", folder + "/memory.usage_in_bytes",
              value_of(stat, "total_inactive_file") + value_of(stat, "total_active_file"));
}

}  // namespace

std::size_t count_cpu_list(std::string_view list) {
  std::size_t count = 0;
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(item.size() < list.size() ? item.size() + 1 : list.size());
    const std::size_t dash = item.find('-');
    const auto first = number<std::uint32_t>(item.substr(0, dash));
    const auto last =
        dash == std::string_view::npos ? first : number<std::uint32_t>(item.substr(dash + 1));
    if (!first || !last || *last < *first) return 0;
    count += *last - *first + 1;
  }
  return count;
}

void read_sysfs_caches(const std::string& root, int cpu, Machine& out) {
  constexpr int kMost = 16;
  const std::string base =
      root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache/index";
  for (int i = 0; i < kMost; ++i) merge_sysfs_cache(base + std::to_string(i) + "/", out);
}

int usable_threads(int cpus, double quota) noexcept {
  const bool limited = quota > 0.0 && quota < static_cast<double>(cpus);
  return std::max(1, limited ? static_cast<int>(quota) : cpus);
}

std::vector<int> affinity() {
  // The kernel refuses a set that is smaller than its own, so the set grows until it fits.
  constexpr int kMost = 1 << 20;
  for (int cpus = 1024; cpus <= kMost; cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(0, bytes, set.get()) != 0) continue;
    std::vector<int> allowed;
    for (int i = 0; i < cpus; ++i) {
      if (CPU_ISSET_S(static_cast<std::size_t>(i), bytes, set.get())) allowed.push_back(i);
    }
    if (!allowed.empty()) return allowed;
  }
  return {0};
}

double cgroup_cpu_quota(const std::string& root) {
  return least_limit(root, {"cpu", quota_v1, quota_v2});
}

std::uint64_t available_memory(const std::string& root) {
  const double system = value_of(root + "/proc/meminfo", "MemAvailable:") * 1024.0;
  const double least = smaller_limit(system, least_limit(root, {"memory", memory_v1, memory_v2}));
  return least > 0.0 && least < 0x1p63 ? static_cast<std::uint64_t>(least) : UINT64_MAX;
}

std::vector<int> cores_of(const std::string& root, const std::vector<int>& cpus) {
  std::map<std::string, int> first;
  std::vector<int> cores;
  for (const int cpu : cpus) {
    const auto siblings = first_line(
        fmt::format("{}/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", root, cpu));
    cores.push_back(siblings ? first.emplace(*siblings, cpu).first->second : cpu);
  }
  return cores;
}

std::vector<int> one_per_core(const std::string& root, const std::vector<int>& cpus) {
  const std::vector<int> cores = cores_of(root, cpus);
  std::vector<int> firsts;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    if (cores[i] == cpus[i]) firsts.push_back(cpus[i]);
  }
  return firsts;
}

}  // namespace deepcpu
