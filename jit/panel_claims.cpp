// SPDX-License-Identifier: Apache-2.0
#include "jit/panel_claims.hpp"

#include <algorithm>

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::qword;

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;

// Between panels of several rows all general registers but reg::args are free.
const Xbyak::Reg64 kWord(Xbyak::Operand::R9);    // address of the word at hand
const Xbyak::Reg64 kOther(Xbyak::Operand::R11);  // whose it is
const Xbyak::Reg64 kSeen(Xbyak::Operand::RAX);   // what it was; where cmpxchg wants it
const Xbyak::Reg64 kFirst(Xbyak::Operand::RDX);
const Xbyak::Reg64 kEnd(Xbyak::Operand::RCX);
const Xbyak::Reg64 kNew(Xbyak::Operand::R8);
}  // namespace

template <class Vmm>
bool PanelClaims<Vmm>::any() const {
  return std::any_of(ctx_.plan.stages.begin(), ctx_.plan.stages.end(),
                     [&](const Stage& s) { return of(ctx_, s); });
}

/// kWord = the participant's word of a stage, for this step or the next one. Overwrites kNew.
template <class Vmm>
void PanelClaims<Vmm>::point_word(const Xbyak::Reg64& participant, std::size_t index,
                                  bool next_step) {
  code_.mov(kWord, ctx_.arg(offsetof(KernelArgs, claims)));
  code_.mov(kWord, ptr[kWord + participant * 8]);
  code_.mov(kNew, ctx_.frame.slot("flip"));
  if (next_step) code_.xor_(kNew, 1);
  code_.imul(kNew, kNew, sizeof(Claims));
  code_.lea(kWord, ptr[kWord + kNew + offsetof(Claims, word) + 2 * sizeof(Claims) * index]);
}

/// kFirst = Claims::kept(count).
template <class Vmm>
void PanelClaims<Vmm>::keep(const Xbyak::Reg64& count) {
  code_.lea(kFirst, ptr[count + 1]);
  code_.shr(kFirst, 1);
}

/// As Claims::offer: writes the word at kWord for the step number in kNew. Overwrites kFirst.
template <class Vmm>
void PanelClaims<Vmm>::offer(const Xbyak::Reg64& count) {
  code_.shl(kNew, 32);
  keep(count);
  code_.or_(kNew, kFirst);
  code_.mov(kFirst, count);
  code_.shl(kFirst, 16);
  code_.or_(kNew, kFirst);
  code_.mov(qword[kWord], kNew);
}

template <class Vmm>
void PanelClaims<Vmm>::start_call() {
  if (!any()) return;
  Xbyak::Label none;
  ctx_.record.note("offer panels of the first step");
  code_.mov(reg::scratch, ctx_.arg(offsetof(KernelArgs, first_step)));
  code_.mov(ctx_.frame.slot("step number"), reg::scratch);
  code_.cmp(ctx_.arg(offsetof(KernelArgs, participants)), 1);
  code_.jbe(none, kNear);
  code_.cmp(ctx_.frame.slot("steps left"), 2);
  code_.jb(none, kNear);
  for (std::size_t s = 0; s < ctx_.plan.stages.size(); ++s) {
    if (!of(ctx_, ctx_.plan.stages[s])) continue;
    code_.mov(kOther, ctx_.arg(offsetof(KernelArgs, participant)));
    point_word(kOther, s, false);
    code_.mov(kEnd, ctx_.arg(offsetof(KernelArgs, ranges)));
    code_.mov(kEnd, ptr[kEnd + s * sizeof(PanelRange) + offsetof(PanelRange, count)]);
    code_.mov(kNew, ctx_.frame.slot("step number"));
    offer(kEnd);
  }
  code_.L(none);
}

template <class Vmm>
void PanelClaims<Vmm>::start_stage(std::size_t index) {
  Xbyak::Label alone;
  const Xbyak::Reg64& count = kEnd;
  code_.mov(kNew, ctx_.frame.slot("flip"));
  code_.mov(kNew, ptr[reg::scratch + kNew * 8 + index * sizeof(PanelRange)]);
  code_.mov(count, ctx_.frame.slot("panels left"));
  code_.lea(kNew, ptr[kNew + count * 4]);
  code_.mov(order_end(ctx_), kNew);
  code_.mov(ctx_.frame.slot("shares panels"), 0);
  code_.cmp(ctx_.arg(offsetof(KernelArgs, participants)), 1);
  code_.jbe(alone, kNear);
  code_.cmp(ctx_.frame.slot("steps left"), 2);
  code_.jb(alone, kNear);
  code_.mov(ctx_.frame.slot("shares panels"), 1);
  keep(count);
  code_.mov(ctx_.frame.slot("panels left"), kFirst);
  code_.cmp(ctx_.frame.slot("steps left"), 3);
  code_.jb(alone, kNear);
  code_.mov(kOther, ctx_.arg(offsetof(KernelArgs, participant)));
  point_word(kOther, index, true);
  code_.mov(kNew, ctx_.frame.slot("step number"));
  code_.inc(kNew);
  offer(count);
  code_.L(alone);
}

