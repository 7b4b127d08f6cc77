// SPDX-License-Identifier: Apache-2.0
/// The vectors of weights that one step over k reads, and the multiply-adds with them.
#pragma once

#include <vector>

#include "jit/emit_context.hpp"
#include "jit/tile.hpp"

namespace deepcpu::jit {

template <class Vmm>
class TermEmitter {
 public:
  TermEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& tile)
      : ctx_(ctx), stage_(stage), tile_(tile) {}

  /// Of a unit block of the tile.
  std::vector<Term> of(const Product& p, int unit) const;
  /// Of one k in all unit blocks.
  int count(const Product& p) const {
    std::size_t count = 0;
    for (int unit = 0; unit < tile_.units; ++unit) count += of(p, unit).size();
    return static_cast<int>(count);
  }
  /// acc += b * w; all are numbers of registers, or w is in memory. Half a vector is half the work
  /// on cores that multiply 256 bits at a time (Zen 4).
  void multiply_add(const Term& term, int acc, int b, int w);
  void multiply_add(const Term& term, int acc, int b, const Xbyak::Address& w);
  void load(const Term& term, int to, const Xbyak::Address& from);

 private:
  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile tile_;
};

}  // namespace deepcpu::jit
