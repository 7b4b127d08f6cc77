// SPDX-License-Identifier: Apache-2.0
#include "jit/ring_waits.hpp"

#include <algorithm>

namespace deepcpu::jit {

using Xbyak::util::ptr;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
}  // namespace

template <class Vmm>
void find_unwritten(EmitContext<Vmm>& ctx, const Xbyak::Address& from, int lanes,
                    const Vmm& numbers) {
  auto& code = ctx.code;
  code.vmovups(numbers, from);
  if constexpr (VecCode<Vmm>::kAvx512) {
    const auto& found = Xbyak::util::k7;
    code.vpcmpeqd(found, numbers, ctx.vec.u32(kUnwritten));
    if (lanes == VecCode<Vmm>::kLanes) {
      code.kortestw(found, found);
    } else {
      code.kmovw(reg::scratch.cvt32(), found);
      code.test(reg::scratch.cvt32(), (1U << lanes) - 1U);
    }
  } else {
    code.vpcmpeqd(numbers, numbers, ctx.vec.u32(kUnwritten));
    code.vmovmskps(reg::scratch.cvt32(), numbers);
    code.test(reg::scratch.cvt32(), (1U << lanes) - 1U);
  }
}

template <class Vmm>
void wait_for_vector(EmitContext<Vmm>& ctx, const Xbyak::RegExp& at, int lanes) {
  auto& code = ctx.code;
  code.lea(Xbyak::util::rdi, ptr[at]);
  code.mov(Xbyak::util::esi, imm(lanes));
  code.vzeroupper();
  code.call(ctx.arg(offsetof(KernelArgs, wait_data)));
}

template <class Vmm>
bool RingWaits<Vmm>::cover(const Product& p) const {
  return std::find(rings_.begin(), rings_.end(), p.operand) != rings_.end();
}

template <class Vmm>
void RingWaits<Vmm>::look(const Xbyak::RegExp& at, int lanes) {
  Look& l = looks_.emplace_back();
  l.at = at;
  l.lanes = lanes;
  find_unwritten(ctx_, ptr[at], lanes, Vmm(kRegister));
  ctx_.code.jnz(l.missing, kNear);
  ctx_.code.L(l.written);
}

template <class Vmm>
void RingWaits<Vmm>::finish() {
  auto& code = ctx_.code;
  const Xbyak::Reg64& polls = reg::pointer[4];
  ctx_.record.note("a number is missing: look again, then wait");
  for (Look& l : looks_) {
    Xbyak::Label poll;
    code.L(l.missing);
    code.mov(polls.cvt32(), kPolls);
    code.L(poll);
    find_unwritten(ctx_, ptr[l.at], l.lanes, Vmm(kRegister));
    code.jz(l.written, kNear);
    code.dec(polls);
    code.jnz(poll);
    wait_for_vector(ctx_, l.at, l.lanes);
    if (tail_ != 0) ctx_.vec.set_tail_mask(kTailMask, tail_, reg::scratch.cvt32());
    code.jmp(again_, kNear);
  }
  ctx_.record.end();
}

template void find_unwritten(EmitContext<Xbyak::Ymm>&, const Xbyak::Address&, int,
                             const Xbyak::Ymm&);
template void find_unwritten(EmitContext<Xbyak::Zmm>&, const Xbyak::Address&, int,
                             const Xbyak::Zmm&);
template void wait_for_vector(EmitContext<Xbyak::Ymm>&, const Xbyak::RegExp&, int);
template void wait_for_vector(EmitContext<Xbyak::Zmm>&, const Xbyak::RegExp&, int);
template class RingWaits<Xbyak::Ymm>;
template class RingWaits<Xbyak::Zmm>;

}  // namespace deepcpu::jit
