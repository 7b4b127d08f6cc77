// SPDX-License-Identifier: Apache-2.0
/// One panel of a stage for any number of rows: the loop over register tiles.
#pragma once

#include "jit/emit_context.hpp"
#include "jit/emit_matmul.hpp"

namespace deepcpu::jit {

template <class Vmm>
class RowTilesEmitter {
 public:
  RowTilesEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& panel)
      : ctx_(ctx), stage_(stage), panel_(panel) {}

  /// At the start of a stage of a kernel for any number of rows: how they are divided.
  static void divide_rows(EmitContext<Vmm>& ctx, const Stage& stage);

  /// All live rows of the panel. Overwrites every register but args, panel and unit.
  void emit();

 private:
  void compare_rows_left(int rows);
  Tile tile(int rows) const { return {rows, panel_.units, panel_.tail}; }

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile panel_;
};

}  // namespace deepcpu::jit
