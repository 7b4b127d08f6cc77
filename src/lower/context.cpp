// SPDX-License-Identifier: Apache-2.0
#include "src/lower/context.hpp"

#include <bit>

#include "jit/element_ops.hpp"
#include "jit/row_tiles.hpp"

namespace deepcpu::lower {

using jit::Stage;
using jit::Sum;

namespace {
/// Sums that the multiply-adds of a panel go to in turn. An FMA takes four cycles, so four sums
/// keep one multiply-add a cycle busy (AVX-512 on Zen 4), eight two of them (AVX2; AVX-512 on
/// Xeons). DESIGN.md, decision 3, says what else depends on it.
constexpr std::uint32_t kNarrowPanel = 4;
constexpr std::uint32_t kWidePanel = 8;
/// Registers that the sums of one row may take: half of AVX2's, so that the epilogue has some left;
/// of AVX-512's so many that a tile of two rows still fits, and an epilogue between products, those
/// ahead in tiles of eight rows included (11 registers), has nine. With AVX2 such an epilogue has
/// six (two broadcast), just what a function takes whose operand lives on.
constexpr std::uint32_t kPanelRegisters256 = 8;
constexpr std::uint32_t kPanelRegisters512 = 12;
}  // namespace

bool hoistable(const StepGraph& graph, const SumProduct& p) {
  const Expr& e = graph.exprs[at(p.operand)];
  return e.kind == Kind::input && e.index == 0;
}

bool has_hoistable(const StepGraph& graph, const SumExpr& sum) {
  return std::any_of(sum.products.begin(), sum.products.end(),
                     [&](const SumProduct& p) { return hoistable(graph, p); });
}

bool wholly_hoisted(const StepGraph& graph, const SumExpr& sum) {
  return std::all_of(sum.products.begin(), sum.products.end(),
                     [&](const SumProduct& p) { return hoistable(graph, p); });
}

HoistLayout hoist_layout(const StepGraph& graph, const Widths& widths, bool hoist) {
  HoistLayout layout;
  layout.offset.assign(graph.sums.size(), -1);
  for (std::size_t s = 0; hoist && s < graph.sums.size(); ++s) {
    if (!has_hoistable(graph, graph.sums[s])) continue;
    layout.offset[s] = static_cast<std::int64_t>(layout.row);
    layout.row += row_bytes(widths.of(graph.exprs[at(graph.sums[s].expr)].dim));
  }
  if (layout.row > 0) layout.row = off_page(layout.row);
  return layout;
}

std::uint32_t chains_of(const FusedStage& stage, std::uint32_t k) {
  constexpr std::uint32_t kShort = 16;  // below, joining the chains costs what they save
  return stage.sums.size() == 1 && k >= kShort ? 2 : 1;
}

Sum initial_sum(const Context& ctx, int sum, std::uint16_t params) {
  Sum s;
  s.note = ctx.graph.exprs[at(ctx.graph.sums[at(sum)].expr)].name;
  const PackedVector& bias = ctx.layout.sum_bias[at(sum)];
  if (!bias.parameters.empty()) {
    s.init = Sum::Init::load;
    s.ref = {params, false, bias.offset};
  }
  return s;
}

std::vector<jit::Place> places_of(const Context& ctx, const FusedStage& stage,
                                  const std::vector<SharedSums>& groups,
                                  const std::vector<int>& position, bool hoist) {
  const std::uint32_t lanes = ctx.layout.lanes;
  const std::uint32_t units = stage.width % lanes;
  const std::uint64_t before = (stage.width - units) * sizeof(float);
  std::vector<jit::Place> places;
  for (const SharedSums& group : groups) {
    const auto own = [&](std::size_t i) { return position[at(group.sums[i])]; };
    const auto sum_of = [&](std::uint32_t lane) {
      return static_cast<std::uint32_t>(own(lane / lanes));
    };
    for (std::size_t i = 0; i < group.sums.size(); ++i) {
      if ((own(i) < 0) != (own(0) < 0)) return {};
      if (own(i) < 0) continue;
      const std::uint32_t lane = static_cast<std::uint32_t>(i) * group.part;
      const std::int64_t hoisted = hoist ? -1 : ctx.hoist.offset[at(group.sums[i])];
      places.resize(std::max(places.size(), at(own(i)) + 1));
      places[at(own(i))] = {sum_of(lane), sum_of(lane + units - 1), lane % lanes,
                            hoisted >= 0 ? static_cast<std::uint64_t>(hoisted)
                                         : group.biases + i * lanes * sizeof(float) - before};
    }
  }
  return places;
}

namespace {

/// What decides how many unit blocks a panel of a stage takes.
struct PanelNeeds {
  std::uint32_t blocks = 0;       ///< of the whole stage
  std::uint32_t together = 1;     ///< sums of one unit block that a step over k or two adds to
  std::uint32_t chains = 1;       ///< of one sum
  std::uint32_t sums = 1;         ///< registers that hold sums of one unit block
  std::uint64_t block_bytes = 0;  ///< of the weights of one unit block
};

PanelNeeds panel_needs(const Stage& stage, std::uint32_t lanes) {
  PanelNeeds n;
  n.blocks = unit_blocks(stage.width, lanes);
  n.sums = static_cast<std::uint32_t>(stage.sums.size());
  for (const jit::Product& p : stage.products) {
    const auto gates = static_cast<std::uint32_t>(p.gate.size());
    n.together = std::max(n.together, gates * p.chains);
    n.chains = std::max(n.chains, p.chains);
    n.sums = std::max(n.sums, gates * p.chains);
    n.block_bytes = std::max(n.block_bytes, p.block_stride);
  }
  return n;
}

/// As many unit blocks as registers and addresses reach for.
std::uint32_t most_units(std::uint32_t registers, const PanelNeeds& n) {
  constexpr std::uint64_t kFarthest = std::uint64_t{1} << 30;
  const std::uint64_t units = registers / n.sums;
  return static_cast<std::uint32_t>(n.block_bytes > 0 ? std::min(units, kFarthest / n.block_bytes)
                                                      : units);
}

/// So many unit blocks that the multiply-adds of a panel, which go to each sum once in kStepLatency
/// cycles, take weights as fast as L2 caches give them: 48 bytes a cycle at most on the processors
/// that were measured. Experiment: DESIGN, 34.
std::uint32_t fewest_units(std::uint32_t lanes, const PanelNeeds& n) {
  constexpr std::uint32_t kBytesPerCycle = 48;
  const std::uint32_t bytes = n.together * lanes * static_cast<std::uint32_t>(sizeof(float));
  return parts_of(jit::kStepLatency * kBytesPerCycle, bytes);
}

/// Enough unit blocks for so many sums, as far as registers and addresses reach. A power of two or
/// all, so that panels of different stages end at the same units.
std::uint32_t units_for(std::uint32_t wanted, std::uint32_t registers, const PanelNeeds& n) {
  const std::uint32_t units =
      std::min((wanted + n.together - 1) / n.together, most_units(registers, n));
  return units >= n.blocks ? n.blocks : std::bit_floor(std::max(units, 1U));
}

/// Where they would make one full panel and a lower one, all blocks are one panel, if registers
/// reach: the lower one has fewer sums than multiply-adds under way, and neither runs beside the
/// epilogue of the other.
std::uint32_t wide_units(std::uint32_t registers, const PanelNeeds& n) {
  const std::uint32_t units = units_for(kWidePanel, registers, n);
  return n.blocks < 2 * units && n.blocks * n.sums <= registers ? n.blocks : units;
}

/// Several rows make sums enough. So panels have fewer unit blocks where the rows then fit fewer
/// tiles, which read each weight less often; but not for tiles of less than five rows. With AVX2,
/// whose tiles are low, only where all rows of a step are a single tile then, whose multiply-adds
/// are not fewer than its loads. Whatever `tile_rows` is: it must not change who owns which units.
/// Experiment: DESIGN, 3.
std::uint32_t units_of_rows(const Context& ctx, std::uint32_t units, const PanelNeeds& n,
                            bool hoisted) {
  constexpr std::uint32_t kLeastRows = 5;
  const auto tiles = [&](std::uint32_t u) {
    const std::uint32_t height = max_tile_rows(ctx.isa, u * n.sums);
    return (ctx.batch + height - 1) / height;
  };
  const auto pays = [&](std::uint32_t lower) {
    if (ctx.isa != Isa::avx2) return ctx.batch >= kLeastRows * tiles(lower);
    const std::uint32_t weights = lower * n.together;
    return !hoisted && tiles(lower) == 1 && weights * ctx.batch >= weights + n.chains * ctx.batch;
  };
  while (units > 1 && tiles(units / 2) < tiles(units) && pays(units / 2)) units /= 2;
  return units;
}

}  // namespace

PanelWidth panel_width(const Context& ctx, const Stage& stage, bool hoisted) {
  const bool one_row = ctx.batch == 1 && !hoisted;
  const PanelNeeds needs = panel_needs(stage, ctx.layout.lanes);
  const std::uint32_t registers = ctx.layout.lanes == 16 ? kPanelRegisters512 : kPanelRegisters256;
  const std::uint32_t narrow =
      units_of_rows(ctx, units_for(kNarrowPanel, registers, needs), needs, hoisted);
  return {.blocks = needs.blocks,
          .narrow = narrow,
          .wide = one_row ? wide_units(registers, needs) : narrow,
          .fewest = fewest_units(ctx.layout.lanes, needs),
          .most = one_row ? most_units(registers, needs) : 0};
}

std::uint32_t share_units(const jit::KernelPlan& step, std::uint32_t width) {
  std::uint32_t units = 1;
  for (const Stage& s : step.stages) {
    if (s.width == width) units = std::max(units, s.units_per_panel);
  }
  return units;
}

PanelWidth share_width(const BoundPlan& step, std::uint32_t width) {
  PanelWidth share;
  for (std::size_t s = 0; s < step.widths.size(); ++s) {
    // All stages of the width know of the coarsest; those that only know of themselves are plain.
    if (step.plan.stages[s].width == width) share = step.widths[s];
  }
  share.narrow = share.coarsest;
  return share;
}

std::uint32_t shares(const jit::KernelPlan& step, std::uint32_t width) {
  const std::uint32_t per = share_units(step, width) * step.lanes;
  return (width + per - 1) / per;
}

std::uint32_t row_vectors(const Stage& stage) {
  auto vectors = static_cast<std::uint32_t>(stage.sums.size());
  for (const jit::Product& p : stage.products) {
    if (p.chains > 1) vectors = std::max(vectors, p.chains);
  }
  return vectors;
}

std::uint32_t tile_rows(const Context& ctx, const Stage& stage, int wanted) {
  if (stage.products.empty()) return 1;
  const std::uint32_t vectors = row_vectors(stage) * stage.units_per_panel;
  return std::min(static_cast<std::uint32_t>(wanted), max_tile_rows(ctx.isa, vectors));
}

void cut_products(Stage& stage, std::uint32_t lanes, std::uint64_t rows) {
  const bool chains = std::any_of(stage.products.begin(), stage.products.end(),
                                  [](const jit::Product& p) { return p.chains > 1; });
  if (jit::tiles_of_several_rows(rows, stage.tile_rows) < 2 || chains) return;
  for (jit::Product& p : stage.products) {
    const std::uint64_t step = p.gate.size() * stage.units_per_panel * lanes * sizeof(float);
    if (p.k * step <= kWholePanel) continue;
    const std::uint64_t pieces = (p.k * step + kPieceOfPanel - 1) / kPieceOfPanel;
    p.k_block = static_cast<std::uint32_t>(align_up((p.k + pieces - 1) / pieces, 16));
  }
}

void set_fetch(Stage& stage, std::uint32_t lanes, std::uint64_t rows, int lines) {
  if (lines < 1 || jit::tiles_of_several_rows(rows, stage.tile_rows) < 2) return;
  const auto wanted = static_cast<std::uint32_t>(lines) * lanes;
  const std::uint32_t full = 16 * stage.units_per_panel;
  for (jit::Product& p : stage.products) {
    // Lines of gates that are left out would travel, too.
    if (p.gate.size() < p.gates_packed) continue;
    const std::uint32_t vectors =
        std::min(static_cast<std::uint32_t>(p.gate.size()), p.gates_packed);
    // Lines of a unit block in as many steps.
    const std::uint32_t read = vectors * jit::Product::kFetchSteps * lanes / 16;
    p.fetch = std::clamp((wanted + full / 2) / full, 1U, std::max(1U, read));
  }
}

}  // namespace deepcpu::lower
