// SPDX-License-Identifier: Apache-2.0
#include "src/tune/default_schedule.hpp"

#include <algorithm>

namespace deepcpu {
namespace {

/// Rows that a hoisted product should have: W is read once per block, so the more rows the fewer
/// bytes per row; beyond a few register tiles nothing is gained and the block only takes cache.
constexpr std::int64_t kHoistRows = 32;
/// Rows of the largest register tile.
constexpr std::int64_t kTileRows = 6;

/// The batch divided into tiles of nearly equal height: 16 rows are 6+5+5, not 6+6+4.
int even_tile(std::int64_t rows) {
  const std::int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  return static_cast<int>((rows + tiles - 1) / tiles);
}

}  // namespace

Schedule default_schedule(const ModelSpec& spec, Isa isa, int threads) {
  Schedule s;
  s.isa = isa;
  s.threads = std::min(threads, 1);
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule l;
    l.hoist_block = static_cast<int>(std::max<std::int64_t>(4, kHoistRows / spec.batch));
    l.tile_rows = even_tile(spec.batch);
    l.hoist_rows = static_cast<int>(kTileRows);
    s.layers.push_back(l);
  }
  return s;
}

}  // namespace deepcpu
