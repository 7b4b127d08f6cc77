// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_terms.hpp"

namespace deepcpu::jit {

template <class Vmm>
std::vector<Term> TermEmitter<Vmm>::of(const Product& p, int unit) const {
  constexpr std::uint32_t kLanes = VecCode<Vmm>::kLanes;
  const bool ragged = tile_.tail != 0 && unit + 1 == tile_.units;
  return ragged ? last_terms(stage_, p, kLanes) : terms(p, kLanes);
}

/// Half a vector of AVX-512 does where no more lanes matter: it is half the work on cores that
/// multiply 256 bits at a time (Zen 4), and half the bytes.
template <class Vmm>
bool TermEmitter<Vmm>::half(const Term& term) {
  return VecCode<Vmm>::kAvx512 && term.lanes <= kHalfLanes;
}

template <class Vmm>
void TermEmitter<Vmm>::multiply_add(const Term& term, int acc, int b, int w) {
  if (half(term)) {
    ctx_.code.vfmadd231ps(Xbyak::Ymm(acc), Xbyak::Ymm(b), Xbyak::Ymm(w));
  } else {
    ctx_.code.vfmadd231ps(Vmm(acc), Vmm(b), Vmm(w));
  }
}

template <class Vmm>
void TermEmitter<Vmm>::multiply_add(const Term& term, int acc, int b, const Xbyak::Address& w) {
  if (half(term)) {
    ctx_.code.vfmadd231ps(Xbyak::Ymm(acc), Xbyak::Ymm(b), w);
  } else {
    ctx_.code.vfmadd231ps(Vmm(acc), Vmm(b), w);
  }
}

template <class Vmm>
void TermEmitter<Vmm>::load(const Term& term, int to, const Xbyak::Address& from) {
  if (half(term)) {
    ctx_.code.vmovups(Xbyak::Ymm(to), from);
  } else {
    ctx_.vec.load(Vmm(to), from);
  }
}

template class TermEmitter<Xbyak::Ymm>;
template class TermEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
