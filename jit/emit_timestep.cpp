// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_timestep.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <string>

#include "jit/emit_ahead.hpp"
#include "jit/emit_epilogue.hpp"
#include "jit/emit_row_tiles.hpp"
#include "jit/panel_claims.hpp"

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::rbp;
using Xbyak::util::rsp;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
const Xbyak::Reg64 kCalleeSaved[] = {reg::args, reg::panel, reg::unit, reg::row, reg::own_row};

int most_chains(const Stage& stage) {
  std::uint32_t chains = 1;
  for (const Product& p : stage.products) chains = std::max(chains, p.chains);
  return static_cast<int>(chains);
}
}  // namespace

template <class Vmm>
void TimestepEmitter<Vmm>::emit() {
  Xbyak::Label step;
  Xbyak::Label done;
  prologue();
  start_call();
  if (ctx_.plan.weights_in_registers) MatmulEmitter<Vmm>::load_resident(ctx_);
  AheadEmitter<Vmm> ahead(ctx_);
  if (ctx_.plan.ahead) ahead.start();
  code_.align(16);
  ctx_.record.label("timestep");
  code_.L(step);
  start_step(done);
  for (std::size_t s = 0; s < ctx_.plan.stages.size(); ++s) stage(s);
  finish_step();
  PanelClaims<Vmm>(ctx_).finish_step();
  code_.dec(ctx_.frame.slot("steps left"));
  code_.jnz(step, kNear);
  ctx_.record.label("done");
  code_.L(done);
  if (ctx_.plan.ahead) ahead.finish();
  epilogue();
  if (ctx_.plan.ahead) ahead.routine();
  code_.rewrite(frame_size_at_, static_cast<std::uint64_t>(ctx_.frame.bytes()), 4);
}

template <class Vmm>
void TimestepEmitter<Vmm>::prologue() {
  ctx_.record.note("prologue");
  code_.push(rbp);
  code_.mov(rbp, rsp);
  for (const Reg& r : kCalleeSaved) code_.push(r);
  code_.sub(rsp, imm(0x7fffffff));
  frame_size_at_ = code_.getSize() - 4;
  code_.and_(rsp, imm(-64));
  touch_stack();
}

/// A frame that is larger than the guard page below a stack is touched page by page, so that a
/// stack which is too small ends the process instead of giving away what lies beyond.
template <class Vmm>
void TimestepEmitter<Vmm>::touch_stack() {
  constexpr int kPage = 4096;
  Xbyak::Label page;
  Xbyak::Label done;
  code_.mov(reg::scratch, rbp);
  code_.L(page);
  code_.sub(reg::scratch, imm(kPage));
  code_.cmp(reg::scratch, rsp);
  code_.jbe(done);
  code_.test(Xbyak::util::byte[reg::scratch], 0);
  code_.jmp(page);
  code_.L(done);
}

template <class Vmm>
void TimestepEmitter<Vmm>::epilogue() {
  ctx_.record.note("return");
  code_.lea(rsp, ptr[rbp - Frame::kSaved]);
  for (auto r = std::rbegin(kCalleeSaved); r != std::rend(kCalleeSaved); ++r) code_.pop(*r);
  code_.pop(rbp);
  code_.vzeroupper();
  code_.ret();
  ctx_.record.end();
}

