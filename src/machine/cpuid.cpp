// SPDX-License-Identifier: Apache-2.0
#include "src/machine/cpuid.hpp"

#include <cpuid.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>

namespace deepcpu {
namespace {

enum class Word : std::uint8_t { eax, ebx, ecx, edx };

std::uint32_t word_of(const CpuidWords& w, Word word) {
  const std::uint32_t words[] = {w.eax, w.ebx, w.ecx, w.edx};
  return words[static_cast<std::size_t>(word)];
}

bool bit(std::uint32_t value, int position) { return ((value >> position) & 1U) != 0; }

/// Register sets that the operating system must save, as bits of XCR0.
constexpr std::uint64_t kYmmState = 0x6;
constexpr std::uint64_t kZmmState = 0xe6;
constexpr std::uint64_t kTileState = 0x60000;

struct Feature {
  std::string_view name;
  std::uint32_t leaf;
  std::uint32_t subleaf;
  Word word;
  int position;
  std::uint64_t state;
};

/// Intel's manual, volume 2, CPUID; the same bits on AMD. Append only: the order is part of the
/// machine key.
constexpr Feature kFeatures[] = {
    {"avx", 1, 0, Word::ecx, 28, kYmmState},        {"avx2", 7, 0, Word::ebx, 5, kYmmState},
    {"fma", 1, 0, Word::ecx, 12, kYmmState},        {"f16c", 1, 0, Word::ecx, 29, kYmmState},
    {"avx_vnni", 7, 1, Word::eax, 4, kYmmState},    {"avx512f", 7, 0, Word::ebx, 16, kZmmState},
    {"avx512bw", 7, 0, Word::ebx, 30, kZmmState},   {"avx512dq", 7, 0, Word::ebx, 17, kZmmState},
    {"avx512vl", 7, 0, Word::ebx, 31, kZmmState},   {"avx512_vnni", 7, 0, Word::ecx, 11, kZmmState},
    {"avx512_bf16", 7, 1, Word::eax, 5, kZmmState}, {"avx512_fp16", 7, 0, Word::edx, 23, kZmmState},
    {"amx_tile", 7, 0, Word::edx, 24, kTileState},  {"amx_int8", 7, 0, Word::edx, 25, kTileState},
    {"amx_bf16", 7, 0, Word::edx, 22, kTileState},
};

/// Answers only leaves that exist; CPUs return other leaves' data for those that do not.
class Leaves {
 public:
  explicit Leaves(const CpuQueries& cpu)
      : cpu_(cpu), basic_(cpu.cpuid(0, 0).eax), extended_(cpu.cpuid(0x80000000, 0).eax) {}

  CpuidWords operator()(std::uint32_t leaf, std::uint32_t subleaf = 0) const {
    const std::uint32_t last = leaf >= 0x80000000 ? extended_ : basic_;
    if (leaf > last) return {};
    if (leaf == 7 && subleaf > cpu_.cpuid(7, 0).eax) return {};
    return cpu_.cpuid(leaf, subleaf);
  }

