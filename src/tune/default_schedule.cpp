// SPDX-License-Identifier: Apache-2.0
#include "src/tune/default_schedule.hpp"

#include <algorithm>

namespace deepcpu {
namespace {

/// Rows that a hoisted product should have: W is read once per block, so the more rows the fewer
/// bytes per row; beyond a few register tiles little is gained.
constexpr std::int64_t kHoistRows = 32;
/// Share of the L2 cache that hoisted sums may take from recurrent weights that fit there.
constexpr std::int64_t kHoistShare = 8;
/// Rows of the largest register tile.
constexpr std::int64_t kTileRows = 6;
/// Work of a step, in bytes of recurrent weights read, from which two threads pay: below, a step is
/// over in about the time that two exchanges of h between cores take. A byte of W counts half: it
/// is multiplied from registers, at about twice the rate at which U comes from the L2 cache.
constexpr std::int64_t kSharedStepBytes = 160 * 1024;
/// Time steps per block when layers run on different threads: a layer starts a block late, so the
/// blocks are short.
constexpr int kWavefrontBlock = 8;

/// The batch divided into tiles of nearly equal height: 16 rows are 6+5+5, not 6+6+4.
int even_tile(std::int64_t rows) {
  const std::int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  return static_cast<int>((rows + tiles - 1) / tiles);
}

/// Bytes of the weights that are multiplied with something other than the layer's input.
std::int64_t recurrent_bytes(const ModelSpec& spec, int layer) {
  std::int64_t bytes = 0;
  const Cell& cell = spec.cell;
  for (const Node& n : cell.nodes()) {
    if (n.op != Op::matmul || n.a == cell.inputs().front()) continue;
    const Parameter& p = cell.parameters()[static_cast<std::size_t>(n.parameter)];
    bytes += spec.width(p.rows, layer) * spec.width(p.cols, layer) * 4;
  }
  return bytes;
}

/// Numbers per row that hoisting stores: one per unit and product of the layer's input.
std::int64_t hoisted_width(const ModelSpec& spec, int layer) {
  std::int64_t width = 0;
  for (const Node& n : spec.cell.nodes()) {
    if (n.op == Op::matmul && n.a == spec.cell.inputs().front()) width += spec.width(n.dim, layer);
  }
  return width;
}

/// How the threads are used: one direction each needs no exchange inside the time loop; one product
/// shared by all needs one per dependent level; layers on different threads suit small steps.
void choose_threads(const ModelSpec& spec, int cap, Schedule& s) {
  if (cap < 2) return;
  std::int64_t step = 0;
  for (int l = 0; l < spec.layers(); ++l) {
    const std::int64_t input = hoisted_width(spec, l) * spec.width(Dim::input, l) * 4;
    step = std::max(step, recurrent_bytes(spec, l) + input / 2);
  }
  if (spec.directions() == 2) {
    s.threads = 2;
    s.parallel = Parallel::directions;
  } else if (step * spec.batch >= kSharedStepBytes) {
    s.threads = cap;
  } else if (spec.layers() > 1) {
    s.threads = std::min(cap, spec.layers());
    s.parallel = Parallel::wavefront;
  }
}

/// Time steps per block of hoisted products. While the recurrent weights of a thread fit its L2
/// cache, the block must not drive them out; when they do not fit anyway, larger blocks save reads
/// of W.
int hoist_block(const ModelSpec& spec, int layer, int threads, std::uint64_t l2_bytes) {
  const auto l2 = static_cast<std::int64_t>(l2_bytes);
  const std::int64_t wanted = std::max<std::int64_t>(4, kHoistRows / spec.batch);
  const std::int64_t step = std::max<std::int64_t>(1, hoisted_width(spec, layer)) * spec.batch * 4;
  const bool resident = l2 > 0 && recurrent_bytes(spec, layer) <= l2 * threads;
  const std::int64_t fit = resident ? l2 * threads / kHoistShare / step : wanted;
  return static_cast<int>(std::clamp<std::int64_t>(fit, std::min<std::int64_t>(4, wanted), wanted));
}

}  // namespace

Schedule default_schedule(const ModelSpec& spec, Isa isa, int threads, std::uint64_t l2_bytes) {
  Schedule s;
  s.isa = isa;
  choose_threads(spec, threads, s);
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule l;
    l.hoist_block = hoist_block(spec, layer, s.threads, l2_bytes);
    if (s.parallel == Parallel::wavefront) l.hoist_block = std::min(l.hoist_block, kWavefrontBlock);
    l.tile_rows = even_tile(spec.batch);
    l.hoist_rows = static_cast<int>(kTileRows);
    s.layers.push_back(l);
  }
  return s;
}

}  // namespace deepcpu
