// SPDX-License-Identifier: Apache-2.0
/// One panel of a stage for any number of rows: the loops over register tiles, and over pieces of k
/// where the plan wants them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "jit/emit_context.hpp"
#include "jit/emit_epilogue.hpp"
#include "jit/emit_matmul.hpp"

namespace deepcpu::jit {

/// Bytes on the stack for the sums of a group of rows between two pieces. With 4 gates of 16 lanes
/// they are those of 80 rows, which read their panel from beyond L1 once.
inline constexpr int kKeptBytes = 20 * 1024;

template <class Vmm>
class RowTilesEmitter {
 public:
  RowTilesEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& panel)
      : ctx_(ctx), stage_(stage), panel_(panel) {}

  /// Once the number of live rows is known, and whenever it has changed: how they are divided, for
  /// all stages of a kernel for several rows. Overwrites reg::scratch, reg::k and rdx.
  static void divide_rows(EmitContext<Vmm>& ctx);

  /// All live rows of the panel. Overwrites every register but args, panel and unit.
  void emit();

 private:
  /// Whether tiles pass over the stage's panels piece by piece.
  bool cuts() const {
    return ctx_.pieces && std::any_of(stage_.products.begin(), stage_.products.end(),
                                      [](const Product& p) { return p.k_block > 0; });
  }
  void groups();
  void start_group(const Xbyak::Label& done);
  void pieces(const Product& p);
  void tiles(const Product* cut, const Xbyak::Label& done);
  void finish_tile(MatmulEmitter<Vmm>& products, int rows, const Xbyak::Label& loop,
                   const Xbyak::Label& finish);
  bool stores_only() const { return EpilogueEmitter<Vmm>::only_stores(stage_); }
  void compare_rows_left(int rows);
  void fetch_rows(int rows);
  void fetch_rows(const Ref& ref, int skipped, int rows);
  void run_piece(MatmulEmitter<Vmm>& products, const Product& p, int rows);
  void keep_sums(MatmulEmitter<Vmm>& products);
  void point_kept();
  /// Of the sums of one row.
  int row_bytes() const {
    return panel_.units * static_cast<int>(stage_.sums.size()) * EmitContext<Vmm>::kBytes;
  }
  /// A product that is not cut is one piece.
  static std::uint32_t piece_steps(const Product& p) {
    return p.k_block > 0 ? p.k_block : (p.k + 15) / 16 * 16;
  }
  Xbyak::Address piece_start() { return ctx_.frame.slot("piece start"); }
  /// What a tile of the stage's full height needs to be left.
  static Xbyak::Address least_for_full(EmitContext<Vmm>& ctx, std::uint32_t height);
  Tile tile(int rows) const { return {rows, panel_.units, panel_.tail}; }

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile panel_;
};

}  // namespace deepcpu::jit
