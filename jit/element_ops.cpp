// SPDX-License-Identifier: Apache-2.0
#include "jit/element_ops.hpp"

#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "jit/math.hpp"
#include "jit/vec.hpp"

namespace deepcpu::jit {
namespace {

constexpr std::uint32_t kSignBit = 0x80000000U;
constexpr std::uint32_t kAllButSign = 0x7FFFFFFFU;

// ---- one lane in plain C++ ----------------------------------------------------------------------

/// The instructions themselves: a C++ comparison may be compiled to something that treats
/// denormals or signed zeros differently. Of a NaN and a number they return the second operand.
float minss(float a, float b) noexcept {
  return _mm_cvtss_f32(_mm_min_ss(_mm_set_ss(a), _mm_set_ss(b)));
}
float maxss(float a, float b) noexcept {
  return _mm_cvtss_f32(_mm_max_ss(_mm_set_ss(a), _mm_set_ss(b)));
}
float with_bits(float a, std::uint32_t keep, std::uint32_t flip) noexcept {
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(a) & keep) ^ flip);
}

using Scalar = float (*)(float a, float b, float p, float q);

float eval_add(float a, float b, float, float) { return a + b; }
float eval_sub(float a, float b, float, float) { return a - b; }
float eval_mul(float a, float b, float, float) { return a * b; }
float eval_neg(float a, float, float, float) { return with_bits(a, ~0U, kSignBit); }
float eval_min(float a, float b, float, float) { return std::isnan(a) ? a : minss(a, b); }
float eval_max(float a, float b, float, float) { return std::isnan(a) ? a : maxss(a, b); }
float eval_one_minus(float a, float, float, float) { return 1.0F - a; }
float eval_sigmoid(float a, float, float, float) { return sigmoid_f32(a); }
float eval_tanh(float a, float, float, float) { return tanh_f32(a); }
float eval_relu(float a, float, float, float) { return maxss(0.0F, a); }
float eval_leaky_relu(float a, float, float p, float) { return a > 0.0F ? a : a * p; }
float eval_hard_sigmoid(float a, float, float p, float q) {
  return minss(1.0F, maxss(0.0F, std::fma(a, p, q)));
}
float eval_softsign(float a, float, float, float) {
  return a / (with_bits(a, kAllButSign, 0) + 1.0F);
}
float eval_exp(float a, float, float, float) { return exp_f32(a); }
float eval_clip(float a, float, float p, float q) { return minss(q, maxss(p, a)); }

// ---- emitters -----------------------------------------------------------------------------------

template <class Vmm>
struct Operands {
  Vmm dst, a, b;
  float p, q;
  const Vmm* temps;
};

/// One function per operation, in a template so that the table holds them for both kinds of
/// register. dst, which may be a or b, is written only after the last use of a and b.
template <class Vmm>
struct Emit {
  using Code = VecCode<Vmm>;
  using Args = const Operands<Vmm>&;

  static void add(Code& v, Args o) { v.code().vaddps(o.dst, o.a, o.b); }
  static void sub(Code& v, Args o) { v.code().vsubps(o.dst, o.a, o.b); }
  static void mul(Code& v, Args o) { v.code().vmulps(o.dst, o.a, o.b); }
  static void neg(Code& v, Args o) { v.bit_xor(o.dst, o.a, v.u32(kSignBit)); }
  static void min(Code& v, Args o) { v.min(o.dst, o.a, o.b, o.temps[0]); }
  static void max(Code& v, Args o) { v.max(o.dst, o.a, o.b, o.temps[0]); }
  static void one_minus(Code& v, Args o) {
    v.load_constant(o.temps[0], 1.0F);
    v.code().vsubps(o.dst, o.temps[0], o.a);
  }
  static void sigmoid(Code& v, Args o) { emit_sigmoid(v, o.dst, o.a, o.temps); }
  static void tanh(Code& v, Args o) { emit_tanh(v, o.dst, o.a, o.temps); }
  static void relu(Code& v, Args o) {
    v.zero(o.temps[0]);
    v.code().vmaxps(o.dst, o.temps[0], o.a);
  }
  static void leaky_relu(Code& v, Args o) {
    const Vmm& scaled = o.temps[0];
    const Vmm& temp = o.temps[1];
    v.code().vmulps(scaled, o.a, v.f32(o.p));
    v.select(o.dst, Compare::greater, o.a, v.f32(0.0F), o.a, scaled, temp);
  }
  static void hard_sigmoid(Code& v, Args o) {
    const Vmm& sum = o.temps[0];
    v.load_constant(sum, o.p);
    v.code().vfmadd213ps(sum, o.a, v.f32(o.q));
    // The constant comes first, so that NaN stays NaN.
    v.zero(o.dst);
    v.code().vmaxps(sum, o.dst, sum);
    v.load_constant(o.dst, 1.0F);
    v.code().vminps(o.dst, o.dst, sum);
  }
  static void softsign(Code& v, Args o) {
    const Vmm& sum = o.temps[0];
    v.bit_and(sum, o.a, v.u32(kAllButSign));
    v.code().vaddps(sum, sum, v.f32(1.0F));
    v.code().vdivps(o.dst, o.a, sum);
  }
  static void exp(Code& v, Args o) { emit_exp(v, o.dst, o.a, o.temps); }
  static void clip(Code& v, Args o) {
    const Vmm& raised = o.temps[0];
    v.load_constant(raised, o.p);
    v.code().vmaxps(raised, raised, o.a);
    v.load_constant(o.dst, o.q);
    v.code().vminps(o.dst, o.dst, raised);
  }
};

