// SPDX-License-Identifier: Apache-2.0
/// Turns a KernelPlan into machine code.
#pragma once

#include <memory>

#include "deepcpu/result.hpp"
#include "jit/code_blob.hpp"
#include "jit/kernel_plan.hpp"

namespace deepcpu::jit {

/// Emits AVX2+FMA or AVX-512 code for plan.isa and publishes it. The same plan gives the same
/// bytes. Errors: plan.isa is the interpreter; the code would exceed kMaxCodeBytes (kind
/// code_size); no executable memory; no memory at all (kind memory). Thread-safe.
Result<std::shared_ptr<const CodeBlob>> emit(const KernelPlan& plan);

/// A kernel has to share the instruction cache with nothing else to be fast.
inline constexpr std::size_t kMaxCodeBytes = 32 * 1024;

}  // namespace deepcpu::jit
