// SPDX-License-Identifier: Apache-2.0
#include "jit/inspect/perf_map.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <iterator>
#include <mutex>

namespace deepcpu::jit::inspect {

std::string perf_map_lines(const CodeBlob& blob, bool by_label) {
  const auto start = reinterpret_cast<std::uintptr_t>(blob.memory.data());
  std::string lines;
  auto line = [&](std::size_t begin, std::size_t end, const std::string& label) {
    if (begin >= end) return;
    fmt::format_to(std::back_inserter(lines), "{:x} {:x} {}{}{}\n", start + begin, end - begin,
                   blob.symbol, label.empty() ? "" : "/", label);
  };
  if (!by_label || blob.labels.empty()) {
    line(0, blob.size(), "");
    return lines;
  }
  line(0, blob.labels.front().offset, "");
  for (std::size_t i = 0; i < blob.labels.size(); ++i) {
    const bool last = i + 1 == blob.labels.size();
    line(blob.labels[i].offset, last ? blob.size() : blob.labels[i + 1].offset,
         blob.labels[i].name);
  }
  return lines;
}

bool append_perf_map(const CodeBlob& blob, bool by_label) {
  static std::mutex mutex;
  static pid_t started = 0;  // the process whose file has been begun; a fork has its own

  const std::string lines = perf_map_lines(blob, by_label);
  const std::lock_guard lock(mutex);
  const pid_t pid = getpid();
  const int truncate = started == pid ? 0 : O_TRUNC;
  const int file = open(fmt::format("/tmp/perf-{}.map", pid).c_str(),
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | truncate, 0644);
  if (file < 0) return false;
  started = pid;
  const ssize_t written = write(file, lines.data(), lines.size());
  close(file);
  return written == static_cast<ssize_t>(lines.size());
}

}  // namespace deepcpu::jit::inspect
