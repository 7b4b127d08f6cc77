// SPDX-License-Identifier: Apache-2.0
#include "jit/code_blob.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "jit/inspect/gdb_jit.hpp"
#include "jit/inspect/perf_map.hpp"

namespace deepcpu::jit {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace

std::string kernel_symbol(const KernelPlan& plan) {
  return fmt::format("deepcpu.{}.{}.{:016x}", plan.name, to_string(plan.isa), hash(plan));
}

std::shared_ptr<const CodeBlob> publish(CodeBlob blob) {
  std::stable_sort(blob.labels.begin(), blob.labels.end(),
                   [](const CodeLabel& a, const CodeLabel& b) { return a.offset < b.offset; });
  std::stable_sort(blob.notes.begin(), blob.notes.end(),
                   [](const CodeNote& a, const CodeNote& b) { return a.begin < b.begin; });

  const std::string_view perf = environment("DEEPCPU_PERF");
  if (perf == "map" || perf == "labels") inspect::append_perf_map(blob, perf == "labels");
  if (environment("DEEPCPU_GDB") == "1") blob.registration = inspect::register_with_gdb(blob);
  return std::make_shared<const CodeBlob>(std::move(blob));
}

}  // namespace deepcpu::jit