 private:
  const CpuQueries& cpu_;
  std::uint32_t basic_;
  std::uint32_t extended_;
};

void append_text(std::string& out, std::initializer_list<std::uint32_t> words) {
  for (const std::uint32_t w : words) {
    char text[4];
    std::memcpy(text, &w, sizeof text);
    for (const char c : text) {
      if (c >= ' ' && c <= '~') out.push_back(c);
    }
  }
}

void read_identity(const Leaves& leaves, Machine& out) {
  const CpuidWords zero = leaves(0);
  append_text(out.vendor, {zero.ebx, zero.edx, zero.ecx});
  const CpuidWords one = leaves(1);
  const std::uint32_t family = (one.eax >> 8) & 0xf;
  const std::uint32_t model = (one.eax >> 4) & 0xf;
  out.stepping = one.eax & 0xf;
  out.family = family == 0xf ? family + ((one.eax >> 20) & 0xff) : family;
  out.model = family == 0xf || family == 6 ? model | ((one.eax >> 12) & 0xf0) : model;
  out.hypervisor = bit(one.ecx, 31);

  std::string name;
  for (std::uint32_t leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const CpuidWords w = leaves(leaf);
    append_text(name, {w.eax, w.ebx, w.ecx, w.edx});
  }
  const std::size_t first = name.find_first_not_of(' ');
  const std::size_t last = name.find_last_not_of(' ');
  out.model_name = first == std::string::npos ? out.vendor : name.substr(first, last - first + 1);
}

bool has(const Machine& machine, std::string_view feature) {
  return std::find(machine.features.begin(), machine.features.end(), feature) !=
         machine.features.end();
}

bool has_all(const Machine& machine, std::initializer_list<std::string_view> features) {
  return std::all_of(features.begin(), features.end(),
                     [&](std::string_view f) { return has(machine, f); });
}

void read_features(const CpuQueries& cpu, const Leaves& leaves, Machine& out) {
  const bool osxsave = bit(leaves(1).ecx, 27);
  const std::uint64_t saved = osxsave ? cpu.xcr0() : 0;
  for (const Feature& f : kFeatures) {
    const bool present = bit(word_of(leaves(f.leaf, f.subleaf), f.word), f.position);
    if (present && (saved & f.state) == f.state) out.features.emplace_back(f.name);
  }
  out.isa = Isa::interpreter;
  if (!has_all(out, {"avx", "avx2", "fma"})) return;
  out.isa = Isa::avx2;
  if (has_all(out, {"avx512f", "avx512bw", "avx512dq", "avx512vl"})) out.isa = Isa::avx512;
}

/// One sub-leaf of leaf 4 or 0x8000001D, which share their layout. False at the end of the list.
bool read_cache(const CpuidWords& w, Machine& out) {
  enum : std::uint32_t { kEnd = 0, kData = 1, kUnified = 3 };
  const std::uint32_t type = w.eax & 0x1f;
  const std::uint32_t level = (w.eax >> 5) & 7;
  if (type == kEnd) return false;
  if (type != kData && type != kUnified) return true;
  Cache cache;
  cache.line = (w.ebx & 0xfff) + 1;
  const std::uint64_t partitions = ((w.ebx >> 12) & 0x3ff) + 1;
  const std::uint64_t ways = ((w.ebx >> 22) & 0x3ff) + 1;
  const std::uint64_t sets = std::uint64_t{w.ecx} + 1;
  cache.bytes = sets * ways * partitions * cache.line;
  cache.shared_by = ((w.eax >> 14) & 0xfff) + 1;
  if (level == 1) out.l1d = cache;
  if (level == 2) out.l2 = cache;
  if (level == 3) out.l3 = cache;
  return true;
}

void read_caches(const Leaves& leaves, Machine& out) {
  constexpr std::uint32_t kMost = 16;  // levels, also on a CPU that never ends its list
  for (const std::uint32_t leaf : {4U, 0x8000001dU}) {
    for (std::uint32_t i = 0; i < kMost && read_cache(leaves(leaf, i), out); ++i) {
    }
    if (out.l1d.bytes != 0) return;
  }
}

/// Leaf 0x15 (crystal and ratio), else 0x16 (base clock, which is the counter's rate on the CPUs
/// that have the leaf), else the hypervisor's own leaf of kHz.
double read_tsc_hz(const CpuQueries& cpu, const Leaves& leaves, bool hypervisor) {
  const CpuidWords ratio = leaves(0x15);
  if (ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0) {
    return static_cast<double>(ratio.ecx) * ratio.ebx / ratio.eax;
  }
  const std::uint32_t base_mhz = leaves(0x16).eax & 0xffff;
  if (base_mhz != 0) return base_mhz * 1e6;
  if (!hypervisor || cpu.cpuid(0x40000000, 0).eax < 0x40000010) return 0.0;
  return cpu.cpuid(0x40000010, 0).eax * 1e3;
}

}  // namespace

CpuQueries real_cpu() {
  CpuQueries cpu;
  cpu.cpuid = [](std::uint32_t leaf, std::uint32_t subleaf) {
    CpuidWords w;
    __cpuid_count(leaf, subleaf, w.eax, w.ebx, w.ecx, w.edx);
    return w;
  };
  cpu.xcr0 = [] {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (std::uint64_t{high} << 32) | low;
  };
  return cpu;
}

void read_cpu(const CpuQueries& cpu, Machine& out) {
  const Leaves leaves(cpu);
  read_identity(leaves, out);
  read_features(cpu, leaves, out);
  read_caches(leaves, out);
  out.tsc_hz = read_tsc_hz(cpu, leaves, out.hypervisor);
}

}  // namespace deepcpu
