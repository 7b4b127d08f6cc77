// SPDX-License-Identifier: Apache-2.0
/// The element-wise operations: one table, one interpreter function and one emitter.
///
/// eval() and the code of emit_element() at both ISAs give the same bits for every input (any NaN
/// counts as equal to any other), provided that FTZ and DAZ are set in MXCSR while they run.
#pragma once

#include <span>
#include <string_view>

#include "deepcpu/cell.hpp"

namespace deepcpu::jit {

template <class Vmm>
class VecCode;

/// Most temporary registers that any operation asks for.
inline constexpr int kMaxElementTemps = 4;

struct ElementOp {
  Op op;
  std::string_view name;
  int arity;    ///< 1: a; 2: a and b
  int numbers;  ///< 0; 1: p; 2: p and q
  int temps;    ///< temporary vector registers that emit_element() needs
  int vectors;  ///< arithmetic vector instructions, a division counted apart
  int divisions;
  int latency;  ///< cycles from operand to result, at kStepLatency each and kDivisionLatency
};

/// Cycles of an addition, multiplication or FMA, and of a division of a whole vector, on the cores
/// of the last ten years (Skylake to Granite Rapids 4 and 14 to 17; Zen 2 to Zen 4 3 to 4 and 10
/// to 13). Only the cost model reads them.
inline constexpr int kStepLatency = 4;
inline constexpr int kDivisionLatency = 14;

/// All element-wise operations, in the order of Op.
std::span<const ElementOp> element_ops() noexcept;
/// The row of `op`, or null if it is not element-wise.
const ElementOp* find_element_op(Op op) noexcept;

/// One lane in plain C++. `op` must be element-wise; b, p and q are ignored where unused.
float eval(Op op, float a, float b, float p, float q) noexcept;

/// Emits dst = op(a, b; p, q). Vmm is Xbyak::Ymm or Xbyak::Zmm. dst may equal a or b, which are
/// otherwise left alone; unary operations ignore b. temps points to as many registers as the table
/// says, all different from each other and from dst, a and b. Of the mask registers only k7 is
/// overwritten, of the general registers none.
template <class Vmm>
void emit_element(VecCode<Vmm>& v, Op op, Vmm dst, Vmm a, Vmm b, float p, float q,
                  const Vmm* temps);

}  // namespace deepcpu::jit
