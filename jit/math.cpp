// SPDX-License-Identifier: Apache-2.0
/// Every function stands here twice, as plain C++ and as an emitter, step by step in the same
/// order and with the same fused operations: change both or none.
///
/// Common to all three is e^x = 2^n e^r with n = round(x / ln 2) and r = x - n ln 2. n is rounded
/// by adding 1.5 * 2^23, where floats are integers; its low bits, shifted to the exponent field,
/// are 2^n. Polynomials are minimax fits (Remez exchange in 40 digits), rounded to float; the
/// error stated with each is that of the fit, relative to the function it stands in for.
#include "jit/math.hpp"

#include <xmmintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "jit/vec.hpp"

namespace deepcpu::jit {
namespace {

constexpr float kLog2E = 0x1.715476p+0F;
constexpr float kLn2High = 0x1.62e430p-1F;
constexpr float kLn2Low = -0x1.05c610p-29F;  // kLn2High + kLn2Low = ln 2 within 2^-54
constexpr float kRound = 0x1.8p+23F;
constexpr float kBias = 127.0F;
constexpr std::uint8_t kMantissaBits = 23;

// exp: beyond these bounds the result is zero or infinite in any case. n is held at 127, the
// largest exponent, so that the last multiplication overflows exactly where e^x does.
constexpr float kExpLow = -88.0F;
constexpr float kExpHigh = 89.0F;
constexpr float kExpMaxN = kRound + kBias + 127.0F;
// e^r for -ln2/2 <= r <= ln2, ascending; relative error 1.1e-9.
constexpr std::array<float, 8> kExpPoly = {
    1.00000000067106F,   0.999999987732007F,   0.499999899936489F,   0.166667233966149F,
    0.0416684992725098F, 0.00832542049361436F, 0.00138337386420975F, 0.00023419203631786F};

// sigmoid: above the upper bound the result is 1, below the lower one it is under 2^-126.
constexpr float kSigmoidLow = -89.0F;
constexpr float kSigmoidHigh = 87.5F;
// A(r^2) = r coth(r/2), so that e^r = (A + r) / (A - r), for |r| <= ln2/2: as accurate as a
// polynomial of degree 7, and its division is the one that sigmoid needs anyway. Relative error
// of e^r 3.1e-10. A fixed at 2 for r = 0 makes sigmoid(0) exactly 1/2.
constexpr float kCoth0 = 2.0F;
constexpr float kCoth1 = 0x1.5554e6p-3F;
constexpr float kCoth2 = -0x1.6a45b4p-9F;

// tanh: beyond this bound the result rounds to 1.
constexpr float kTanhHigh = 9.02F;
constexpr float kHalfLn2 = kLn2High / 2.0F;
constexpr float kTanhBias = kRound + kBias + 1.0F;
// (1 - e^(-2h)) / 2 = h + h^2 W(h) for |h| <= ln2/4, ascending; relative error 1.4e-8.
constexpr std::array<float, 5> kExpm1Poly = {
    -0.999999962991558F, 0.666661736977918F,   -0.333337605842767F,
    0.133864753906677F,  -0.0444240486972429F,
};

/// minss and maxss return the second operand if either is NaN: the first is the constant, so NaN
/// stays NaN.
float clamp(float x, float low, float high) noexcept {
  const __m128 capped = _mm_min_ss(_mm_set_ss(high), _mm_set_ss(x));
  return _mm_cvtss_f32(_mm_max_ss(_mm_set_ss(low), capped));
}

/// 2^n from the rounded sum kRound + 127 + n.
float power_of_two(float rounded) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) << kMantissaBits);
}

/// Of degree 4, as two halves side by side: two multiply-adds behind x^2, where Horner's rule has
/// four behind x. The time of a small layer's step is mostly latency.
float halves(const std::array<float, 5>& c, float x, float square) noexcept {
  const float low = std::fma(c[1], x, c[0]);
  const float high = std::fma(c[3], x, c[2]);
  return std::fma(square, std::fma(square, c[4], high), low);
}

template <std::size_t N>
float horner(const std::array<float, N>& coefficients, float x) noexcept {
  float sum = coefficients.back();
  for (std::size_t i = N - 1; i-- > 0;) sum = std::fma(sum, x, coefficients[i]);
  return sum;
}

