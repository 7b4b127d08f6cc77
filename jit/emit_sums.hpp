// SPDX-License-Identifier: Apache-2.0
/// The sums of one register tile: how they begin, and how those that share vectors are parted.
#pragma once

#include "jit/emit_context.hpp"

namespace deepcpu::jit {

/// One register tile: `rows` rows and the `units` unit blocks of a panel.
struct Tile {
  int rows = 1;
  int units = 1;
  int tail = 0;  ///< valid lanes of the last unit block, 0 = all
  bool operator==(const Tile&) const = default;
};

/// Register numbers of a tile. Accumulators come first, ordered row, unit, gate.
struct TileRegisters {
  int gates = 0;
  int units = 0;
  int rows = 0;
  int accumulator(int row, int unit, int gate) const { return (row * units + unit) * gates + gate; }
  int accumulators() const { return rows * units * gates; }
};

template <class Vmm>
class SumsEmitter {
 public:
  SumsEmitter(EmitContext<Vmm>& ctx, const Stage& stage, const Tile& tile,
              const TileRegisters& registers)
      : ctx_(ctx), stage_(stage), tile_(tile), registers_(registers) {}

  /// Before the products: biases, hoisted sums or zero. Overwrites reg::pointer[0] and
  /// reg::scratch.
  void start();
  /// After all products: gives sums that share a vector in the last unit block (Stage::places) one
  /// each.
  void part();
  /// Whether sums of this unit block share vectors.
  bool shared(int unit) const {
    return !stage_.places.empty() && tile_.tail != 0 && unit + 1 == tile_.units;
  }

 private:
  void start_sum(int gate);
  int part_lanes() const {
    return static_cast<int>(place_lanes(stage_.width, VecCode<Vmm>::kLanes));
  }

  EmitContext<Vmm>& ctx_;
  const Stage& stage_;
  Tile tile_;
  TileRegisters registers_;
};

}  // namespace deepcpu::jit
