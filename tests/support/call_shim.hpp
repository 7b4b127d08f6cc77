// SPDX-License-Identifier: Apache-2.0
/// Calls a kernel and checks that it kept the calling convention (System V x86-64 ABI, section
/// "Register Usage"): callee-saved registers, stack pointer, the caller's frame, MXCSR, the x87
/// control word and the direction flag, and that it left no dirty upper vector halves behind.
/// Every vector register that the machine has holds signalling NaN when the kernel starts.
#pragma once

#include <cstdint>
#include <string>

#include "jit/kernel_plan.hpp"

namespace deepcpu::test {

using KernelEntry = void (*)(const jit::KernelArgs*);

/// MXCSR with all exceptions masked, flush-to-zero and denormals-are-zero: what kernels run under.
inline constexpr std::uint32_t kKernelMxcsr = 0x1f80U | 0x8000U | 0x0040U;
/// What a process starts with.
inline constexpr std::uint32_t kDefaultMxcsr = 0x1f80U;

struct CallOptions {
  std::uint32_t mxcsr = kKernelMxcsr;  ///< set before the call; the old value returns afterwards
  bool check_uppers = true;  ///< AVX code must end with vzeroupper (plain SSE code cannot)
};

/// Calls entry(args). Empty if the convention was kept, else what was broken, comma separated.
std::string checked_call(KernelEntry entry, const jit::KernelArgs* args,
                         const CallOptions& options = {});

/// The same for any function object without arguments, e.g. a lambda that calls jit::interpret or
/// Session::run.
template <class Function>
std::string checked_run(Function& function, const CallOptions& options) {
  const auto thunk = [](const jit::KernelArgs* opaque) {
    (*reinterpret_cast<Function*>(reinterpret_cast<std::uintptr_t>(opaque)))();
  };
  return checked_call(+thunk, reinterpret_cast<const jit::KernelArgs*>(&function), options);
}

}  // namespace deepcpu::test