template <class Vmm>
void emit_clamp(VecCode<Vmm>& v, const Vmm& dst, const Vmm& a, float low, float high,
                const Vmm& temp) {
  v.load_constant(temp, high);
  v.code().vminps(temp, temp, a);
  v.load_constant(dst, low);
  v.code().vmaxps(dst, dst, temp);
}

/// dst = x * scale + offset
template <class Vmm>
void emit_linear(VecCode<Vmm>& v, const Vmm& dst, const Vmm& x, float scale, float offset) {
  v.load_constant(dst, scale);
  v.code().vfmadd213ps(dst, x, v.f32(offset));
}

template <class Vmm, std::size_t N>
void emit_horner(VecCode<Vmm>& v, const Vmm& dst, const Vmm& x,
                 const std::array<float, N>& coefficients) {
  v.load_constant(dst, coefficients.back());
  for (std::size_t i = N - 1; i-- > 0;) v.code().vfmadd213ps(dst, x, v.f32(coefficients[i]));
}

template <class Vmm>
void emit_halves(VecCode<Vmm>& v, const Vmm& dst, const Vmm& x, const Vmm& square,
                 const std::array<float, 5>& coefficients, const Vmm& high) {
  auto& c = v.code();
  v.load_constant(dst, coefficients[1]);
  c.vfmadd213ps(dst, x, v.f32(coefficients[0]));
  v.load_constant(high, coefficients[3]);
  c.vfmadd213ps(high, x, v.f32(coefficients[2]));
  c.vfmadd231ps(high, square, v.f32(coefficients[4]));
  c.vfmadd231ps(dst, square, high);
}

}  // namespace

float exp_f32(float a) noexcept {
  const float x = clamp(a, kExpLow, kExpHigh);
  const float free = std::fma(kLog2E, x, kRound + kBias);
  const float rounded = _mm_cvtss_f32(_mm_min_ss(_mm_set_ss(kExpMaxN), _mm_set_ss(free)));
  const float n = rounded - (kRound + kBias);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  // For n = -127 the factor is zero: results below 2^-126 vanish.
  return horner(kExpPoly, r) * power_of_two(rounded);
}

template <class Vmm>
void emit_exp(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps) {
  auto& c = v.code();
  const Vmm& rounded = temps[0];
  const Vmm& n = temps[1];
  emit_clamp(v, dst, a, kExpLow, kExpHigh, rounded);
  emit_linear(v, rounded, dst, kLog2E, kRound + kBias);
  v.load_constant(n, kExpMaxN);
  c.vminps(rounded, n, rounded);
  c.vsubps(n, rounded, v.f32(kRound + kBias));
  c.vfmadd231ps(dst, n, v.f32(-kLn2High));
  c.vfmadd231ps(dst, n, v.f32(-kLn2Low));
  const Vmm& poly = temps[1];
  emit_horner(v, poly, dst, kExpPoly);
  v.shift_left(rounded, rounded, kMantissaBits);
  c.vmulps(dst, poly, rounded);
}

// With e^-x = 2^n e^-r, n = round(-x / ln 2) and r = x + n ln 2:
// sigmoid = 1 / (1 + 2^n (A - r) / (A + r)) = (A + r) / ((A + r) + 2^n (A - r)).
// A - r is taken from the rounded A + r: the error of that sum then nearly cancels.
float sigmoid_f32(float a) noexcept {
  const float x = clamp(a, kSigmoidLow, kSigmoidHigh);
  const float rounded = std::fma(-kLog2E, x, kRound + kBias);
  const float n = rounded - (kRound + kBias);
  const float r = std::fma(n, kLn2Low, std::fma(n, kLn2High, x));
  const float square = r * r;
  const float plus = std::fma(square, std::fma(square, kCoth2, kCoth1), kCoth0 + r);
  const float minus = std::fma(r, -2.0F, plus);
  return plus / std::fma(power_of_two(rounded), minus, plus);
}

