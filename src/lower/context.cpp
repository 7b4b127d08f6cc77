// SPDX-License-Identifier: Apache-2.0
#include "src/lower/context.hpp"

namespace deepcpu::lower {

using jit::Stage;
using jit::Sum;

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

std::uint32_t tile_rows(const Context& ctx, const Stage& stage, int wanted) {
  if (stage.products.empty()) return 1;
  std::uint32_t vectors = static_cast<std::uint32_t>(stage.sums.size()) * stage.units_per_panel;
  for (const jit::Product& p : stage.products) {
    if (p.chains > 1) vectors = std::max(vectors, p.chains * stage.units_per_panel);
  }
  return std::min(static_cast<std::uint32_t>(wanted), max_tile_rows(ctx.isa, vectors));
}

}  // namespace deepcpu::lower
