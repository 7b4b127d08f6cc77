// SPDX-License-Identifier: Apache-2.0
/// What CPUID and XGETBV say. They come in as functions, so that tests can be any CPU.
#pragma once

#include <cstdint>
#include <functional>

#include "src/machine/machine.hpp"

namespace deepcpu {

struct CpuidWords {
  std::uint32_t eax = 0;
  std::uint32_t ebx = 0;
  std::uint32_t ecx = 0;
  std::uint32_t edx = 0;
};

/// The two instructions. `xcr0` may be called only if CPUID says OSXSAVE.
struct CpuQueries {
  std::function<CpuidWords(std::uint32_t leaf, std::uint32_t subleaf)> cpuid;
  std::function<std::uint64_t()> xcr0;
};

/// The instructions of this CPU.
CpuQueries real_cpu();

/// Fills identity, features, isa, tsc_hz, hypervisor and, where CPUID describes them, the caches.
/// Caches: leaf 4, or leaf 0x8000001D if that has none.
void read_cpu(const CpuQueries& cpu, Machine& out);

}  // namespace deepcpu