/// Copies what changes from step to step out of the arguments into the frame.
template <class Vmm>
void TimestepEmitter<Vmm>::start_call() {
  const Reg& tmp = reg::scratch;
  code_.mov(reg::args, Xbyak::util::rdi);
  auto copy = [&](const char* name, std::size_t offset) {
    code_.mov(tmp, ctx_.arg(offset));
    code_.mov(ctx_.frame.slot(name), tmp);
  };
  copy("steps left", offsetof(KernelArgs, steps));
  copy("active", offsetof(KernelArgs, active));
  copy("rows", offsetof(KernelArgs, rows));
  RowTilesEmitter<Vmm>::divide_rows(ctx_);
  copy("flip", offsetof(KernelArgs, parity));
  copy("epoch", offsetof(KernelArgs, epoch));
  PanelClaims<Vmm>(ctx_).start_call();
  for (std::size_t i = 0; i < ctx_.plan.buffers.size(); ++i) {
    const auto id = static_cast<std::uint16_t>(i);
    const Buffer& b = ctx_.plan.buffers[i];
    if (b.space == Space::external) {
      code_.mov(ctx_.buffer_slot("time", id), 0);
    } else if (b.space == Space::block) {
      code_.mov(tmp, ctx_.buffer_arg(id));
      code_.mov(ctx_.buffer_slot("time", id), tmp);
    } else if (b.space == Space::slots && b.slots == 2) {
      // current = base + parity * slot_stride, next = the other slot.
      code_.mov(reg::k, ctx_.arg(offsetof(KernelArgs, parity)));
      code_.mov(tmp, b.slot_stride);
      code_.imul(reg::k, tmp);
      code_.mov(tmp, ctx_.buffer_arg(id));
      code_.add(tmp, reg::k);
      code_.mov(ctx_.buffer_slot("current", id), tmp);
      code_.sub(tmp, reg::k);
      code_.sub(tmp, reg::k);
      code_.mov(reg::k, b.slot_stride);
      code_.add(tmp, reg::k);
      code_.mov(ctx_.buffer_slot("next", id), tmp);
    } else if (b.slots == 3) {
      point_ring(id);
    }
  }
}

/// Slot i of the ring, in the order current, next, after: base + (phase + i) % 3 * slot_stride.
template <class Vmm>
void TimestepEmitter<Vmm>::point_ring(std::uint16_t id) {
  std::uint32_t ahead = 0;
  for (const char* name : {"current", "next", "after"}) {
    Xbyak::Label inside;
    code_.mov(reg::k, ctx_.arg(offsetof(KernelArgs, phase)));
    code_.add(reg::k, ahead++);
    code_.cmp(reg::k, 3);
    code_.jb(inside);
    code_.sub(reg::k, 3);
    code_.L(inside);
    code_.mov(reg::scratch, ctx_.plan.buffers[id].slot_stride);
    code_.imul(reg::k, reg::scratch);
    code_.add(reg::k, ctx_.buffer_arg(id));
    code_.mov(ctx_.buffer_slot(name, id), reg::k);
  }
}

template <class Vmm>
void TimestepEmitter<Vmm>::start_step(const Xbyak::Label& done) {
  ctx_.record.note("time step: rows still live");
  const Reg& tmp = reg::scratch;
  Xbyak::Label all_rows;
  code_.cmp(ctx_.frame.slot("steps left"), 0);
  code_.je(done, kNear);
  code_.mov(tmp, ctx_.frame.slot("active"));
  code_.test(tmp, tmp);
  code_.jz(all_rows, kNear);
  code_.add(ctx_.frame.slot("active"), 4);
  code_.mov(tmp.cvt32(), Xbyak::util::dword[tmp]);
  code_.cmp(ctx_.frame.slot("rows"), tmp);
  code_.je(all_rows, kNear);
  code_.mov(ctx_.frame.slot("rows"), tmp);
  RowTilesEmitter<Vmm>::divide_rows(ctx_);
  code_.L(all_rows);
  code_.cmp(ctx_.frame.slot("rows"), 0);
  code_.je(done, kNear);
}

template <class Vmm>
void TimestepEmitter<Vmm>::finish_step() {
  ctx_.record.note("next time step: swap slots, advance pointers");
  const Reg& tmp = reg::scratch;
  code_.xor_(ctx_.frame.slot("flip"), 1);
  for (std::size_t i = 0; i < ctx_.plan.buffers.size(); ++i) {
    const auto id = static_cast<std::uint16_t>(i);
    const Buffer& b = ctx_.plan.buffers[i];
    if (b.space == Space::external) {
      code_.mov(tmp, ctx_.stride_arg(id));
      code_.add(ctx_.buffer_slot("time", id), tmp);
    } else if (b.space == Space::block) {
      code_.mov(tmp, b.step_stride);
      code_.add(ctx_.buffer_slot("time", id), tmp);
    } else if (b.space == Space::slots && b.slots == 2) {
      // Not xchg, which locks the bus when one operand is in memory.
      code_.mov(tmp, ctx_.buffer_slot("current", id));
      code_.mov(reg::k, ctx_.buffer_slot("next", id));
      code_.mov(ctx_.buffer_slot("current", id), reg::k);
      code_.mov(ctx_.buffer_slot("next", id), tmp);
    } else if (b.slots == 3) {
      code_.mov(tmp, ctx_.buffer_slot("current", id));
      code_.mov(reg::k, ctx_.buffer_slot("next", id));
      code_.mov(ctx_.buffer_slot("current", id), reg::k);
      code_.mov(reg::k, ctx_.buffer_slot("after", id));
      code_.mov(ctx_.buffer_slot("next", id), reg::k);
      code_.mov(ctx_.buffer_slot("after", id), tmp);
    }
  }
}

