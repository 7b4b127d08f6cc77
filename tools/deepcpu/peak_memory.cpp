// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/peak_memory.hpp"

#include <malloc.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <string>

namespace deepcpu::cli {
namespace {

/// A line of /proc/self/status, as "VmRSS:  1234 kB".
std::optional<std::int64_t> status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::int64_t kib = 0;
    if (word == key && status >> kib) return kib * 1024;
  }
  return std::nullopt;
}

/// The kernel forgets the highest value when a 5 is written here (proc_pid_clear_refs(5)).
bool forget_peak() {
  std::ofstream refs("/proc/self/clear_refs");
  refs << 5 << std::flush;
  return refs.good();
}

}  // namespace

PeakMemory::PeakMemory() noexcept {
  try {
    malloc_trim(0);  // else what was freed before would be used again, uncounted
    if (forget_peak()) before_ = status_bytes("VmRSS:");
  } catch (const std::exception&) {
    before_ = std::nullopt;
  }
}

std::optional<std::int64_t> PeakMemory::bytes() const noexcept {
  try {
    const auto peak = status_bytes("VmHWM:");
    if (!before_ || !peak) return std::nullopt;
    // Both are sums that the kernel brings up to date now and then.
    return std::max<std::int64_t>(0, *peak - *before_);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace deepcpu::cli
