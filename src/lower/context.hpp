// SPDX-License-Identifier: Apache-2.0
/// What the plans of the time loop and of the hoisted products have in common.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "jit/index.hpp"
#include "src/lower/align.hpp"
#include "src/lower/lower.hpp"

namespace deepcpu::lower {

/// Where the hoisted sums of one row stand: one segment per sum.
struct HoistLayout {
  std::vector<std::int64_t> offset;  ///< per sum, -1 = not hoisted
  std::uint64_t row = 0;
};

/// Whether a product can leave the time loop: only those of the layer's input, whose operand is
/// there for every step before the loop begins.
bool hoistable(const StepGraph& graph, const SumProduct& p);
bool has_hoistable(const StepGraph& graph, const SumExpr& sum);
bool wholly_hoisted(const StepGraph& graph, const SumExpr& sum);
HoistLayout hoist_layout(const StepGraph& graph, const Widths& widths, bool hoist);

/// What both kinds of plan need to know.
struct Context : LayerInput {
  HoistLayout hoist;
};

/// Adds buffers to a plan, each once.
class Buffers {
 public:
  explicit Buffers(BoundPlan& bound) : bound_(bound) {}

  std::uint16_t get(Role role, int index) {
    const auto found = ids_.find({static_cast<int>(role), index});
    return found == ids_.end() ? add(role, index, {}) : found->second;
  }

  std::uint16_t add(Role role, int index, jit::Buffer buffer) {
    const auto id = static_cast<std::uint16_t>(bound_.plan.buffers.size());
    bound_.plan.buffers.push_back(std::move(buffer));
    bound_.roles.push_back({role, index});
    ids_[{static_cast<int>(role), index}] = id;
    return id;
  }

  jit::Buffer& of(std::uint16_t id) { return bound_.plan.buffers[id]; }

 private:
  BoundPlan& bound_;
  std::map<std::pair<int, int>, std::uint16_t> ids_;
};

/// Partial sums that a product keeps: with one gate two, else one. One gate makes few sums, which
/// would wait for each other; and where a single sum takes all products, halving its length keeps
/// the rounding error below twice that of a blocked product. Part of the definition of the result,
/// so it depends on the cell and its sizes only.
std::uint32_t chains_of(const FusedStage& stage, std::uint32_t k);

/// The sum before its products: its bias or zero.
jit::Sum initial_sum(const Context& ctx, int sum, std::uint16_t params);

/// Where the sums of a stage stand in its last unit block if these groups share vectors, in the
/// plan of hoisted products (`hoist`) or in the time loop's: none if it has not all sums of a
/// group, because gates are not fused. `position` as in products_of().
std::vector<jit::Place> places_of(const Context& ctx, const FusedStage& stage,
                                  const std::vector<SharedSums>& groups,
                                  const std::vector<int>& position, bool hoist);

/// The products of the stage's sums, one per packed matrix, in the order of the summation: those of
/// the input first. `position` gives the place of a sum among the stage's accumulators, -1 if none.
template <class Wanted, class Operand>
std::vector<jit::Product> products_of(const Context& ctx, int fused,
                                      const std::vector<int>& position, Wanted wanted,
                                      Operand operand) {
  std::vector<jit::Product> out;
  for (const bool of_input : {true, false}) {
    for (const PackedMatrix& m : ctx.layout.matrices) {
      if (m.stage != fused || !wanted(m)) continue;
      if (hoistable(ctx.graph, {0, m.operand}) != of_input) continue;
      jit::Product p;
      p.k = m.k;
      p.chains = chains_of(ctx.layout.stages[at(fused)], m.k);
      p.weights = m.offset;
      p.block_stride = m.block_stride;
      p.gates_packed = m.vectors;
      for (std::uint32_t g = 0; g < m.parameters.size(); ++g) {
        const int sum = position[at(m.sums[g])];
        if (sum < 0) continue;
        p.gate.push_back(g);
        p.sum.push_back(static_cast<std::uint32_t>(sum));
        if (!m.last.empty()) p.last.push_back(m.last[g]);
        p.note += (p.note.empty() ? "" : " ") + ctx.cell.parameters()[at(m.parameters[g])].name;
      }
      if (p.gate.empty()) continue;
      p.operand = operand(m.operand);
      out.push_back(std::move(p));
    }
  }
  return out;
}

/// The panels of a stage whose sums and products are known. Where it has more rows than one, as
/// hoisted products have, wide panels are as narrow ones.
PanelWidth panel_width(const Context& ctx, const jit::Stage& stage, bool hoisted);

/// Rows of the register tile: what the schedule asks, as far as the accumulators fit.
std::uint32_t tile_rows(const Context& ctx, const jit::Stage& stage, int wanted);

/// Sets Product::k_block in a stage whose products and panels are known, when it has so many rows:
/// where two tiles of several rows and more would read a panel from beyond the L1 cache. Called
/// with LayerSchedule::cut_panels.
void cut_products(jit::Stage& stage, std::uint32_t lanes, std::uint64_t rows);

/// Sets Product::fetch in a stage whose panels are known, when it has so many rows: from two tiles
/// of several rows on. A single tile has no time to spare: lstm i1024h1024b4t5 and i256h256b4t50
/// took 13 and 11 % longer. `lines`: as LayerSchedule::fetch_lines, for 16 lanes; with fewer, lines
/// hold more of a step. With AVX2 twice as many as so took 1.04 to 1.09 on an Emerald Rapids.
void set_fetch(jit::Stage& stage, std::uint32_t lanes, std::uint64_t rows, int lines);

/// The plan of the time loop.
BoundPlan build_step(const Context& ctx, const std::string& name);
/// The plan of x·W for many rows at once: every fused stage with products of the input. Its panels
/// end where shares of the time loop's plan do, whichever panels that has.
BoundPlan build_hoist(const Context& ctx, const BoundPlan& step, const std::string& name);
/// Adds the time loop with products ahead to the other plans. Errors say why there can be none.
Status build_ahead(const Context& ctx, const std::string& name, LayerPlans& plans);

}  // namespace deepcpu::lower
