// SPDX-License-Identifier: Apache-2.0
/// The sums of one register tile: how they begin, and how those that share vectors are parted.
#pragma once

#include "jit/emit_context.hpp"
#include "jit/tile.hpp"

namespace deepcpu::jit {

template <class Vmm>
class SumsEmitter {
 public:
  SumsEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& tile,
              const TileRegisters& registers)
      : ctx_(ctx), stage_(stage), tile_(tile), registers_(registers) {}

  /// Before the products: biases, hoisted sums or zero. Overwrites reg::pointer[0] and
  /// reg::scratch.
  void start();
  /// After all products: gives sums that share a vector in the last unit block (Stage::places) one
  /// each, unless the stage keeps them so.
  void part();

 private:
  void start_sum(int gate);

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile tile_;
  TileRegisters registers_;
};

}  // namespace deepcpu::jit
