// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_epilogue.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "jit/element_ops.hpp"
#include "jit/index.hpp"

namespace deepcpu::jit {

using Xbyak::util::dword;
using Xbyak::util::ptr;
using Xbyak::util::rsp;

namespace {
/// Register that walks through the stored tile while its rows are finished.
const Xbyak::Reg64& kTilePointer = reg::weights;
/// Registers that hold the numbers of rows that are emitted together.
const Xbyak::Reg64 kRows[] = {reg::row, reg::own_row, reg::k};
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
  emit_units(reg::row, 0);
  if (tile_.rows == 1) return;
  ctx_.code.mov(reg::own_row, reg::row);
  for (int r = 1; r < tile_.rows; ++r) {
    ctx_.code.inc(reg::own_row);
    emit_units(reg::own_row, r);
  }
}

/// A row whose sums are in registers.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_units(const Xbyak::Reg64& row, int tile_row) {
  pointers_.clear();
  for (int unit = 0; unit < tile_.units; unit += ctx_.columns) {
    std::vector<Column> columns;
    for (int u = unit; u < std::min(unit + ctx_.columns, tile_.units); ++u) {
      columns.push_back({row, u, tile_row});
    }
    emit_columns(std::move(columns), Sums::registers);
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

/// Advances reg::row past the tile. As many rows together as can be and are left.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_row_loop() {
  auto& code = ctx_.code;
  const Xbyak::Address left = ctx_.frame.slot("tile rows");
  ctx_.record.label(stage_.name + ".epilogue");
  Xbyak::Label loop;
  Xbyak::Label done;
  code.L(loop);
  for (int rows = std::min(ctx_.columns, static_cast<int>(stage_.tile_rows)); rows > 0; --rows) {
    Xbyak::Label fewer;
    if (rows > 1) {
      code.cmp(left, imm(rows));
      code.jb(fewer, Xbyak::CodeGenerator::T_NEAR);
    }
    emit_stored_rows(rows);
    code.add(kTilePointer, imm(rows * tile_.units * regs_.gates * ctx_.kBytes));
    code.add(reg::row, imm(rows));
    code.sub(left, imm(rows));
    code.jnz(loop, Xbyak::CodeGenerator::T_NEAR);
    if (rows > 1) code.jmp(done, Xbyak::CodeGenerator::T_NEAR);
    code.L(fewer);
  }
  code.L(done);
}

/// The next rows of a stored tile.
template <class Vmm>
void EpilogueEmitter<Vmm>::emit_stored_rows(int rows) {
  pointers_.clear();
  for (int r = 1; r < rows; ++r) ctx_.code.lea(kRows[r], ptr[reg::row + disp(r)]);
  for (int unit = 0; unit < tile_.units; ++unit) {
    std::vector<Column> columns;
    for (int r = 0; r < rows; ++r) columns.push_back({kRows[r], unit, r});
    emit_columns(std::move(columns), Sums::memory);
  }
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_next() {
  const int length = static_cast<int>(stage_.epilogue.size());
  const int n = next_ % length;
  if (n == 0) {
    begin_columns({{reg::row, next_ / length, 0}}, Sums::memory);
    for (int i = 0; i < around_.low_vectors; ++i) values_->reserve(i);
    for (int i = 1; i <= around_.high_vectors; ++i) {
      values_->reserve(VecCode<Vmm>::kRegisters - i);
    }
  }
  emit_instr(n);
  ++next_;
}

template <class Vmm>
void EpilogueEmitter<Vmm>::begin_columns(std::vector<Column> columns, Sums sums) {
  sums_ = sums;
  columns_ = std::move(columns);
  code_ = by_waves(stage_.epilogue, static_cast<int>(columns_.size()));
  values_.emplace(ctx_, code_);
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_columns(std::vector<Column> columns, Sums sums) {
  begin_columns(std::move(columns), sums);
  if (sums == Sums::registers) {
    // Accumulators become values when it is their turn; those of later columns and rows wait.
    const Column& first = columns_.front();
    for (int i = regs_.accumulator(first.tile_row, first.unit, 0); i < regs_.accumulators(); ++i) {
      values_->reserve(i);
    }
  }
  for (int n = 0; n < static_cast<int>(code_.size()); ++n) emit_instr(n);
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_instr(int n) {
  const Instr& i = code_[at(n)].instr;
  const Column& column = columns_[at(code_[at(n)].column)];
  if (!i.note.empty()) ctx_.record.note(i.note);
  values_->begin(n);
  switch (i.action) {
    case Action::load:
    case Action::broadcast:
      emit_load(Vmm(values_->define(n)), i, column);
      break;
    case Action::constant:
      ctx_.vec.load_constant(Vmm(values_->define(n)), i.p);
      break;
    case Action::sum:
      emit_sum(n, column);
      break;
    case Action::element:
      emit_element(n);
      break;
    case Action::fma:
      emit_fma(n);
      break;
    case Action::quiet:
      emit_quiet(n);
      break;
    case Action::store:
      emit_store(i, column);
      break;
  }
  values_->end();
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_sum(int n, const Column& column) {
  const auto gate = static_cast<int>(code_[at(n)].instr.gate);
  if (sums_ == Sums::registers) {
    values_->place(n, regs_.accumulator(column.tile_row, column.unit, gate));
  } else {
    ctx_.vec.load(Vmm(values_->define(n)), stored_sum(column, gate));
  }
}

template <class Vmm>
Xbyak::Address EpilogueEmitter<Vmm>::stored_sum(const Column& column, int gate) const {
  const int row = column.tile_row * tile_.units;
  const int offset = ((row + column.unit) * regs_.gates + gate) * ctx_.kBytes;
  if (!ctx_.one_row()) return ptr[kTilePointer + disp(offset)];
  return ptr[rsp + disp(ctx_.frame.vectors("tile", regs_.accumulators() * ctx_.kBytes) + offset)];
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_element(int n) {
  ValueRegisters<Vmm>& values = *values_;
  const Instr& i = code_[at(n)].instr;
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
void EpilogueEmitter<Vmm>::emit_fma(int n) {
  ValueRegisters<Vmm>& values = *values_;
  auto& code = ctx_.code;
  const Instr& i = code_[at(n)].instr;
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
void EpilogueEmitter<Vmm>::emit_quiet(int n) {
  ValueRegisters<Vmm>& values = *values_;
  auto& code = ctx_.code;
  const Vmm a(values.get(code_[at(n)].instr.a));
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
  const bool next = ref.next && ctx_.plan.buffers[ref.buffer].slots > 1;
  const std::tuple<std::uint16_t, bool, int> key{ref.buffer, next, row.getIdx()};
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
void EpilogueEmitter<Vmm>::emit_load(const Vmm& dst, const Instr& i, const Column& column) {
  const Xbyak::Reg64 base = pointer(i.ref, column.row);
  const int offset = static_cast<int>(i.ref.offset);
  if (i.action == Action::broadcast) {
    ctx_.vec.broadcast(dst, dword[base + disp(offset)]);
    return;
  }
  const Xbyak::Address from = ptr[base + around_.unit + disp(offset + column.unit * ctx_.kBytes)];
  ctx_.fetch_next_step(i.ref, base + around_.unit, offset + column.unit * ctx_.kBytes);
  if (masked(i.ref, column.unit)) {
    ctx_.vec.load_tail(dst, from, tile_.tail, kTailMask);
  } else {
    ctx_.vec.load(dst, from);
  }
}

/// Whether all units of the sum are in vectors of others, which are stored as they are.
template <class Vmm>
bool EpilogueEmitter<Vmm>::stored_by_host(const Instr& store, int unit) const {
  if (!stage_.keeps_places || !shares_vectors(stage_, tile_, unit)) return false;
  return !holds_units(stage_, code_[at(store.a)].instr.gate);
}

template <class Vmm>
void EpilogueEmitter<Vmm>::emit_store(const Instr& i, const Column& column) {
  if (stored_by_host(i, column.unit)) return;
  ValueRegisters<Vmm>& values = *values_;
  const Vmm src(values.get(i.a));
  const Xbyak::Reg64 base = pointer(i.ref, column.row);
  const int offset = static_cast<int>(i.ref.offset) + column.unit * ctx_.kBytes;
  const Xbyak::Address to = ptr[base + around_.unit + disp(offset)];
  if (masked(i.ref, column.unit)) {
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
