// SPDX-License-Identifier: Apache-2.0
/// Lowering: from a cell's normal form and a LayerSchedule to KernelPlans.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"
#include "jit/kernel_plan.hpp"
#include "src/lower/pack_layout.hpp"
#include "src/lower/panel_width.hpp"
#include "src/lower/step_graph.hpp"

namespace deepcpu::lower {

/// What a buffer of a plan stands for; the executor binds memory by it.
enum class Role : std::uint8_t {
  input,    ///< index: input of the cell
  output,   ///< y
  state,    ///< index: state of the cell
  scratch,  ///< values that cross from one stage to a later one
  hoisted,  ///< sums of x·W computed ahead of the time loop
  params,   ///< packed vectors
};

struct BufferRole {
  Role role = Role::scratch;
  int index = 0;
};

/// A plan with the meaning of its buffers, in the same order, and what its panels would be for
/// other participants, per stage.
struct BoundPlan {
  jit::KernelPlan plan;
  std::vector<BufferRole> roles;
  std::vector<PanelWidth> widths;
};

/// One hoisted sum, as tiles of products ahead of the time loop take it (jit::Ahead). Offsets in
/// bytes: `weights` and `init` from the packed weights, `to` from a row of hoisted sums.
struct AheadSum {
  std::size_t stage = 0;     ///< of the hoisted plan
  std::uint32_t blocks = 0;  ///< unit blocks; the stage's last one may be in another sum's vector
  std::uint64_t weights = 0;
  std::uint64_t last_weights = 0;          ///< of the last one of `blocks`
  std::uint64_t block_stride = 0;          ///< from one unit block to the next
  std::uint64_t weight_stride = 0;         ///< from one k to the next
  std::uint32_t k = 0;                     ///< numbers of a row of the operand
  std::uint32_t chains = 1;                ///< partial sums: k goes to chain k % chains
  std::optional<std::uint64_t> init;       ///< none: the sum starts at zero
  std::optional<std::uint64_t> last_init;  ///< in its place for the last one of `blocks`
  std::uint64_t to = 0;
};

/// The kernels of one layer and direction.
struct LayerPlans {
  BoundPlan step;                  ///< the time loop
  std::optional<BoundPlan> hoist;  ///< x·W of a block of steps; its rows are (step, batch row)
  std::uint64_t hoisted_row = 0;   ///< bytes of one row of hoisted sums
  /// With hoist_ahead: the time loop that computes the hoisted sums of the next block, too.
  std::optional<BoundPlan> ahead;
  std::vector<AheadSum> ahead_sums;
};

/// Rows of a tile of products ahead. A tile reads W once for all its rows, so it has the more where
/// the layer's own hoist_block is a multiple of them and a panel has at most kHighAheadSums sums in
/// registers; then a woven epilogue has five left, just what a function takes.
inline constexpr std::uint32_t kAheadRows = 8;
inline constexpr std::uint32_t kHighAheadRows = 16;
inline constexpr std::uint32_t kHighAheadSums = 8;
constexpr std::uint32_t ahead_rows(std::int64_t hoist_block, std::uint32_t sums = 0) {
  const bool high = hoist_block % kHighAheadRows == 0 && sums <= kHighAheadSums;
  return high ? kHighAheadRows : kAheadRows;
}
/// Most multiply-adds ahead for one of the time loop's.
inline constexpr std::uint32_t kMostAheadPace = 4;

/// A product's part of a panel that is larger than this is cut into pieces of about so many bytes,
/// of which each stays in an L1 cache of 32 or 48 KiB beside the rows and sums that pass. Pieces of
/// 32 KiB gain less (lstm i256h256b16 0.98 of the time instead of 0.95).
inline constexpr std::uint64_t kWholePanel = 32 * 1024;
inline constexpr std::uint64_t kPieceOfPanel = 24 * 1024;

/// The participants that divide a layer's panels, and how they hand numbers over to each other.
/// The unit blocks of a stage are cut into shares of share_units() each; of s shares participant p
/// of n owns those from s * p / n up to s * (p + 1) / n, in every stage of that width, the hoisted
/// products included.
struct Sharing {
  std::uint32_t participants = 1;
  Exchange exchange = Exchange::flag;
  bool hoisters = false;  ///< other participants compute hoisted products (Parallel::hoist)
};

/// Panels of hoisted products that together store whole cache lines: those of one gate lie side by
/// side, `units` unit blocks each.
inline std::uint32_t panels_per_line(std::uint32_t lanes, std::uint32_t units) {
  constexpr std::uint32_t kNumbers = 64 / sizeof(float);
  return kNumbers / std::gcd(kNumbers, lanes * units);
}
/// Into how many parts at most so many panels can be divided without a line in two parts.
inline std::uint32_t most_panel_parts(std::uint32_t panels, std::uint32_t lanes,
                                      std::uint32_t units) {
  const std::uint32_t together = panels_per_line(lanes, units);
  return (panels + together - 1) / together;
}

/// Unit blocks that belong to one participant together: the widest panel of the stages of `step`
/// that have this width. The panels of all stages of the width end where shares do.
std::uint32_t share_units(const jit::KernelPlan& step, std::uint32_t width);
/// The same for any number of participants, if panels are narrow: as PanelWidth::narrow.
PanelWidth share_width(const BoundPlan& step, std::uint32_t width);
/// Shares of a stage of `step`: no more participants can divide it.
std::uint32_t shares(const jit::KernelPlan& step, std::uint32_t width);

/// Whether a step has products that can leave the time loop.
bool hoists(const StepGraph& graph);

/// What a layer is lowered from.
struct LayerInput {
  const Cell& cell;
  const StepGraph& graph;    ///< of the cell
  const Widths& widths;      ///< of the layer
  const PackLayout& layout;  ///< of cell, graph and widths, for the lanes of `isa`
  const LayerSchedule& schedule;
  Isa isa;
  std::uint32_t batch;  ///< rows of one group of participants
  Sharing sharing;
};

/// Lowers one layer; its plans are called `name` and what they are for. Errors name the field of
/// the schedule that cannot be honoured.
Result<LayerPlans> lower_layer(const LayerInput& in, const std::string& name);

/// Accumulator vectors of one unit block and row of a stage.
std::uint32_t row_vectors(const jit::Stage& stage);
/// The largest legal tile_rows of a stage with `vectors` accumulator vectors.
std::uint32_t max_tile_rows(Isa isa, std::uint32_t vectors);

}  // namespace deepcpu::lower
