// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_terms.hpp"

namespace deepcpu::jit {

template <class Vmm>
std::vector<Term> TermEmitter<Vmm>::of(const Product& p, int unit) const {
  constexpr std::uint32_t kLanes = VecCode<Vmm>::kLanes;
  const bool ragged = tile_.tail != 0 && unit + 1 == tile_.units;
  return ragged ? last_terms(stage_, p, kLanes) : terms(p, kLanes);
}

template <class Vmm>
void TermEmitter<Vmm>::multiply_add(const Term& term, int acc, int b, int w) {
  if (term.half(VecCode<Vmm>::kLanes)) {
    ctx_.code.vfmadd231ps(Xbyak::Ymm(acc), Xbyak::Ymm(b), Xbyak::Ymm(w));
  } else {
    ctx_.code.vfmadd231ps(Vmm(acc), Vmm(b), Vmm(w));
  }
}

template <class Vmm>
void TermEmitter<Vmm>::multiply_add(const Term& term, int acc, int b, const Xbyak::Address& w) {
  if (term.half(VecCode<Vmm>::kLanes)) {
    ctx_.code.vfmadd231ps(Xbyak::Ymm(acc), Xbyak::Ymm(b), w);
  } else {
    ctx_.code.vfmadd231ps(Vmm(acc), Vmm(b), w);
  }
}

template <class Vmm>
void TermEmitter<Vmm>::load(const Term& term, int to, const Xbyak::Address& from) {
  if (term.half(VecCode<Vmm>::kLanes)) {
    ctx_.code.vmovups(Xbyak::Ymm(to), from);
  } else {
    ctx_.vec.load(Vmm(to), from);
  }
}

template class TermEmitter<Xbyak::Ymm>;
template class TermEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
