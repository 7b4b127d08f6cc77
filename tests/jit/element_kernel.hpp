// SPDX-License-Identifier: Apache-2.0
/// Emitted code that applies one element-wise operation to arrays, for tests.
#pragma once

#include <xmmintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "jit/code_memory.hpp"
#include "jit/element_ops.hpp"
#include "jit/vec.hpp"

namespace deepcpu::jit::testing {

/// Sets FTZ and DAZ for its lifetime, as kernels run.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

/// Which register the result is written to: one of its own, or that of an operand.
enum class Target { own, a, b };

/// What this CPU can run, best last.
inline std::vector<Isa> runnable_isas() {
  std::vector<Isa> isas;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isas.push_back(Isa::avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    isas.push_back(Isa::avx512);
  }
  return isas;
}

/// Bytes of a function void(const float* a, const float* b, float* out, size_t count) that applies
/// `op` to `count` elements, a positive multiple of 16.
template <class Vmm>
std::vector<std::byte> emit_element_kernel(Op op, float p, float q, Target target) {
  using namespace Xbyak::util;
  Xbyak::CodeGenerator code(16384);
  ConstantPool pool(VecCode<Vmm>::kIsa);
  VecCode<Vmm> v(code, pool);
  // Some of the registers of AVX-512 that only EVEX encodings reach.
  constexpr int kFirst = VecCode<Vmm>::kAvx512 ? 13 : 7;
  const Vmm a(kFirst);
  const Vmm b(kFirst + 1);
  const Vmm own(kFirst + 2);
  const Vmm dst = target == Target::a ? a : target == Target::b ? b : own;
  const std::array<Vmm, kMaxElementTemps> temps = {Vmm(kFirst + 3), Vmm(kFirst + 4),
                                                   Vmm(kFirst + 5), Vmm(kFirst + 6)};
  Xbyak::Label loop;
  code.xor_(eax, eax);
  code.L(loop);
  v.load(a, ptr[rdi + rax * 4]);
  v.load(b, ptr[rsi + rax * 4]);
  emit_element(v, op, dst, a, b, p, q, temps.data());
  v.store(ptr[rdx + rax * 4], dst);
  code.add(rax, VecCode<Vmm>::kLanes);
  code.cmp(rax, rcx);
  code.jb(loop);
  code.vzeroupper();
  code.ret();
  pool.place(code);
  code.ready();
  const auto* first = reinterpret_cast<const std::byte*>(code.getCode());
  return {first, first + code.getSize()};
}

class ElementKernel {
 public:
  ElementKernel(Isa isa, Op op, float p, float q, Target target)
      : memory_(CodeMemory::make(isa == Isa::avx512
                                     ? emit_element_kernel<Xbyak::Zmm>(op, p, q, target)
                                     : emit_element_kernel<Xbyak::Ymm>(op, p, q, target))
                    .value()) {}

  void operator()(std::span<const float> a, std::span<const float> b, std::span<float> out) const {
    using Function = void (*)(const float*, const float*, float*, std::size_t);
    reinterpret_cast<Function>(reinterpret_cast<std::uintptr_t>(memory_.data()))(
        a.data(), b.data(), out.data(), out.size());
  }

 private:
  CodeMemory memory_;
};

/// Distance of `got` from the exact result in units of the float spacing there. What float64 rounds
/// to infinity must be infinite, what is below 2^-126 must be zero, NaN must be NaN; anything else
/// is an infinite error.
inline double ulp_error(float got, double exact) {
  constexpr double kWrong = HUGE_VAL;
  if (std::isnan(exact)) return std::isnan(got) ? 0.0 : kWrong;
  const auto rounded = static_cast<float>(exact);
  if (std::isinf(rounded)) return got == rounded ? 0.0 : kWrong;
  if (std::fabs(exact) < 0x1p-126) return got == 0.0F ? 0.0 : kWrong;
  if (got == 0.0F || !std::isfinite(got)) return kWrong;
  // The exponent bits alone are the power of two at or below |exact|.
  const std::uint64_t power = std::bit_cast<std::uint64_t>(exact) & 0x7FF0000000000000U;
  return std::fabs(got - exact) / (std::bit_cast<double>(power) * 0x1p-23);
}

}  // namespace deepcpu::jit::testing
