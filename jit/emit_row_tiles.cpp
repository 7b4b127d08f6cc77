// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_row_tiles.hpp"

#include <set>
#include <string>
#include <vector>

#include "jit/row_tiles.hpp"

namespace deepcpu::jit {

using Xbyak::util::ptr;
using Xbyak::util::rsp;

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

template <class Vmm>
void RowTilesEmitter<Vmm>::emit() {
  MatmulEmitter<Vmm>::start_fetch(ctx_, stage_);
  ctx_.code.xor_(reg::row.cvt32(), reg::row.cvt32());
  if (cuts()) return groups();
  Xbyak::Label done;
  tiles(nullptr, done);
  ctx_.code.L(done);
}

/// Rows whose sums fit the stack. For each product, and each piece of it, all tiles of the group.
template <class Vmm>
void RowTilesEmitter<Vmm>::groups() {
  Xbyak::Label group;
  Xbyak::Label done;
  ctx_.code.L(group);
  start_group(done);
  for (const Product& p : stage_.products) pieces(p);
  ctx_.code.jmp(group, kNear);
  ctx_.code.L(done);
}

/// As group_rows().
template <class Vmm>
void RowTilesEmitter<Vmm>::start_group(const Xbyak::Label& done) {
  auto& code = ctx_.code;
  const auto most = static_cast<std::uint32_t>(kKeptBytes / row_bytes());
  Xbyak::Label last;
  code.mov(reg::scratch, ctx_.frame.slot("rows"));
  code.sub(reg::scratch, reg::row);
  code.jz(done, kNear);
  code.cmp(reg::scratch, most);
  code.jbe(last);
  code.mov(reg::scratch.cvt32(),
           static_cast<std::uint32_t>(group_rows(most + 1, stage_.tile_rows, most)));
  code.L(last);
  code.add(reg::scratch, reg::row);
  code.mov(ctx_.frame.slot("group end"), reg::scratch);
  code.mov(ctx_.frame.slot("group start"), reg::row);
}

template <class Vmm>
void RowTilesEmitter<Vmm>::pieces(const Product& p) {
  auto& code = ctx_.code;
  Xbyak::Label piece;
  Xbyak::Label done;
  code.mov(piece_start(), 0);
  code.L(piece);
  MatmulEmitter<Vmm>(ctx_, stage_, tile(1)).start_fetch(p, piece_steps(p), piece_start());
  code.mov(reg::row, ctx_.frame.slot("group start"));
  tiles(&p, done);
  code.L(done);
  code.add(piece_start(), piece_steps(p));
  code.cmp(piece_start(), p.k);
  code.jb(piece, kNear);
}

/// Compares reg::scratch, the rows that are left, with those that a tile of `rows` rows needs.
template <class Vmm>
void RowTilesEmitter<Vmm>::compare_rows_left(int rows) {
  if (ctx_.even_tiles && rows == static_cast<int>(stage_.tile_rows)) {
    ctx_.code.cmp(reg::scratch, least_for_full(ctx_, stage_.tile_rows));
  } else {
    ctx_.code.cmp(reg::scratch, imm(rows));
  }
}

/// While rows are left, of the group or of all: the highest tile that they are meant for, with one
/// piece of the product `cut`, or with all products if that is null. Once all have run, the
/// epilogue.
template <class Vmm>
void RowTilesEmitter<Vmm>::tiles(const Product* cut, const Xbyak::Label& done) {
  auto& code = ctx_.code;
  Xbyak::Label loop;
  Xbyak::Label finish;
  const bool finishes = cut == nullptr || cut == &stage_.products.back();
  code.L(loop);
  if (cut != nullptr) {
    code.cmp(reg::row, ctx_.frame.slot("group end"));
    code.je(done, kNear);
  }
  for (const int rows : tile_heights(stage_, ctx_.even_tiles)) {
    Xbyak::Label lower;
    code.mov(reg::scratch, ctx_.frame.slot("rows"));
    code.sub(reg::scratch, reg::row);
    if (rows == 1 && cut == nullptr) code.jz(done, kNear);
    compare_rows_left(rows);
    code.jb(lower, kNear);
    MatmulEmitter<Vmm> products(ctx_, stage_, tile(rows));
    if (cut == nullptr) {
      products.sums().start();
      fetch_rows(rows);
      products.run();
      finish_tile(products, rows, loop, finish);
    } else {
      Xbyak::Label last;
      run_piece(products, *cut, rows);
      if (finishes) {
        code.cmp(piece_start(), (cut->k - 1) / piece_steps(*cut) * piece_steps(*cut));
        code.je(last, kNear);
      }
      keep_sums(products);
      code.add(reg::row, imm(rows));
      code.jmp(loop, kNear);
      code.L(last);
      if (finishes) finish_tile(products, rows, loop, finish);
    }
    code.L(lower);
  }
  if (!finishes || stores_only()) return;
  code.L(finish);
  const TileRegisters registers{static_cast<int>(stage_.sums.size()), panel_.units, 1};
  EpilogueEmitter<Vmm>(ctx_, stage_, tile(1), registers).emit_row_loop();
  code.jmp(loop, kNear);
}

/// The epilogue of a tile whose products have all run, and on to `loop`; or its sums to where the
/// code at `finish`, which follows that of the lowest tile, takes them from row by row.
template <class Vmm>
void RowTilesEmitter<Vmm>::finish_tile(MatmulEmitter<Vmm>& products, int rows,
                                       const Xbyak::Label& loop, const Xbyak::Label& finish) {
  products.sums().part();
  EpilogueEmitter<Vmm> epilogue(ctx_, stage_, tile(rows), products.registers());
  if (stores_only()) {
    epilogue.emit();
    ctx_.code.add(reg::row, imm(rows));
    ctx_.code.jmp(loop, kNear);
    return;
  }
  epilogue.store_tile();
  if (rows > 1) ctx_.code.jmp(finish, kNear);
}

/// At the start of a tile whose products fetch weights: asks for what its epilogue will read, and
/// for the hoisted sums that the tile behind it begins with. Since the last step so many weights
/// may have passed that both have left the L2 cache. Overwrites reg::scratch and reg::pointer[0].
template <class Vmm>
void RowTilesEmitter<Vmm>::fetch_rows(int rows) {
  const MatmulEmitter<Vmm> products(ctx_, stage_, tile(rows));
  if (std::none_of(stage_.products.begin(), stage_.products.end(),
                   [&](const Product& p) { return products.fetches(p); })) {
    return;
  }
  for (const Sum& sum : stage_.sums) {
    const Buffer& from = ctx_.plan.buffers[sum.ref.buffer];
    if (sum.init == Sum::Init::load && from.space == Space::block) fetch_rows(sum.ref, rows, rows);
  }
  for (const Instr& i : stage_.epilogue) {
    const Space space = ctx_.plan.buffers[i.ref.buffer].space;
    if (i.action != Action::load || space == Space::params) continue;
    fetch_rows(i.ref, 0, rows);
  }
}

/// The panel's numbers of `rows` rows, from the one `skipped` rows behind reg::row on.
template <class Vmm>
void RowTilesEmitter<Vmm>::fetch_rows(const Ref& ref, int skipped, int rows) {
  const Xbyak::Reg64& at = reg::pointer[0];
  ctx_.row_pointer(at, ref, reg::row);
  if (skipped > 0) {
    const std::uint64_t stride = ctx_.plan.buffers[ref.buffer].row_stride;
    ctx_.code.mov(reg::scratch, static_cast<std::uint64_t>(skipped) * stride);
    ctx_.code.add(at, reg::scratch);
  }
  for (int row = 0; row < rows; ++row) {
    if (row > 0) ctx_.next_row(at, at, ref, row);
    for (int unit = 0; unit < panel_.units; ++unit) {
      const int offset = static_cast<int>(ref.offset) + unit * ctx_.kBytes;
      ctx_.code.prefetcht1(ptr[at + reg::unit + disp(offset)]);
    }
  }
}

/// The sums begin as they are meant to, or go on from where the piece before left them.
template <class Vmm>
void RowTilesEmitter<Vmm>::run_piece(MatmulEmitter<Vmm>& products, const Product& p, int rows) {
  auto& code = ctx_.code;
  Xbyak::Label kept;
  Xbyak::Label ready;
  if (&p == &stage_.products.front()) {
    code.cmp(piece_start(), 0);
    code.jne(kept, kNear);
    products.sums().start();
    fetch_rows(rows);
    code.jmp(ready, kNear);
  }
  code.L(kept);
  point_kept();
  for (int i = 0; i < products.registers().accumulators(); ++i) {
    ctx_.vec.load(Vmm(i), ptr[reg::weights + disp(i * ctx_.kBytes)]);
  }
  code.L(ready);
  products.piece(p, piece_steps(p), piece_start());
}

template <class Vmm>
void RowTilesEmitter<Vmm>::keep_sums(MatmulEmitter<Vmm>& products) {
  point_kept();
  for (int i = 0; i < products.registers().accumulators(); ++i) {
    ctx_.vec.store(ptr[reg::weights + disp(i * ctx_.kBytes)], Vmm(i));
  }
}

/// reg::weights = where the sums of the tile's rows are kept between two pieces. Overwrites
/// reg::scratch.
template <class Vmm>
void RowTilesEmitter<Vmm>::point_kept() {
  auto& code = ctx_.code;
  const int base = ctx_.frame.vectors("kept", kKeptBytes);
  code.mov(reg::scratch, reg::row);
  code.sub(reg::scratch, ctx_.frame.slot("group start"));
  code.imul(reg::scratch, reg::scratch, row_bytes());
  code.lea(reg::weights, ptr[rsp + reg::scratch + disp(base)]);
}

template class RowTilesEmitter<Xbyak::Ymm>;
template class RowTilesEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
