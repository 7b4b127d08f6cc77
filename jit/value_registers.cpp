// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "jit/emit_epilogue.hpp"
#include "jit/index.hpp"

namespace deepcpu::jit {

template <class Vmm>
ValueRegisters<Vmm>::ValueRegisters(EmitContext<Vmm>& ctx, const std::vector<EpilogueStep>& code)
    : ctx_(ctx),
      owner_(at(VecCode<Vmm>::kRegisters), kFree),
      where_(code.size(), -1),
      slot_(code.size(), -1),
      uses_(code.size()) {
  for (int r = ctx.resident_begin; r < ctx.resident_end; ++r) reserve(r);
  for (int n = 0; n < static_cast<int>(code.size()); ++n) {
    for (const int arg : {code[at(n)].instr.a, code[at(n)].instr.b, code[at(n)].instr.c}) {
      if (arg >= 0) uses_[at(arg)].push_back(n);
    }
  }
}

template <class Vmm>
void ValueRegisters<Vmm>::place(int value, int reg) {
  owner_[at(reg)] = value;
  where_[at(value)] = reg;
}

/// First use at or after the instruction at hand; infinity if there is none.
template <class Vmm>
int ValueRegisters<Vmm>::next_use(int value) const {
  const auto& uses = uses_[at(value)];
  const auto it = std::lower_bound(uses.begin(), uses.end(), now_);
  return it == uses.end() ? std::numeric_limits<int>::max() : *it;
}

template <class Vmm>
bool ValueRegisters<Vmm>::dies(int value) const {
  return uses_[at(value)].empty() || uses_[at(value)].back() <= now_;
}

template <class Vmm>
Xbyak::Address ValueRegisters<Vmm>::spill_slot(int value) {
  if (slot_[at(value)] < 0) slot_[at(value)] = slots_++;
  const std::string region = "spill" + std::to_string(slot_[at(value)]);
  return Xbyak::util::ptr[Xbyak::util::rsp + disp(ctx_.frame.vectors(region, ctx_.kBytes))];
}

template <class Vmm>
int ValueRegisters<Vmm>::evict() {
  int victim = -1;
  int farthest = now_;
  for (int reg = 0; reg < static_cast<int>(owner_.size()); ++reg) {
    const int value = owner_[at(reg)];
    // A value that the instruction at hand reads has next use now, and stays.
    if (value >= 0 && next_use(value) > farthest) {
      farthest = next_use(value);
      victim = reg;
    }
  }
  if (victim < 0) throw Xbyak::Error(Xbyak::ERR_INTERNAL);
  const int value = owner_[at(victim)];
  if (slot_[at(value)] < 0) ctx_.vec.store(spill_slot(value), Vmm(victim));
  where_[at(value)] = -1;
  return victim;
}

template <class Vmm>
int ValueRegisters<Vmm>::allocate() {
  const auto it = std::find(owner_.begin(), owner_.end(), kFree);
  return it != owner_.end() ? static_cast<int>(it - owner_.begin()) : evict();
}

template <class Vmm>
int ValueRegisters<Vmm>::get(int value) {
  if (where_[at(value)] < 0) {
    const int reg = allocate();
    ctx_.vec.load(Vmm(reg), spill_slot(value));
    place(value, reg);
  }
  return where_[at(value)];
}

template <class Vmm>
int ValueRegisters<Vmm>::define(int value) {
  const int reg = allocate();
  place(value, reg);
  return reg;
}

template <class Vmm>
int ValueRegisters<Vmm>::temporary() {
  const int reg = allocate();
  owner_[at(reg)] = kTemporary;
  return reg;
}

template <class Vmm>
void ValueRegisters<Vmm>::hand_over(int from, int to) {
  const int reg = where_[at(from)];
  where_[at(from)] = -1;
  place(to, reg);
}

template <class Vmm>
void ValueRegisters<Vmm>::begin(int instruction) {
  now_ = instruction;
}

template <class Vmm>
void ValueRegisters<Vmm>::end() {
  for (int& owner : owner_) {
    if (owner >= 0 && dies(owner)) {
      where_[at(owner)] = -1;
      owner = kFree;
    }
  }
}

template class ValueRegisters<Xbyak::Ymm>;
template class ValueRegisters<Xbyak::Zmm>;

}  // namespace deepcpu::jit
