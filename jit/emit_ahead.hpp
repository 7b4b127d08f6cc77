// SPDX-License-Identifier: Apache-2.0
/// Products of a later block of steps, computed between those of this one (KernelPlan::ahead).
#pragma once

#include "jit/emit_context.hpp"

namespace deepcpu::jit {

/// The tile at hand stays in registers from panel to panel: its sums and a vector of weights below
/// the two that broadcasts use, two pointers in reg::row, which a plan of one row does not need,
/// and in the last of reg::pointer. An epilogue that is woven into products leaves it there; while
/// one runs by itself, and between stages, it waits in the frame.
template <class Vmm>
class AheadEmitter {
 public:
  explicit AheadEmitter(EmitContext<Vmm>& ctx) : ctx_(ctx), code_(ctx.code) {}

  /// At the start of a call: begins the first tile.
  void start();
  /// Before products, if it waits, and before anything that takes its registers. Without products
  /// ahead they emit nothing.
  void resume();
  void pause();
  /// One step over k of the tile at hand. Overwrites reg::scratch at the end of a tile.
  void beat();
  /// At the end of a call: what is left.
  void finish();
  /// The routine at ctx.next_ahead. Behind the code of the kernel.
  void routine();

 private:
  int rows() const { return static_cast<int>(ctx_.plan.ahead->rows); }
  Vmm sum(int row) const { return Vmm(VecCode<Vmm>::kRegisters - 3 - row); }
  Vmm weights() const { return Vmm(VecCode<Vmm>::kRegisters - 3 - rows()); }
  Xbyak::Address saved_sum(int row);
  void load_tile();
  void store_tile();

  EmitContext<Vmm>& ctx_;
  Xbyak::CodeGenerator& code_;
};

}  // namespace deepcpu::jit
