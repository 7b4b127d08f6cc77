// SPDX-License-Identifier: Apache-2.0
#include "src/machine/machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string_view>

#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"
#include "src/machine/cpuid.hpp"
#include "src/machine/system.hpp"

namespace deepcpu {
namespace {

/// Assumed where neither CPUID nor sysfs describes the caches: what every CPU with AVX2 has.
constexpr std::uint64_t kAssumedL1 = 32 << 10;
constexpr std::uint64_t kAssumedL2 = 256 << 10;

void assume(Cache& cache, const char* name, std::uint64_t bytes, Machine& out) {
  if (cache.bytes != 0) return;
  cache.bytes = bytes;
  out.notes.push_back(fmt::format("{}: neither CPUID nor sysfs gives its size; {} KiB is assumed",
                                  name, bytes >> 10));
}

Machine detect() {
  Machine m;
  read_cpu(real_cpu(), m);
  m.cpus = affinity();
  m.cpu_quota = cgroup_cpu_quota("");
  read_sysfs_caches("", m.cpus.front(), m);
  assume(m.l1d, "L1 data cache", kAssumedL1, m);
  assume(m.l2, "L2 cache", kAssumedL2, m);
  return m;
}

/// The text of DEEPCPU_MAX_ISA, empty if it is not set.
std::string_view cap_text() {
  const char* text = std::getenv("DEEPCPU_MAX_ISA");
  return text == nullptr ? std::string_view() : std::string_view(text);
}

/// The ISA of that name, if there is one.
std::optional<Isa> find_isa(std::string_view text) {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (to_string(isa) == text) return isa;
  }
  return std::nullopt;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes == 0) return "none";
  if (bytes % (1 << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{} KiB", bytes >> 10);
}

std::string cache_text(const Cache& cache) {
  if (cache.bytes == 0) return "none";
  return fmt::format("{}, {}-byte lines, {} by {} logical processor{}", size_text(cache.bytes),
                     cache.line, cache.shared_by == 1 ? "used" : "shared", cache.shared_by,
                     cache.shared_by == 1 ? "" : "s");
}

std::atomic<const Machine*> pretended{nullptr};

/// Letters, digits, point, dash and underscore stay, so that a key is one word without colons.
std::string key_word(std::string_view text) {
  std::string word(text);
  for (char& c : word) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_';
    if (!plain) c = '_';
  }
  return word.empty() ? "unknown" : word;
}

}  // namespace

const Machine& machine() {
  if (const Machine* other = pretended.load(std::memory_order_relaxed)) return *other;
  static const Machine found = detect();
  return found;
}

PretendMachine::PretendMachine(const Machine& machine) { pretended.store(&machine); }
PretendMachine::~PretendMachine() { pretended.store(nullptr); }

Isa host_isa() noexcept {
  const auto best =
      guard_memory("describe this machine", []() -> Result<Isa> { return machine().isa; });
  if (!best) return Isa::interpreter;  // it runs everywhere
  return std::min(*best, find_isa(cap_text()).value_or(*best));
}

std::string isa_note() {
  const std::string_view cap = cap_text();
  if (!cap.empty() && !find_isa(cap)) {
    return fmt::format(
        "DEEPCPU_MAX_ISA={}: must be interpreter, avx2 or avx512; the variable is ignored",
        quote(cap));
  }
  if (machine().isa == Isa::interpreter) {
    return "cpu: it has no AVX2 with FMA (or the operating system does not save their "
           "registers); the interpreter runs instead of emitted code";
  }
  return {};
}

std::string machine_key(const Machine& m) {
  std::string features;
  for (const std::string& feature : m.features) {
    features += (features.empty() ? "" : "+") + key_word(feature);
  }
  return fmt::format("v{}:{}:{}:{}:{}:{}:l1d={}:l2={}", kMachineFormat, key_word(m.vendor),
                     m.family, m.model, m.stepping, features.empty() ? "none" : features,
                     m.l1d.bytes, m.l2.bytes);
}

std::string to_text(const Machine& m) {
  std::string out;
  const auto row = [&](const char* name, const std::string& value) {
    fmt::format_to(std::back_inserter(out), "{:<12}{}\n", name, value);
  };
  row("cpu", fmt::format("{} (family {}, model {}, stepping {}){}", m.model_name, m.family, m.model,
                         m.stepping, m.hypervisor ? ", virtual" : ""));
  row("vendor", m.vendor);
  row("isa", fmt::format("{}", to_string(m.isa)));
  row("features", m.features.empty() ? "none" : fmt::format("{}", fmt::join(m.features, " ")));
  row("L1 data", cache_text(m.l1d));
  row("L2", cache_text(m.l2));
  row("L3", cache_text(m.l3));
  row("processors", fmt::format("{} usable, time for {}", m.cpus.size(),
                                m.cpu_quota > 0.0 ? fmt::format("{:.2f}", m.cpu_quota) : "all"));
  row("TSC", m.tsc_hz > 0.0 ? fmt::format("{:.3f} GHz", m.tsc_hz * 1e-9) : "rate not stated");
  row("key", machine_key(m));
  for (const std::string& note : m.notes) row("note", note);
  return out;
}

}  // namespace deepcpu