/// kFirst and kEnd of kSeen = the word at kWord.
template <class Vmm>
void PanelClaims<Vmm>::split_word() {
  code_.movzx(kFirst.cvt32(), kSeen.cvt16());
  code_.mov(kEnd.cvt32(), kSeen.cvt32());
  code_.shr(kEnd.cvt32(), 16);
  code_.cmp(kFirst.cvt32(), kEnd.cvt32());
}

template <class Vmm>
void PanelClaims<Vmm>::take_others(std::size_t index, const Xbyak::Label& loop) {
  Xbyak::Label own;
  Xbyak::Label others;
  Xbyak::Label inside;
  Xbyak::Label again;
  Xbyak::Label end;
  ctx_.record.note("take a panel that nobody has begun");
  code_.cmp(ctx_.frame.slot("shares panels"), 0);
  code_.je(end, kNear);
  code_.mov(kOther, ctx_.arg(offsetof(KernelArgs, participant)));
  point_word(kOther, index, false);
  code_.mov(kSeen, ptr[kWord]);
  code_.L(own);
  split_word();
  code_.jae(others);
  code_.lea(kNew, ptr[kSeen + disp(Claims::kTakeFirst)]);
  code_.lock();
  code_.cmpxchg(qword[kWord], kNew);
  code_.jne(own);
  code_.mov(kEnd, kFirst);
  run_place(index, loop, true);

  code_.L(others);
  code_.inc(kOther);
  code_.cmp(kOther, ctx_.arg(offsetof(KernelArgs, participants)));
  code_.jb(inside);
  code_.xor_(kOther.cvt32(), kOther.cvt32());
  code_.L(inside);
  code_.cmp(kOther, ctx_.arg(offsetof(KernelArgs, participant)));
  code_.je(end, kNear);
  point_word(kOther, index, false);
  code_.mov(kSeen, ptr[kWord]);
  code_.L(again);
  code_.mov(kNew, kSeen);
  code_.shr(kNew, 32);
  code_.mov(kFirst, ctx_.frame.slot("step number"));
  code_.cmp(kNew.cvt32(), kFirst.cvt32());
  code_.jne(others);
  split_word();
  code_.jae(others);
  code_.mov(kNew, Claims::kTakeLast);
  code_.add(kNew, kSeen);
  code_.lock();
  code_.cmpxchg(qword[kWord], kNew);
  code_.jne(again);
  code_.dec(kEnd);
  run_place(index, loop, false);
  code_.L(end);
}

/// The panel at place kEnd of kOther's order is all that is left.
template <class Vmm>
void PanelClaims<Vmm>::run_place(std::size_t index, const Xbyak::Label& loop, bool own) {
  const int bytes = static_cast<int>(ctx_.plan.stages.size() * sizeof(PanelRange));
  code_.sub(kOther, ctx_.arg(offsetof(KernelArgs, participant)));
  code_.imul(kOther, kOther, bytes);
  code_.add(kOther, ctx_.arg(offsetof(KernelArgs, ranges)));
  code_.mov(kNew, ctx_.frame.slot("flip"));
  code_.mov(kNew, ptr[kOther + kNew * 8 + index * sizeof(PanelRange)]);
  code_.lea(kNew, ptr[kNew + kEnd * 4]);
  code_.mov(ctx_.frame.slot("order"), kNew);
  if (!own) {
    code_.add(kNew, 4);
    code_.mov(order_end(ctx_), kNew);
  }
  code_.mov(ctx_.frame.slot("panels left"), 1);
  code_.jmp(loop, kNear);
}

template <class Vmm>
void PanelClaims<Vmm>::finish_step() {
  if (any()) code_.inc(ctx_.frame.slot("step number"));
}

template class PanelClaims<Xbyak::Ymm>;
template class PanelClaims<Xbyak::Zmm>;

}  // namespace deepcpu::jit
