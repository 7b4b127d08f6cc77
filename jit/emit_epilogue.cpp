// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_epilogue.hpp"

#include <algorithm>
#include <iterator>

#include "jit/element_ops.hpp"

namespace deepcpu::jit {

using Xbyak::util::dword;
using Xbyak::util::ptr;
using Xbyak::util::rsp;

namespace {
std::size_t at(int i) { return static_cast<std::size_t>(i); }
/// Register that walks through the stored tile while its rows are finished.
const Xbyak::Reg64& kTilePointer = reg::weights;
}  // namespace

template <class Vmm>
bool EpilogueEmitter<Vmm>::only_stores(const Stage& stage) {
  return std::all_of(stage.epilogue.begin(), stage.epilogue.end(), [](const Instr& i) {
    return i.action == Action::sum || i.action == Action::store;
  });
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit() {
  ctx_.record.label(stage_.name + ".epilogue");
  emit_row(reg::row, 0);
  if (tile_.rows == 1) return;
  ctx_.code.mov(reg::own_row, reg::row);
  for (int r = 1; r < tile_.rows; ++r) {
    ctx_.code.inc(reg::own_row);
    emit_row(reg::own_row, r);
  }
}

template <class Vmm>
void EpilogueEmitter<Vmm>::store_tile() {
  const int base = ctx_.frame.vectors("tile", regs_.accumulators() * ctx_.kBytes);
  for (int i = 0; i < regs_.accumulators(); ++i) {
    ctx_.vec.store(ptr[rsp + disp(base + i * ctx_.kBytes)], Vmm(i));
  }
  if (ctx_.one_row()) return;
  ctx_.code.lea(kTilePointer, ptr[rsp + disp(base)]);
  ctx_.code.mov(ctx_.frame.slot("tile rows"), imm(tile_.rows));
}

/// Advances reg::row past the tile.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_row_loop() {
  auto& code = ctx_.code;
  ctx_.record.label(stage_.name + ".epilogue");
  Xbyak::Label loop;
  code.L(loop);
  emit_row(reg::row, kInMemory);
  code.add(kTilePointer, imm(tile_.units * regs_.gates * ctx_.kBytes));
  code.inc(reg::row);
  code.dec(ctx_.frame.slot("tile rows"));
  code.jnz(loop, Xbyak::CodeGenerator::T_NEAR);
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_row(const Xbyak::Reg64& row, int tile_row) {
  pointers_.clear();
  for (int unit = 0; unit < tile_.units; ++unit) emit_unit(unit, row, tile_row);
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_next() {
  const int length = static_cast<int>(stage_.epilogue.size());
  const int n = next_ % length;
  if (n == 0) {
    values_.emplace(ctx_, stage_.epilogue);
    for (int i = 0; i < around_.low_vectors; ++i) values_->reserve(i);
    for (int i = 1; i <= around_.high_vectors; ++i) {
      values_->reserve(VecCode<Vmm>::kRegisters - i);
    }
  }
  emit_instr(*values_, n, next_ / length, reg::row, kInMemory);
  ++next_;
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_unit(int unit, const Xbyak::Reg64& row, int tile_row) {
  ValueRegisters<Vmm> values(ctx_, stage_.epilogue);
  if (tile_row != kInMemory) {
    // This unit's sums are values; those of later units and rows wait in their registers.
    const int first = regs_.accumulator(tile_row, unit, 0);
    for (int i = first; i < regs_.accumulators(); ++i) values.reserve(i);
  }
  for (int n = 0; n < static_cast<int>(stage_.epilogue.size()); ++n) {
    emit_instr(values, n, unit, row, tile_row);
  }
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_instr(ValueRegisters<Vmm>& values, int n, int unit,
                                      const Xbyak::Reg64& row, int tile_row) {
  const Instr& i = stage_.epilogue[at(n)];
  if (!i.note.empty()) ctx_.record.note(i.note);
  values.begin(n);
  switch (i.action) {
    case Action::load:
    case Action::broadcast:
      emit_load(Vmm(values.define(n)), i, unit, row);
      break;
    case Action::constant:
      ctx_.vec.load_constant(Vmm(values.define(n)), i.p);
      break;
    case Action::sum:
      if (tile_row != kInMemory) {
        values.place(n, regs_.accumulator(tile_row, unit, static_cast<int>(i.gate)));
      } else {
        const int vector = unit * regs_.gates + static_cast<int>(i.gate);
        ctx_.vec.load(Vmm(values.define(n)), stored_sum(vector));
      }
      break;
    case Action::element:
      emit_element(values, n);
      break;
    case Action::fma:
      emit_fma(values, n);
      break;
    case Action::quiet:
      emit_quiet(values, n);
      break;
    case Action::store:
      emit_store(values, i, unit, row);
      break;
  }
  values.end();
}

template <class Vmm>
Xbyak::Address EpilogueEmitter<Vmm>::stored_sum(int vector) const {
  const int offset = vector * ctx_.kBytes;
  if (!ctx_.one_row()) return ptr[kTilePointer + disp(offset)];
  return ptr[rsp + disp(ctx_.frame.vectors("tile", regs_.accumulators() * ctx_.kBytes) + offset)];
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_element(ValueRegisters<Vmm>& values, int n) {
  const Instr& i = stage_.epilogue[at(n)];
  const Vmm a(values.get(i.a));
  const Vmm b(i.b >= 0 ? values.get(i.b) : a.getIdx());
  const int count = find_element_op(i.op)->temps;
  std::vector<Vmm> temps;
  for (int t = 0; t < count; ++t) temps.emplace_back(values.temporary());
  int dst = 0;
  if (values.dies(i.a)) {
    values.hand_over(i.a, n);
    dst = a.getIdx();
  } else if (i.b >= 0 && values.dies(i.b)) {
    values.hand_over(i.b, n);
    dst = b.getIdx();
  } else {
    dst = values.define(n);
  }
  jit::emit_element(ctx_.vec, i.op, Vmm(dst), a, b, i.p, i.q, temps.data());
  for (const Vmm& t : temps) values.release(t.getIdx());
}

/// a * b + c, written over whichever operand dies here.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_fma(ValueRegisters<Vmm>& values, int n) {
  auto& code = ctx_.code;
  const Instr& i = stage_.epilogue[at(n)];
  const Vmm a(values.get(i.a));
  const Vmm b(values.get(i.b));
  const Vmm c(values.get(i.c));
  if (values.dies(i.c) && i.c != i.a && i.c != i.b) {
    code.vfmadd231ps(c, a, b);
    values.hand_over(i.c, n);
  } else if (values.dies(i.a) && i.a != i.b && i.a != i.c) {
    code.vfmadd213ps(a, b, c);
    values.hand_over(i.a, n);
  } else if (values.dies(i.b) && i.a != i.b && i.b != i.c) {
    code.vfmadd213ps(b, a, c);
    values.hand_over(i.b, n);
  } else {
    const Vmm dst(values.define(n));
    code.vmovaps(dst, c);
    code.vfmadd231ps(dst, a, b);
  }
}

/// a with the quiet bit set where its bits are kUnwritten.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_quiet(ValueRegisters<Vmm>& values, int n) {
  auto& code = ctx_.code;
  const Vmm a(values.get(stage_.epilogue[at(n)].a));
  const Vmm dst(values.define(n));
  if constexpr (VecCode<Vmm>::kAvx512) {
    code.vpcmpeqd(Xbyak::util::k7, a, ctx_.vec.u32(kUnwritten));
    code.vmovaps(dst, a);
    code.vpord(dst | Xbyak::util::k7, a, ctx_.vec.u32(kQuietBit));
  } else {
    code.vpcmpeqd(dst, a, ctx_.vec.u32(kUnwritten));
    code.vpand(dst, dst, ctx_.vec.u32(kQuietBit));
    code.vpor(dst, dst, a);
  }
}

template <class Vmm>
Xbyak::Reg64 EpilogueEmitter<Vmm>::pointer(const Ref& ref, const Xbyak::Reg64& row) {
  const Space space = ctx_.plan.buffers[ref.buffer].space;
  const bool next = space == Space::slots && ref.next;
  const std::pair<std::uint16_t, bool> key{ref.buffer, next};
  const auto it = std::find(pointers_.begin(), pointers_.end(), key);
  const auto index = static_cast<std::size_t>(it - pointers_.begin());
  // The last pointer register serves all buffers for which there is none of their own.
  const std::size_t first = at(around_.pointers);
  const std::size_t shared = std::size(reg::pointer) - 1 - first - at(around_.last_pointers);
  if (it != pointers_.end()) return reg::pointer[first + index];
  const Xbyak::Reg64& dst = reg::pointer[first + std::min(index, shared)];
  ctx_.row_pointer(dst, ref, row);
  if (index < shared) pointers_.push_back(key);
  return dst;
}

/// Only the caller's own arrays end at the last unit; buffers of ours hold whole vectors.
template <class Vmm>
bool EpilogueEmitter<Vmm>::masked(const Ref& ref, int unit) const {
  return tile_.tail != 0 && unit + 1 == tile_.units &&
         ctx_.plan.buffers[ref.buffer].space == Space::external;
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_load(const Vmm& dst, const Instr& i, int unit,
                                     const Xbyak::Reg64& row) {
  const Xbyak::Reg64 base = pointer(i.ref, row);
  const int offset = static_cast<int>(i.ref.offset);
  if (i.action == Action::broadcast) {
    ctx_.vec.broadcast(dst, dword[base + disp(offset)]);
    return;
  }
  const Xbyak::Address from = ptr[base + around_.unit + disp(offset + unit * ctx_.kBytes)];
  ctx_.fetch_next_step(i.ref, base + around_.unit, offset + unit * ctx_.kBytes);
  if (masked(i.ref, unit)) {
    ctx_.vec.load_tail(dst, from, tile_.tail, kTailMask);
  } else {
    ctx_.vec.load(dst, from);
  }
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_store(ValueRegisters<Vmm>& values, const Instr& i, int unit,
                                      const Xbyak::Reg64& row) {
  const Vmm src(values.get(i.a));
  const Xbyak::Reg64 base = pointer(i.ref, row);
  const int offset = static_cast<int>(i.ref.offset) + unit * ctx_.kBytes;
  const Xbyak::Address to = ptr[base + around_.unit + disp(offset)];
  if (masked(i.ref, unit)) {
    const int temp = values.temporary();
    ctx_.vec.store_tail(to, src, tile_.tail, kTailMask, Vmm(temp));
    values.release(temp);
  } else {
    ctx_.vec.store(to, src);
  }
}

template class EpilogueEmitter<Xbyak::Ymm>;
template class EpilogueEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
