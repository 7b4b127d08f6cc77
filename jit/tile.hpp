// SPDX-License-Identifier: Apache-2.0
/// The register tile that the parts of the emitter work on, and what stands in which register.
#pragma once

#include "jit/kernel_plan.hpp"

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

/// Whether sums of a unit block of the tile share vectors (Stage::places).
inline bool shares_vectors(const Stage& stage, const Tile& tile, int unit) {
  return !stage.places.empty() && tile.tail != 0 && unit + 1 == tile.units;
}

}  // namespace deepcpu::jit
