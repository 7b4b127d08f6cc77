// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_row_tiles.hpp"

#include <vector>

#include "jit/emit_epilogue.hpp"
#include "jit/row_tiles.hpp"

namespace deepcpu::jit {

namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;

/// Heights of register tiles: the full one, one less where that may come up, then halves down to
/// one row for what is left over.
std::vector<int> tile_heights(const KernelPlan& plan, const Stage& stage) {
  const auto full = static_cast<int>(stage.tile_rows);
  std::vector<int> heights{full};
  const bool shorter = plan.rows == 0 || shorter_tiles(plan.rows, stage.tile_rows) > 0;
  if (full > 2 && shorter) heights.push_back(full - 1);
  for (int rows = full / 2; rows > 0; rows /= 2) {
    if (rows != heights.back()) heights.push_back(rows);
  }
  return heights;
}
}  // namespace

/// Finds least_for_full(rows of this call, tile_rows).
template <class Vmm>
void RowTilesEmitter<Vmm>::divide_rows(EmitContext<Vmm>& ctx, const Stage& stage) {
  auto& code = ctx.code;
  const std::uint32_t height = stage.tile_rows;
  const Xbyak::Reg64& lack = reg::k;
  const Xbyak::Reg64& least = reg::pointer[0];
  code.mov(reg::scratch, ctx.frame.slot("rows"));
  code.add(reg::scratch, height - 1);
  code.xor_(Xbyak::util::edx, Xbyak::util::edx);
  code.mov(lack.cvt32(), height);
  code.div(lack);  // rax: tiles
  code.imul(lack, reg::scratch, static_cast<int>(height));
  code.sub(lack, ctx.frame.slot("rows"));
  code.cmp(lack, reg::scratch);
  code.mov(least.cvt32(), 0);
  code.cmova(lack, least);
  code.imul(lack, lack, static_cast<int>(height) - 1);
  code.inc(lack);
  code.mov(least.cvt32(), height);
  code.cmp(lack, least);
  code.cmovb(lack, least);
  code.mov(ctx.frame.slot("least for full"), lack);
}

/// Compares reg::scratch, the rows that are left, with those that a tile of `rows` rows needs.
template <class Vmm>
void RowTilesEmitter<Vmm>::compare_rows_left(int rows) {
  auto& code = ctx_.code;
  if (rows < static_cast<int>(stage_.tile_rows)) {
    code.cmp(reg::scratch, imm(rows));
  } else if (ctx_.plan.rows > 0) {
    const std::uint64_t least = least_for_full(ctx_.plan.rows, stage_.tile_rows);
    code.cmp(reg::scratch, static_cast<std::uint32_t>(least));
  } else {
    code.cmp(reg::scratch, ctx_.frame.slot("least for full"));
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
  for (const int rows : tile_heights(ctx_.plan, stage_)) {
    Xbyak::Label lower;
    code.mov(reg::scratch, ctx_.frame.slot("rows"));
    code.sub(reg::scratch, reg::row);
    if (rows == 1) code.jz(done, kNear);
    compare_rows_left(rows);
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