template <class Vmm>
void emit_sigmoid(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps) {
  auto& c = v.code();
  const Vmm& rounded = temps[0];
  const Vmm& n = temps[1];
  emit_clamp(v, dst, a, kSigmoidLow, kSigmoidHigh, rounded);
  emit_linear(v, rounded, dst, -kLog2E, kRound + kBias);
  c.vsubps(n, rounded, v.f32(kRound + kBias));
  c.vfmadd231ps(dst, n, v.f32(kLn2High));
  c.vfmadd231ps(dst, n, v.f32(kLn2Low));
  const Vmm& r = dst;
  const Vmm& square = temps[1];
  c.vmulps(square, r, r);
  v.load_constant(temps[2], kCoth1);
  c.vfmadd231ps(temps[2], square, v.f32(kCoth2));
  const Vmm& plus = temps[3];
  c.vaddps(plus, r, v.f32(kCoth0));
  c.vfmadd231ps(plus, square, temps[2]);
  c.vfmadd132ps(dst, plus, v.f32(-2.0F));
  v.shift_left(rounded, rounded, kMantissaBits);
  c.vfmadd213ps(rounded, dst, plus);
  c.vdivps(dst, plus, rounded);
}

// With m = 1 - e^(-2x): tanh = m / (2 - m), which loses nothing near zero, for either sign of x.
// With n = round(2x / ln 2), h = x - n ln2/2: m = 2^-n (1 - e^(-2h)) + 1 - 2^-n. ln 2 in one float
// is enough as |n| <= 26. 2 - m is computed beside m, not from it: the chain is a step shorter. For
// x = -0 every term that is added to -0 is -0: n times a negative number, h^2 W with W < 0, and
// 2^-n - 1, which is subtracted. So tanh(-0) = -0.
float tanh_f32(float a) noexcept {
  const float x = clamp(a, -kTanhHigh, kTanhHigh);
  const float rounded = std::fma(-2.0F * kLog2E, x, kTanhBias);
  const float n = kTanhBias - rounded;
  const float h = std::fma(n, -kHalfLn2, x);
  const float square = h * h;
  const float half = std::fma(square, halves(kExpm1Poly, h, square), h);
  const float scale = power_of_two(rounded);  // 2^(1 - n)
  const float m = std::fma(scale, half, -std::fma(scale, 0.5F, -1.0F));
  return m / std::fma(scale, -half, std::fma(scale, 0.5F, 1.0F));
}

template <class Vmm>
void emit_tanh(VecCode<Vmm>& v, Vmm dst, Vmm a, const Vmm* temps) {
  auto& c = v.code();
  const Vmm& rounded = temps[0];
  const Vmm& n = temps[1];
  emit_clamp(v, dst, a, -kTanhHigh, kTanhHigh, rounded);
  emit_linear(v, rounded, dst, -2.0F * kLog2E, kTanhBias);
  v.load_constant(n, kTanhBias);
  c.vsubps(n, n, rounded);
  const Vmm& h = dst;
  c.vfmadd231ps(h, n, v.f32(-kHalfLn2));
  const Vmm& half = temps[1];
  c.vmulps(half, h, h);
  emit_halves(v, temps[2], h, half, kExpm1Poly, temps[3]);
  c.vfmadd213ps(half, temps[2], h);
  const Vmm& scale = temps[0];
  v.shift_left(scale, rounded, kMantissaBits);
  const Vmm& m = temps[2];
  v.load_constant(m, -1.0F);
  c.vfmadd231ps(m, scale, v.f32(0.5F));
  c.vfmsub231ps(m, scale, half);
  const Vmm& two_minus_m = temps[3];
  v.load_constant(two_minus_m, 1.0F);
  c.vfmadd231ps(two_minus_m, scale, v.f32(0.5F));
  c.vfnmadd231ps(two_minus_m, scale, half);
  c.vdivps(dst, m, two_minus_m);
}

template void emit_exp(VecCode<Xbyak::Ymm>&, Xbyak::Ymm, Xbyak::Ymm, const Xbyak::Ymm*);
template void emit_exp(VecCode<Xbyak::Zmm>&, Xbyak::Zmm, Xbyak::Zmm, const Xbyak::Zmm*);
template void emit_sigmoid(VecCode<Xbyak::Ymm>&, Xbyak::Ymm, Xbyak::Ymm, const Xbyak::Ymm*);
template void emit_sigmoid(VecCode<Xbyak::Zmm>&, Xbyak::Zmm, Xbyak::Zmm, const Xbyak::Zmm*);
template void emit_tanh(VecCode<Xbyak::Ymm>&, Xbyak::Ymm, Xbyak::Ymm, const Xbyak::Ymm*);
template void emit_tanh(VecCode<Xbyak::Zmm>&, Xbyak::Zmm, Xbyak::Zmm, const Xbyak::Zmm*);

}  // namespace deepcpu::jit
