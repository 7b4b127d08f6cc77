// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_terms.hpp"

#include <algorithm>

namespace deepcpu::jit {

template <class Vmm>
std::vector<Term> TermEmitter<Vmm>::of(const Product& p, int unit) const {
  std::vector<Term> out;
  const bool ragged = tile_.tail != 0 && unit + 1 == tile_.units;
  for (std::size_t gate = 0; gate < p.gate.size(); ++gate) {
    Term term{static_cast<int>(p.gate[gate]), static_cast<int>(p.sum[gate]),
              ragged ? tile_.tail : VecCode<Vmm>::kLanes};
    if (shares_vectors(stage_, tile_, unit)) {
      const Place& place = stage_.places[p.sum[gate]];
      term.vector = static_cast<int>(p.last[gate]) / VecCode<Vmm>::kLanes;
      term.sum = static_cast<int>(place.host);
      term.lanes = static_cast<int>(place.lane + place_lanes(stage_.width, VecCode<Vmm>::kLanes));
    }
    const auto there =
        std::find_if(out.begin(), out.end(), [&](const Term& t) { return t.sum == term.sum; });
    if (there == out.end()) {
      out.push_back(term);
    } else {
      there->lanes = std::max(there->lanes, term.lanes);
    }
  }
  return out;
}

/// Half a vector of AVX-512 does where no more lanes matter: it is half the work on cores that
/// multiply 256 bits at a time (Zen 4), and half the bytes.
template <class Vmm>
bool TermEmitter<Vmm>::half(const Term& term) {
  return VecCode<Vmm>::kAvx512 && term.lanes <= VecCode<Vmm>::kLanes / 2;
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
