// SPDX-License-Identifier: Apache-2.0
/// exp, sigmoid and tanh in float32: one algorithm each, in plain C++ and as emitted code that
/// gives the same bits. FTZ and DAZ must be set in MXCSR while either runs: results below 2^-126
/// become zero, inputs below 2^-126 count as zero.
///
/// Only operations that AVX2 and AVX-512 round alike are used: fused multiply-add, multiply, add,
/// divide, min, max and shifts of integers. NaN gives NaN, infinities give the limits.
///
/// The bounds are measured over all 2^32 inputs (tests/jit/math_test.cpp, label slow); an ulp is
/// the distance between the floats around the exact result.
#pragma once

namespace deepcpu::jit {

template <class Vmm>
class VecCode;

/// e^x, within 1.0 ulp; infinite where the exact result rounds to infinity.
float exp_f32(float x) noexcept;
/// 1 / (1 + e^-x), within 2.3 ulp down to results of 2^-126.
float sigmoid_f32(float x) noexcept;
/// Hyperbolic tangent, within 2.9 ulp, also near zero; tanh(-0) is -0.
float tanh_f32(float x) noexcept;

/// Temporary registers that each of the emitters below overwrites.
inline constexpr int kMathTemps = 4;

/// Emit dst = f(a). dst may equal a; temps: kMathTemps registers different from each other, from
/// dst and from a. No mask or general register is touched. Vector instructions apart from loads
/// of constants: exp 16, sigmoid 14, tanh 17, of which sigmoid and tanh have one division.
template <class Vmm>
void emit_exp(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps);
template <class Vmm>
void emit_sigmoid(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps);
template <class Vmm>
void emit_tanh(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps);

}  // namespace deepcpu::jit
