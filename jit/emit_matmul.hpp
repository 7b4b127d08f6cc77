// SPDX-License-Identifier: Apache-2.0
/// The products of one register tile: rows x one panel, accumulated in registers over all k.
#pragma once

#include <functional>

#include "jit/emit_context.hpp"
#include "jit/emit_sums.hpp"
#include "jit/emit_terms.hpp"
#include "jit/ring_waits.hpp"

namespace deepcpu::jit {

template <class Vmm>
class MatmulEmitter {
 public:
  MatmulEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& tile)
      : ctx_(ctx),
        stage_(stage),
        tile_(tile),
        regs_{static_cast<int>(stage.sums.size()), tile.units, tile.rows},
        sums_(ctx, stage, tile, regs_),
        terms_(ctx, stage, tile) {}

  const TileRegisters& registers() const { return regs_; }
  /// Starts the accumulators, runs all products, gives each sum a register of its own. A tile of
  /// products ahead must be in its registers.
  void emit();
  /// The same for one row, with other code between its steps over k: `next` emits a piece of it
  /// each time it is called, `pieces` times in all.
  void emit_woven(int pieces, std::function<void()> next);

  /// Before emit(), for one row: products of rings that `waits` covers look before they read. It
  /// must outlive this object.
  void wait_with(RingWaits<Vmm>& waits) { waits_ = &waits; }

  /// Whether the product asks for the weights that come next.
  bool fetches(const Product& p) const { return ctx_.fetches && p.fetch > 0 && tile_.rows > 1; }

  /// The parts of emit() for several rows: run() is what comes between start() and part() of these.
  SumsEmitter<Vmm>& sums() { return sums_; }
  void run();
  /// The steps over k from the number at `start` on, `k_block` of them or what is left of the
  /// product, added to the accumulators as they stand. `start` is a multiple of `k_block`.
  void piece(const Product& p, std::uint32_t k_block, const Xbyak::Address& start);

  /// Loads the weights of every product into registers, where they stay for the whole call. The
  /// registers are taken from the top, below the two that broadcasts use.
  static void load_resident(EmitContext<Vmm>& ctx);

  /// At the start of a panel that tiles of several rows walk: finds the panel that comes next.
  static void start_fetch(EmitContext<Vmm>& ctx, const Stage& stage);
  /// Before a piece that begins at the number `start`: finds what comes next.
  void start_fetch(const Product& p, std::uint32_t k_block, const Xbyak::Address& start);

 private:
  static constexpr int kLine = 64;  // bytes of a cache line
  static constexpr int kFour = 4;   // numbers that operand() loads at a time

  void product(const Product& p);
  void note(const Product& p);
  bool waits(const Product& p) const { return waits_ != nullptr && waits_->cover(p); }
  void look(const Product& p, int k, int left, bool indexed);
  int head_steps(const Product& p, int turn) const;
  void point_rows(const Product& p);
  void point_weights(const Product& p, const Xbyak::Reg64& panel = reg::panel);
  void add_offset(const Xbyak::Reg64& to, std::uint64_t bytes);
  void point_fetch(const Product& p, std::uint64_t bytes);
  void fetch(const Product& p, int step);
  /// Of a unit block, within so many steps over k.
  int fetch_bytes(const Product& p, int steps) const { return fetch_lines(p, steps) * kLine; }
  int fetch_lines(const Product& p, int steps) const {
    return steps * static_cast<int>(p.fetch) / static_cast<int>(Product::kFetchSteps);
  }
  Xbyak::Address fetched(const Product& p);
  Xbyak::Address fetch_from(const Product& p);
  Xbyak::Address next_panel(const Product& p);
  template <class End>
  void loop_turns(const Product& p, int turn, const End& end);
  void steps(const Product& p, int first, int count, bool indexed);
  int beats_within(int done, int count) const;
  bool by_four() const;
  Vmm operand(const Product& p, int k, int done, int left, bool indexed);
  void step_one_row(const Product& p, int k, int chain, const Vmm& operand);
  void step_rows(const Product& p, int k, int chain, bool indexed);
  template <class Visit>
  void each_sum(const Product& p, Visit visit);
  void join_chains(const Product& p);
  void clear_chains(const Product& p);
  int accumulator(int row, int unit, int sum, int chain) const;
  int k_bytes(const Product& p) const;
  int unroll(const Product& p) const;
  Xbyak::Address weight(const Product& p, int k, int unit, const Term& term) const;

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile tile_;
  TileRegisters regs_;
  SumsEmitter<Vmm> sums_;
  TermEmitter<Vmm> terms_;
  int pieces_ = 0;  ///< of other code, still to be emitted
  std::function<void()> next_piece_;
  RingWaits<Vmm>* waits_ = nullptr;
};

}  // namespace deepcpu::jit
