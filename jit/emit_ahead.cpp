// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_ahead.hpp"

#include <iterator>
#include <utility>

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::rsp;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
const Xbyak::Reg64& kFrom = reg::row;                                      // operand, at this k
const Xbyak::Reg64& kWeights = reg::pointer[std::size(reg::pointer) - 1];  // the same of weights
}  // namespace

template <class Vmm>
Xbyak::Address AheadEmitter<Vmm>::saved_sum(int row) {
  const int at = ctx_.frame.vectors("ahead sums", rows() * ctx_.kBytes);
  return ptr[rsp + disp(at + row * ctx_.kBytes)];
}

template <class Vmm>
void AheadEmitter<Vmm>::start() {
  ctx_.record.note("products of a later block: first tile");
  code_.mov(reg::scratch, ctx_.arg(offsetof(KernelArgs, ahead)));
  code_.mov(ctx_.frame.slot("ahead tile"), reg::scratch);
  code_.imul(kFrom, ctx_.arg(offsetof(KernelArgs, ahead_tiles)), sizeof(AheadTile));
  code_.add(kFrom, reg::scratch);
  code_.mov(ctx_.frame.slot("ahead end"), kFrom);
  code_.mov(ctx_.frame.slot("ahead done"), 0);
  load_tile();
  pause();
}

/// Of the tile at reg::scratch.
template <class Vmm>
void AheadEmitter<Vmm>::load_tile() {
  const Xbyak::Reg64& tile = reg::scratch;
  const std::pair<const char*, std::size_t> kept[] = {
      {"ahead k end", offsetof(AheadTile, end)},
      {"ahead from step", offsetof(AheadTile, from_step)},
      {"ahead weight step", offsetof(AheadTile, weight_step)}};
  for (const auto& [slot, field] : kept) {
    code_.mov(kFrom, ptr[tile + field]);
    code_.mov(ctx_.frame.slot(slot), kFrom);
  }
  code_.mov(kFrom, ptr[tile + offsetof(AheadTile, from)]);
  code_.mov(kWeights, ptr[tile + offsetof(AheadTile, weights)]);
  code_.mov(tile, ptr[tile + offsetof(AheadTile, init)]);
  ctx_.vec.load(sum(0), ptr[tile]);
  for (int row = 1; row < rows(); ++row) code_.vmovaps(sum(row), sum(0));
}

template <class Vmm>
void AheadEmitter<Vmm>::resume() {
  if (!ctx_.plan.ahead) return;
  code_.mov(kFrom, ctx_.frame.slot("ahead from"));
  code_.mov(kWeights, ctx_.frame.slot("ahead weights"));
  for (int row = 0; row < rows(); ++row) ctx_.vec.load(sum(row), saved_sum(row));
}

template <class Vmm>
void AheadEmitter<Vmm>::pause() {
  if (!ctx_.plan.ahead) return;
  code_.mov(ctx_.frame.slot("ahead from"), kFrom);
  code_.mov(ctx_.frame.slot("ahead weights"), kWeights);
  for (int row = 0; row < rows(); ++row) ctx_.vec.store(saved_sum(row), sum(row));
}

template <class Vmm>
void AheadEmitter<Vmm>::beat() {
  Xbyak::Label inside;
  code_.cmp(ctx_.frame.slot("ahead done"), 0);
  code_.jne(inside, kNear);
  ctx_.vec.load(weights(), ptr[kWeights]);
  code_.prefetcht0(ptr[kWeights + ctx_.plan.ahead->prefetch]);
  for (int row = 0; row < rows(); ++row) {
    const auto offset = static_cast<std::size_t>(row) * ctx_.plan.ahead->from_stride;
    code_.vfmadd231ps(sum(row), weights(), Xbyak::util::ptr_b[kFrom + offset]);
  }
  code_.add(kWeights, ctx_.frame.slot("ahead weight step"));
  code_.add(kFrom, ctx_.frame.slot("ahead from step"));
  code_.cmp(kFrom, ctx_.frame.slot("ahead k end"));
  code_.jne(inside);
  code_.call(ctx_.next_ahead);
  code_.L(inside);
}

template <class Vmm>
void AheadEmitter<Vmm>::finish() {
  Xbyak::Label loop;
  Xbyak::Label done;
  ctx_.record.note("products of a later block: what is left");
  resume();
  code_.L(loop);
  code_.cmp(ctx_.frame.slot("ahead done"), 0);
  code_.jne(done, kNear);
  beat();
  code_.jmp(loop, kNear);
  code_.L(done);
}

/// Stores the sums and begins the next tile, if there is one.
template <class Vmm>
void AheadEmitter<Vmm>::routine() {
  Xbyak::Label more;
  code_.align(16);
  ctx_.record.label("next_ahead");
  ctx_.record.note("products of a later block: next tile");
  code_.L(ctx_.next_ahead);
  const Xbyak::Reg64& tile = reg::scratch;
  code_.mov(tile, ctx_.frame.slot("ahead tile"));
  store_tile();
  code_.add(tile, sizeof(AheadTile));
  code_.cmp(tile, ctx_.frame.slot("ahead end"));
  code_.jb(more);
  code_.mov(ctx_.frame.slot("ahead done"), 1);
  code_.ret();
  code_.L(more);
  code_.mov(ctx_.frame.slot("ahead tile"), tile);
  load_tile();
  code_.ret();
  ctx_.record.end();
}

/// To where the tile at reg::scratch says. A second chain is added to the first.
template <class Vmm>
void AheadEmitter<Vmm>::store_tile() {
  const Xbyak::Reg64& tile = reg::scratch;
  Xbyak::Label plain;
  const auto to = [&](int row) {
    return ptr[kFrom + static_cast<std::size_t>(row) * ctx_.plan.ahead->to_stride];
  };
  code_.mov(kFrom, ptr[tile + offsetof(AheadTile, to)]);
  code_.cmp(Xbyak::util::qword[tile + offsetof(AheadTile, joins)], 0);
  code_.je(plain, kNear);
  for (int row = 0; row < rows(); ++row) code_.vaddps(sum(row), sum(row), to(row));
  code_.L(plain);
  for (int row = 0; row < rows(); ++row) ctx_.vec.store(to(row), sum(row));
}

template class AheadEmitter<Xbyak::Ymm>;
template class AheadEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