template <class Vmm>
bool TimestepEmitter<Vmm>::weaves(const Stage& stage) const {
  return ctx_.weave && ctx_.plan.panels(stage) > 1 && !stage.products.empty();
}

/// Whether the first panel's products may look for themselves at the rings that the stage waits
/// for: they read every number of them, and nothing before that others write, for what is written
/// together with a ring is complete when the ring is, and is to be fetched then. They begin again
/// after a long wait, which products of a later block, run beside them, cannot.
template <class Vmm>
bool TimestepEmitter<Vmm>::waits_late(const Stage& stage) const {
  if (!ctx_.looks || !weaves(stage) || ctx_.plan.ahead) return false;
  if (stage.polls.empty() || !stage.gathers.empty()) return false;
  const auto sums = static_cast<int>(stage.sums.size() * stage.units_per_panel);
  if (sums * most_chains(stage) > RingWaits<Vmm>::kRegister) return false;
  auto seen = stage.products.begin();  // behind the product after which all rings have been seen
  for (const Ref& ring : stage.polls) {
    const auto it =
        std::find_if(stage.products.begin(), stage.products.end(), [&](const Product& p) {
          return p.operand == ring && p.k == ctx_.plan.buffers[ring.buffer].width;
        });
    if (it == stage.products.end()) return false;
    seen = std::max(seen, std::next(it));
  }
  return std::all_of(stage.products.begin(), seen, [&](const Product& p) {
    return ctx_.plan.buffers[p.operand.buffer].space == Space::external ||
           std::find(stage.polls.begin(), stage.polls.end(), p.operand) != stage.polls.end();
  });
}

template <class Vmm>
void TimestepEmitter<Vmm>::begin_stage(const Stage& stage) {
  late_ = waits_late(stage);
  for (const Ref& ring : stage.polls) {
    if (late_) {
      emit_gather(ctx_, ring);
    } else {
      emit_poll(ctx_, ring);
    }
  }
  for (const Ref& rows : stage.gathers) emit_gather(ctx_, rows);
}

/// A participant without panels waits all the same: it must not run ahead.
template <class Vmm>
void TimestepEmitter<Vmm>::end_stage(const Stage& stage, Xbyak::Label& idle,
                                     const Xbyak::Label& end) {
  if (!late_) return;
  code_.jmp(end, kNear);
  for (RingWaits<Vmm>& w : waits_) w.finish();
  waits_.clear();
  code_.L(idle);
  for (const Ref& ring : stage.polls) emit_poll(ctx_, ring);
  late_ = false;
}

