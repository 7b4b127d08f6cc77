// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_row_tiles.hpp"

#include <set>
#include <string>
#include <vector>

#include "jit/emit_epilogue.hpp"
#include "jit/row_tiles.hpp"

namespace deepcpu::jit {

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;

/// Heights of register tiles: the full one, one less, then halves down to one row for what is left
/// over.
std::vector<int> tile_heights(const Stage& stage, bool even) {
  const auto full = static_cast<int>(stage.tile_rows);
  std::vector<int> heights{full};
  if (even && full > 2) heights.push_back(full - 1);
  for (int rows = full / 2; rows > 0; rows /= 2) {
    if (rows != heights.back()) heights.push_back(rows);
  }
  return heights;
}
}  // namespace

template <class Vmm>
Xbyak::Address RowTilesEmitter<Vmm>::least_for_full(EmitContext<Vmm>& ctx, std::uint32_t height) {
  return ctx.frame.slot("least for " + std::to_string(height));
}

/// least_for_full(live rows, height) of every height.
template <class Vmm>
void RowTilesEmitter<Vmm>::divide_rows(EmitContext<Vmm>& ctx) {
  if (ctx.one_row() || !ctx.even_tiles) return;
  auto& code = ctx.code;
  const auto tiles = reg::scratch.cvt32();
  const auto lack = reg::k.cvt32();
  const auto zero = Xbyak::util::edx;
  std::set<std::uint32_t> heights;
  for (const Stage& stage : ctx.plan.stages) heights.insert(stage.tile_rows);
  for (const std::uint32_t height : heights) {
    code.mov(reg::scratch, ctx.frame.slot("rows"));
    code.add(reg::scratch, height - 1);
    code.xor_(zero, zero);
    code.mov(lack, height);
    code.div(lack);
    code.imul(lack, tiles, static_cast<int>(height));
    code.mov(zero, 0);
    code.sub(reg::k, ctx.frame.slot("rows"));
    code.cmp(lack, tiles);
    code.cmova(lack, zero);
    code.imul(lack, lack, static_cast<int>(height) - 1);
    code.inc(lack);
    code.mov(tiles, height);
    code.cmp(lack, tiles);
    code.cmovb(lack, tiles);
    code.mov(least_for_full(ctx, height), reg::k);
  }
}

/// While rows are left: the highest tile that they are meant for.
template <class Vmm>
void RowTilesEmitter<Vmm>::emit() {
  auto& code = ctx_.code;
  Xbyak::Label loop;
  Xbyak::Label done;
  Xbyak::Label finish;
  const bool direct = EpilogueEmitter<Vmm>::only_stores(stage_);
  MatmulEmitter<Vmm>::start_fetch(ctx_, stage_);
  code.xor_(reg::row.cvt32(), reg::row.cvt32());
  code.L(loop);
  for (const int rows : tile_heights(stage_, ctx_.even_tiles)) {
    Xbyak::Label lower;
    code.mov(reg::scratch, ctx_.frame.slot("rows"));
    code.sub(reg::scratch, reg::row);
    if (rows == 1) code.jz(done, kNear);
    if (ctx_.even_tiles && rows == static_cast<int>(stage_.tile_rows)) {
      code.cmp(reg::scratch, least_for_full(ctx_, stage_.tile_rows));
    } else {
      code.cmp(reg::scratch, imm(rows));
    }
    code.jb(lower, kNear);
    MatmulEmitter<Vmm> products(ctx_, stage_, tile(rows));
    products.emit();
    EpilogueEmitter<Vmm> epilogue(ctx_, stage_, tile(rows), products.registers());
    if (direct) {
      epilogue.emit();
      code.add(reg::row, imm(rows));
      code.jmp(loop, kNear);
    } else {
      epilogue.store_tile();
      if (rows > 1) code.jmp(finish, kNear);
    }
    code.L(lower);
  }
  if (!direct) {
    code.L(finish);
    const TileRegisters registers{static_cast<int>(stage_.sums.size()), panel_.units, 1};
    EpilogueEmitter<Vmm>(ctx_, stage_, tile(1), registers).emit_row_loop();
    code.jmp(loop, kNear);
  }
  code.L(done);
}

template class RowTilesEmitter<Xbyak::Ymm>;
template class RowTilesEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
