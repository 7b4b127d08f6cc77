// SPDX-License-Identifier: Apache-2.0
/// The element-wise part of a stage for columns, each a row and a unit block: straight-line code
/// from a list of instructions, with registers assigned as it goes.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "jit/emit_context.hpp"
#include "jit/emit_matmul.hpp"
#include "jit/epilogue_order.hpp"

namespace deepcpu::jit {

/// Registers for the values of one epilogue. A value is in a register, in its spill slot, or not
/// computed yet. When registers run out, the value whose next use is farthest away is spilled.
template <class Vmm>
class ValueRegisters {
 public:
  ValueRegisters(EmitContext<Vmm>& ctx, const std::vector<EpilogueStep>& code);

  /// Takes a register out of use for this epilogue (it holds something else).
  void reserve(int reg) { owner_[static_cast<std::size_t>(reg)] = kReserved; }
  /// Value `value` already is in `reg`.
  void place(int value, int reg);
  /// Register that holds the value, loaded back if it was spilled.
  int get(int value);
  /// A register for a value defined by the instruction at hand.
  int define(int value);
  /// A register free until release(); it holds nothing.
  int temporary();
  void release(int reg) { owner_[static_cast<std::size_t>(reg)] = kFree; }
  /// Hands the register of `from`, which dies here, over to `to`.
  void hand_over(int from, int to);
  /// Keeps the operands of the instruction at hand in their registers.
  void begin(int instruction);
  /// Frees the registers of values that are not used after the instruction at hand.
  void end();
  bool dies(int value) const;

 private:
  static constexpr int kFree = -1;
  static constexpr int kReserved = -2;
  static constexpr int kTemporary = -3;

  int next_use(int value) const;
  int allocate();
  int evict();
  Xbyak::Address spill_slot(int value);

  EmitContext<Vmm>& ctx_;
  std::vector<int> owner_;              ///< per register: value, kFree, kReserved, kTemporary
  std::vector<int> where_;              ///< per value: register or -1
  std::vector<int> slot_;               ///< per value: spill slot or -1
  std::vector<std::vector<int>> uses_;  ///< per value: instructions that read it
  int now_ = 0;
  int slots_ = 0;
};

/// Registers that an epilogue may not use, because it is woven into the products of the next panel.
struct Surroundings {
  Xbyak::Reg64 unit = reg::unit;  ///< holds the byte offset of this panel's first unit
  int pointers = 0;               ///< pointer registers in use, from the first on
  int last_pointers = 0;          ///< and from the last on
  int low_vectors = 0;            ///< vector registers in use, from 0 on
  int high_vectors = 0;           ///< and from the top
};

/// A row and unit block of a tile, while its epilogue is emitted.
struct Column {
  Xbyak::Reg64 row;  ///< holds the row's number
  int unit = 0;
  int tile_row = 0;  ///< which row of the tile it is
};

template <class Vmm>
class EpilogueEmitter {
 public:
  EpilogueEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& tile,
                  const TileRegisters& regs, const Surroundings& around = {})
      : ctx_(ctx), stage_(stage), tile_(tile), regs_(regs), around_(around) {}

  /// Columns that are emitted together where there is room for the code (DESIGN.md, decision 28).
  static constexpr int kMostColumns = VecCode<Vmm>::kAvx512 ? 3 : 2;

  /// Whether the epilogue only stores sums: then it is short enough to be emitted for every row.
  static bool only_stores(const Stage& stage);

  /// For every row and unit block of the tile, with the sums still in registers. Only for one row,
  /// or when the epilogue only stores.
  void emit();
  /// The same in two parts, through memory: first the accumulators are stored, then a loop takes
  /// some rows at a time, with code that tiles of all heights share. Products of several rows take
  /// far longer than this detour, and the code would be several times as large without it.
  void store_tile();
  void emit_row_loop();
  /// The only row of a stored tile, an instruction of the plan at a time, in the order of
  /// by_waves(): `pieces` calls.
  void emit_next();
  int pieces() const { return tile_.units * static_cast<int>(stage_.epilogue.size()); }

 private:
  /// Where the sums of an epilogue are: accumulators, or stored by store_tile().
  enum class Sums : std::uint8_t { registers, memory };

  void emit_stored_rows(int rows);
  void emit_units(const Xbyak::Reg64& row, int tile_row);
  void begin_columns(std::vector<Column> columns, Sums sums);
  void emit_columns(std::vector<Column> columns, Sums sums);
  Xbyak::Address stored_sum(const Column& column, int gate) const;
  void emit_instr(int n);
  void emit_sum(int n, const Column& column);
  void emit_element(int n);
  void emit_fma(int n);
  void emit_quiet(int n);
  void emit_load(const Vmm& dst, const Instr& i, const Column& column);
  bool stored_by_host(const Instr& store, int unit) const;
  void emit_store(const Instr& i, const Column& column);
  /// Register with the address of `row` in the buffer, kept for the row's other unit blocks.
  Xbyak::Reg64 pointer(const Ref& ref, const Xbyak::Reg64& row);
  bool masked(const Ref& ref, int unit) const;

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile tile_;
  TileRegisters regs_;
  Surroundings around_;
  std::vector<std::tuple<std::uint16_t, bool, int>> pointers_;  ///< (buffer, next, row) of each
  std::vector<Column> columns_;                                 ///< that are emitted together
  std::vector<EpilogueStep> code_;                              ///< of these
  Sums sums_ = Sums::registers;                                 ///< of these
  std::optional<ValueRegisters<Vmm>> values_;                   ///< of these
  int next_ = 0;                                                ///< piece that emit_next is to emit
};

}  // namespace deepcpu::jit