template <class Vmm>
void TimestepEmitter<Vmm>::stage(std::size_t index) {
  const Stage& stage = ctx_.plan.stages[index];
  const auto panels_of_stage = ctx_.plan.panels(stage);
  const int lanes = static_cast<int>(ctx_.plan.lanes);
  const int tail = static_cast<int>(stage.width) % lanes;
  const Tile full{1, static_cast<int>(stage.units_per_panel), 0};
  const Tile last{1, static_cast<int>(ctx_.plan.units(stage, panels_of_stage - 1)), tail};

  Xbyak::Label idle;
  Xbyak::Label end;
  ctx_.record.label(stage.name);
  begin_stage(stage);
  ctx_.record.note("panels in walking order");
  // r->order[flip] and r->count, r = ranges + index
  const std::size_t range = index * sizeof(PanelRange);
  code_.mov(reg::scratch, ctx_.arg(offsetof(KernelArgs, ranges)));
  code_.mov(reg::k, ptr[reg::scratch + range + offsetof(PanelRange, count)]);
  code_.test(reg::k, reg::k);
  code_.jz(late_ ? idle : end, kNear);
  code_.mov(ctx_.frame.slot("panels left"), reg::k);
  if (PanelClaims<Vmm>::of(ctx_, stage)) PanelClaims<Vmm>(ctx_).start_stage(index);
  code_.mov(reg::k, ctx_.frame.slot("flip"));
  code_.mov(reg::k, ptr[reg::scratch + reg::k * 8 + range]);
  code_.mov(ctx_.frame.slot("order"), reg::k);
  if (tail != 0) ctx_.vec.set_tail_mask(kTailMask, tail, reg::scratch.cvt32());
  if (weaves(stage)) {
    woven_panels(stage, full, last);
  } else {
    panels(index, full, last);
  }
  end_stage(stage, idle, end);
  code_.L(end);
  if (stage.exchange) emit_exchange(ctx_);
}

template <class Vmm>
void TimestepEmitter<Vmm>::take_panel(const Tile& full) {
  code_.mov(reg::scratch, ctx_.frame.slot("order"));
  code_.mov(reg::panel.cvt32(), Xbyak::util::dword[reg::scratch]);
  code_.add(ctx_.frame.slot("order"), 4);
  code_.imul(reg::unit, reg::panel, full.units * ctx_.kBytes);
}

/// One panel after the other.
template <class Vmm>
void TimestepEmitter<Vmm>::panels(std::size_t index, const Tile& full, const Tile& last) {
  const Stage& stage = ctx_.plan.stages[index];
  const auto count = ctx_.plan.panels(stage);
  Xbyak::Label loop;
  Xbyak::Label ragged;
  Xbyak::Label next;
  code_.align(16);
  code_.L(loop);
  take_panel(full);
  if (last == full) {
    panel(stage, full);
  } else if (count == 1) {
    panel(stage, last);
  } else {
    code_.cmp(reg::panel, count - 1);
    code_.je(ragged, kNear);
    panel(stage, full);
    code_.jmp(next, kNear);
    code_.L(ragged);
    panel(stage, last);
  }
  code_.L(next);
  code_.dec(ctx_.frame.slot("panels left"));
  code_.jnz(loop, kNear);
  if (PanelClaims<Vmm>::of(ctx_, stage)) PanelClaims<Vmm>(ctx_).take_others(index, loop);
}

/// The epilogue of a full panel is woven into the products of the full panel that follows. By
/// itself it is a long chain of dependent instructions; they would fill the core's window, and no
/// weights would be read meanwhile. A panel that is not full runs by itself.
template <class Vmm>
void TimestepEmitter<Vmm>::woven_panels(const Stage& stage, const Tile& full, const Tile& last) {
  const auto count = ctx_.plan.panels(stage);
  MatmulEmitter<Vmm> products(ctx_, stage, full);
  Xbyak::Label fresh;
  Xbyak::Label ragged;
  Xbyak::Label follow;
  Xbyak::Label drain;
  Xbyak::Label done;
  code_.align(16);
  code_.L(fresh);
  take_panel(full);
  if (last != full) {
    code_.cmp(reg::panel, count - 1);
    code_.je(ragged, kNear);
  }
  first_products(stage, full, products);
  code_.L(follow);
  code_.dec(ctx_.frame.slot("panels left"));
  code_.jz(drain, kNear);
  if (last != full) {
    code_.mov(reg::scratch, ctx_.frame.slot("order"));
    code_.cmp(Xbyak::util::dword[reg::scratch], count - 1);
    code_.je(drain, kNear);
  }
  woven_panel(stage, full);
  code_.jmp(follow, kNear);
  code_.L(drain);
  AheadEmitter<Vmm>(ctx_).pause();
  EpilogueEmitter<Vmm>(ctx_, stage, full, products.registers()).emit();
  code_.cmp(ctx_.frame.slot("panels left"), 0);
  code_.jne(fresh, kNear);
  if (last == full) return;
  code_.jmp(done, kNear);
  code_.L(ragged);
  panel(stage, last);
  code_.dec(ctx_.frame.slot("panels left"));
  code_.jnz(fresh, kNear);
  code_.L(done);
}

