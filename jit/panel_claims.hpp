// SPDX-License-Identifier: Apache-2.0
/// PanelClaims: the emitted form of Claims, by which participants take panels of each other.
#pragma once

#include <cstddef>

#include "jit/emit_context.hpp"

namespace deepcpu::jit {

template <class Vmm>
class PanelClaims {
 public:
  explicit PanelClaims(EmitContext<Vmm>& ctx) : ctx_(ctx), code_(ctx.code) {}

  /// Whether emitted code lets others take panels of a stage. Epilogues that are woven into the
  /// panel that follows need to know it too early.
  static bool of(const EmitContext<Vmm>& ctx, const Stage& stage) {
    return stage.steals && !ctx.one_row();
  }

  /// At the start of a call, when the frame's step count and parity stand: offers the panels of the
  /// first step.
  void start_call();
  /// Offers the panels of the next step, and lets "panels left" be those that are not for others.
  /// Takes their number from there, and the ranges from reg::scratch, which stays.
  void start_stage(std::size_t index);
  /// Behind the panels that are likely to follow the one at hand.
  static Xbyak::Address order_end(EmitContext<Vmm>& ctx) { return ctx.frame.slot("order end"); }
  /// When no panels are left: goes back to `loop` with one more of its own panels, or one of
  /// another participant; falls through if there is none.
  void take_others(std::size_t index, const Xbyak::Label& loop);
  void finish_step();

 private:
  bool any() const;
  void point_word(const Xbyak::Reg64& participant, std::size_t index, bool next_step);
  void keep(const Xbyak::Reg64& count);
  void offer(const Xbyak::Reg64& count);
  void split_word();
  void run_place(std::size_t index, const Xbyak::Label& loop, bool own);

  EmitContext<Vmm>& ctx_;
  Xbyak::CodeGenerator& code_;
};

}  // namespace deepcpu::jit
