// SPDX-License-Identifier: Apache-2.0
/// The outer loops of a kernel: time steps, stages, panels.
#pragma once

#include <list>

#include "jit/emit_context.hpp"
#include "jit/emit_matmul.hpp"
#include "jit/ring_waits.hpp"

namespace deepcpu::jit {

template <class Vmm>
class TimestepEmitter {
 public:
  explicit TimestepEmitter(EmitContext<Vmm>& ctx) : ctx_(ctx), code_(ctx.code) {}

  /// The whole kernel, from `push rbp` to the last constant.
  void emit();

 private:
  using Reg = Xbyak::Reg64;

  void prologue();
  void touch_stack();
  void epilogue();
  void start_call();
  void start_step(const Xbyak::Label& done);
  void finish_step();
  void stage(std::size_t index);
  void point_ring(std::uint16_t id);
  void take_panel(const Tile& full);
  void panels(std::size_t index, const Tile& full, const Tile& last);
  void woven_panels(const Stage& stage, const Tile& full, const Tile& last);
  void woven_panel(const Stage& stage, const Tile& full);
  void panel(const Stage& stage, const Tile& tile);
  void mark(const Stage& stage, const Tile& tile, int temp = 0);
  bool weaves(const Stage& stage) const;
  bool waits_late(const Stage& stage) const;
  void begin_stage(const Stage& stage);
  void first_products(const Stage& stage, const Tile& tile, MatmulEmitter<Vmm>& products);
  void end_stage(const Stage& stage, Xbyak::Label& idle, const Xbyak::Label& end);
  void single_row(const Stage& stage, const Tile& tile);

  EmitContext<Vmm>& ctx_;
  Xbyak::CodeGenerator& code_;
  bool late_ = false;                ///< the first panel of the stage at hand looks at rings
  std::list<RingWaits<Vmm>> waits_;  ///< of that stage, to be finished behind its panels
  std::size_t frame_size_at_ = 0;    ///< offset of the immediate that is patched at the end
};

/// Waits until all units of all live rows of a ring have been written. With one participant it
/// falls through. Overwrites every register but args.
template <class Vmm>
void emit_poll(EmitContext<Vmm>& ctx, const Ref& ring);

/// Fetches all live rows of a buffer that others have written. With one participant it falls
/// through. Overwrites what emit_poll overwrites.
template <class Vmm>
void emit_gather(EmitContext<Vmm>& ctx, const Ref& ref);

/// Publishes that this participant has finished a stage and waits for the others. With one
/// participant it falls through.
template <class Vmm>
void emit_exchange(EmitContext<Vmm>& ctx);

}  // namespace deepcpu::jit