/// The products of a panel that may be the stage's first. Until these have seen the whole ring,
/// some may still read the slot that is to be marked.
template <class Vmm>
void TimestepEmitter<Vmm>::first_products(const Stage& stage, const Tile& tile,
                                          MatmulEmitter<Vmm>& products) {
  if (!late_) {
    mark(stage, tile);
    AheadEmitter<Vmm>(ctx_).resume();
    return products.emit();
  }
  products.wait_with(waits_.emplace_back(ctx_, stage));
  products.emit();
  mark(stage, tile, RingWaits<Vmm>::kRegister);
}

/// The products of the next panel with the epilogue of this one, whose sums are in registers.
template <class Vmm>
void TimestepEmitter<Vmm>::woven_panel(const Stage& stage, const Tile& full) {
  ctx_.record.label(stage.name + ".woven");
  code_.mov(reg::own_row, reg::unit);
  MatmulEmitter<Vmm> products(ctx_, stage, full);
  const int accumulators = products.registers().accumulators() * most_chains(stage);
  EpilogueEmitter<Vmm> before(
      ctx_, stage, full, products.registers(),
      {reg::own_row, 1, ctx_.plan.ahead ? 1 : 0, accumulators, ctx_.high_vectors()});
  before.store_tile();
  take_panel(full);
  mark(stage, full);
  products.emit_woven(before.pieces(), [&] { before.emit_next(); });
}

/// Fills what this panel will store one step later with kUnwritten, from vector register `temp`.
/// Mostly done before the products, so that the cache lines travel while these run.
template <class Vmm>
void TimestepEmitter<Vmm>::mark(const Stage& stage, const Tile& tile, int temp) {
  for (const Instr& i : stage.epilogue) {
    if (i.action != Action::store || ctx_.plan.buffers[i.ref.buffer].slots != 3) continue;
    ctx_.record.note("mark " + ctx_.plan.buffers[i.ref.buffer].name + " as not written");
    Xbyak::Label rows;
    const Reg& to = reg::pointer[0];
    ctx_.vec.load_constant(Vmm(temp), std::bit_cast<float>(kUnwritten));
    code_.mov(to, ctx_.buffer_slot("after", i.ref.buffer));
    if (!ctx_.one_row()) code_.mov(reg::k, ctx_.frame.slot("rows"));
    code_.L(rows);
    for (int unit = 0; unit < tile.units; ++unit) {
      const int offset = static_cast<int>(i.ref.offset) + unit * ctx_.kBytes;
      ctx_.vec.store(ptr[to + reg::unit + disp(offset)], Vmm(temp));
    }
    if (ctx_.one_row()) continue;
    code_.add(to, static_cast<std::uint32_t>(ctx_.plan.buffers[i.ref.buffer].row_stride));
    code_.dec(reg::k);
    code_.jnz(rows, kNear);
  }
}

template <class Vmm>
void TimestepEmitter<Vmm>::panel(const Stage& stage, const Tile& tile) {
  if (ctx_.one_row()) {
    single_row(stage, tile);
  } else {
    mark(stage, tile);
    RowTilesEmitter<Vmm>(ctx_, stage, tile).emit();
  }
}

/// The only row of a plan for batch 1: nothing of it leaves the registers before the epilogue.
template <class Vmm>
void TimestepEmitter<Vmm>::single_row(const Stage& stage, const Tile& tile) {
  MatmulEmitter<Vmm> products(ctx_, stage, tile);
  first_products(stage, tile, products);
  AheadEmitter<Vmm>(ctx_).pause();
  EpilogueEmitter<Vmm>(ctx_, stage, tile, products.registers()).emit();
}

template class TimestepEmitter<Xbyak::Ymm>;
template class TimestepEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