template <class Vmm>
using Emitter = void (*)(VecCode<Vmm>&, const Operands<Vmm>&);

// ---- the table ----------------------------------------------------------------------------------

struct Row {
  ElementOp info;
  Scalar eval;
  Emitter<Xbyak::Ymm> avx2;
  Emitter<Xbyak::Zmm> avx512;
};

/// `depth`: arithmetic instructions on the longest path from an operand to the result.
constexpr int latency_of(int depth, int divisions) noexcept {
  return depth * kStepLatency + divisions * kDivisionLatency;
}

#define DEEPCPU_ELEMENT(op, arity, numbers, temps, vectors, divisions, depth)               \
  Row {                                                                                     \
    {Op::op, #op, arity, numbers, temps, vectors, divisions, latency_of(depth, divisions)}, \
        eval_##op, Emit<Xbyak::Ymm>::op, Emit<Xbyak::Zmm>::op                               \
  }

// op, arity, numbers, temporary registers, vector instructions, divisions, depth without them
constexpr std::array kRows = {
    DEEPCPU_ELEMENT(add, 2, 0, 0, 1, 0, 1),
    DEEPCPU_ELEMENT(sub, 2, 0, 0, 1, 0, 1),
    DEEPCPU_ELEMENT(mul, 2, 0, 0, 1, 0, 1),
    DEEPCPU_ELEMENT(neg, 1, 0, 0, 1, 0, 1),
    DEEPCPU_ELEMENT(min, 2, 0, 1, 3, 0, 2),
    DEEPCPU_ELEMENT(max, 2, 0, 1, 3, 0, 2),
    DEEPCPU_ELEMENT(one_minus, 1, 0, 1, 1, 0, 1),
    DEEPCPU_ELEMENT(sigmoid, 1, 0, kMathTemps, 13, 1, 11),
    DEEPCPU_ELEMENT(tanh, 1, 0, kMathTemps, 16, 1, 10),
    DEEPCPU_ELEMENT(relu, 1, 0, 1, 1, 0, 1),
    DEEPCPU_ELEMENT(leaky_relu, 1, 1, 2, 3, 0, 3),
    DEEPCPU_ELEMENT(hard_sigmoid, 1, 2, 1, 3, 0, 3),
    DEEPCPU_ELEMENT(softsign, 1, 0, 1, 2, 1, 2),
    DEEPCPU_ELEMENT(exp, 1, 0, kMathTemps, 16, 0, 15),
    DEEPCPU_ELEMENT(clip, 1, 2, 1, 2, 0, 2),
};

#undef DEEPCPU_ELEMENT

/// Rows stand in the order of Op, without gaps: the row of an operation is found by subtraction.
constexpr std::size_t index_of(Op op) noexcept {
  return static_cast<std::size_t>(op) - static_cast<std::size_t>(Op::add);
}

constexpr bool in_order() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (index_of(kRows[i].info.op) != i || kRows[i].info.temps > kMaxElementTemps) return false;
  }
  return true;
}
static_assert(in_order());

constexpr auto kInfos = [] {
  std::array<ElementOp, kRows.size()> infos{};
  std::transform(kRows.begin(), kRows.end(), infos.begin(),
                 [](const Row& row) { return row.info; });
  return infos;
}();

}  // namespace

std::span<const ElementOp> element_ops() noexcept { return kInfos; }

const ElementOp* find_element_op(Op op) noexcept {
  const std::size_t i = index_of(op);
  return i < kInfos.size() ? &kInfos[i] : nullptr;
}

float eval(Op op, float a, float b, float p, float q) noexcept {
  assert(find_element_op(op) != nullptr);
  return kRows[index_of(op)].eval(a, b, p, q);
}

template <class Vmm>
void emit_element(VecCode<Vmm>& v, Op op, Vmm dst, Vmm a, Vmm b, float p, float q,
                  const Vmm* temps) {
  assert(find_element_op(op) != nullptr);
  const Row& row = kRows[index_of(op)];
  const Operands<Vmm> operands{dst, a, b, p, q, temps};
  if constexpr (VecCode<Vmm>::kAvx512) {
    row.avx512(v, operands);
  } else {
    row.avx2(v, operands);
  }
}

template void emit_element(VecCode<Xbyak::Ymm>&, Op, Xbyak::Ymm, Xbyak::Ymm, Xbyak::Ymm, float,
                           float, const Xbyak::Ymm*);
template void emit_element(VecCode<Xbyak::Zmm>&, Op, Xbyak::Zmm, Xbyak::Zmm, Xbyak::Zmm, float,
                           float, const Xbyak::Zmm*);

}  // namespace deepcpu::jit
