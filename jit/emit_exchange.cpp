// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_timestep.hpp"

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::qword;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
/// Looks at another participant's counter before the slow path takes over.
constexpr int kPolls = 100;
}  // namespace

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

template void emit_exchange<Xbyak::Ymm>(EmitContext<Xbyak::Ymm>&);
template void emit_exchange<Xbyak::Zmm>(EmitContext<Xbyak::Zmm>&);

}  // namespace deepcpu::jit
