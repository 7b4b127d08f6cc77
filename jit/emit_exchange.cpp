// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_timestep.hpp"
#include "jit/ring_waits.hpp"

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::qword;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;

/// Waits for `lanes` numbers at row + offset.
template <class Vmm>
void poll_vector(EmitContext<Vmm>& ctx, const Xbyak::RegExp& at, int lanes) {
  auto& code = ctx.code;
  const Xbyak::Reg64& polls = reg::unit;
  Xbyak::Label poll;
  Xbyak::Label seen;
  code.mov(polls.cvt32(), kPolls);
  code.L(poll);
  find_unwritten(ctx, ptr[at], lanes, Vmm(0));
  code.jz(seen);
  code.dec(polls);
  code.jnz(poll);
  wait_for_vector(ctx, at, lanes);
  code.L(seen);
}
}  // namespace

/// One vector after the other, this participant's own included: they are in its L1 cache, and
/// skipping them would take longer. Only the vector that is missing is looked at again and again,
/// so that the other participants' stores find the rest of their lines undisturbed.
template <class Vmm>
void emit_poll(EmitContext<Vmm>& ctx, const Ref& ring) {
  auto& code = ctx.code;
  const Buffer& buffer = ctx.plan.buffers[ring.buffer];
  const int lanes = VecCode<Vmm>::kLanes;
  const int width = static_cast<int>(buffer.width);
  const int whole = width / lanes * ctx.kBytes;
  const Xbyak::Reg64& at = reg::own_row;
  const Xbyak::Reg64& offset = reg::panel;
  Xbyak::Label alone;
  Xbyak::Label rows;
  Xbyak::Label vectors;
  ctx.record.label("poll");
  ctx.record.note("wait until all of " + buffer.name + " is written");
  code.cmp(ctx.arg(offsetof(KernelArgs, participants)), 1);
  code.jbe(alone, kNear);
  code.mov(at, ctx.buffer_slot(ring.next ? "next" : "current", ring.buffer));
  if (!ctx.one_row()) code.mov(reg::row, ctx.frame.slot("rows"));
  code.L(rows);
  if (whole > 0) {
    code.xor_(offset.cvt32(), offset.cvt32());
    code.L(vectors);
    poll_vector(ctx, at + offset, lanes);
    code.add(offset, ctx.kBytes);
    code.cmp(offset, imm(whole));
    code.jb(vectors, kNear);
  }
  if (width % lanes != 0) poll_vector(ctx, at + disp(whole), width % lanes);
  if (!ctx.one_row()) {
    code.add(at, static_cast<std::uint32_t>(buffer.row_stride));
    code.dec(reg::row);
    code.jnz(rows, kNear);
  }
  code.L(alone);
}

/// Lines that other cores have written take a journey each; asked for together they travel at the
/// same time.
template <class Vmm>
void emit_gather(EmitContext<Vmm>& ctx, const Ref& ref) {
  auto& code = ctx.code;
  const Buffer& buffer = ctx.plan.buffers[ref.buffer];
  const int bytes = static_cast<int>(buffer.width * sizeof(float));
  constexpr int kLine = 64;
  const Xbyak::Reg64& at = reg::own_row;
  const Xbyak::Reg64& offset = reg::panel;
  Xbyak::Label alone;
  Xbyak::Label rows;
  Xbyak::Label lines;
  ctx.record.note("fetch all of " + buffer.name);
  code.cmp(ctx.arg(offsetof(KernelArgs, participants)), 1);
  code.jbe(alone, kNear);
  code.mov(at, ctx.buffer_slot(ref.next ? "next" : "current", ref.buffer));
  if (!ctx.one_row()) code.mov(reg::row, ctx.frame.slot("rows"));
  code.L(rows);
  code.xor_(offset.cvt32(), offset.cvt32());
  code.L(lines);
  code.prefetcht0(ptr[at + offset]);
  code.add(offset, kLine);
  code.cmp(offset, imm(bytes));
  code.jb(lines);
  if (!ctx.one_row()) {
    code.add(at, static_cast<std::uint32_t>(buffer.row_stride));
    code.dec(reg::row);
    code.jnz(rows);
  }
  code.L(alone);
}

template <class Vmm>
void emit_exchange(EmitContext<Vmm>& ctx) {
  auto& code = ctx.code;
  const Xbyak::Reg64 target = reg::own_row;
  const Xbyak::Reg64 other = reg::panel;
  const Xbyak::Reg64 counter = Xbyak::util::rdi;
  const Xbyak::Reg64 polls = reg::k;
  Xbyak::Label alone;
  Xbyak::Label each;
  Xbyak::Label poll;
  Xbyak::Label seen;
  ctx.record.label("exchange");
  ctx.record.note("publish this participant's part, wait for the others");
  code.cmp(ctx.arg(offsetof(KernelArgs, participants)), 1);
  code.jbe(alone, kNear);
  code.mov(target, ctx.frame.slot("epoch"));
  code.inc(target);
  code.mov(ctx.frame.slot("epoch"), target);
  code.mov(reg::scratch, ctx.arg(offsetof(KernelArgs, published)));
  code.mov(reg::k, ctx.arg(offsetof(KernelArgs, participant)));
  code.mov(reg::k, ptr[reg::scratch + reg::k * 8]);
  // Stores become visible in program order on x86: whoever sees the counter sees the data.
  code.mov(qword[reg::k], target);

  code.xor_(other.cvt32(), other.cvt32());
  code.L(each);
  code.mov(reg::scratch, ctx.arg(offsetof(KernelArgs, published)));
  code.mov(counter, ptr[reg::scratch + other * 8]);
  code.mov(polls.cvt32(), kPolls);
  code.L(poll);
  code.cmp(qword[counter], target);
  code.jae(seen);
  code.dec(polls);
  code.jnz(poll);
  code.mov(Xbyak::util::rsi, target);
  code.vzeroupper();
  code.call(ctx.arg(offsetof(KernelArgs, wait_slow)));
  code.L(seen);
  code.inc(other);
  code.cmp(other, ctx.arg(offsetof(KernelArgs, participants)));
  code.jb(each);
  code.L(alone);
}

template void emit_poll<Xbyak::Ymm>(EmitContext<Xbyak::Ymm>&, const Ref&);
template void emit_poll<Xbyak::Zmm>(EmitContext<Xbyak::Zmm>&, const Ref&);
template void emit_gather<Xbyak::Ymm>(EmitContext<Xbyak::Ymm>&, const Ref&);
template void emit_gather<Xbyak::Zmm>(EmitContext<Xbyak::Zmm>&, const Ref&);
template void emit_exchange<Xbyak::Ymm>(EmitContext<Xbyak::Ymm>&);
template void emit_exchange<Xbyak::Zmm>(EmitContext<Xbyak::Zmm>&);

}  // namespace deepcpu::jit
