// SPDX-License-Identifier: Apache-2.0
#include "src/lower/lower.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "jit/math.hpp"
#include "src/lower/context.hpp"

namespace deepcpu::lower {
namespace {

using jit::KernelPlan;
using jit::Product;
using jit::Stage;

Status check_registers(const KernelPlan& plan) {
  if (!plan.weights_in_registers) return {};
  std::uint64_t vectors = 0;
  std::uint64_t sums = 0;  // of a panel
  bool one_panel = plan.rows == 1;
  for (const Stage& stage : plan.stages) {
    sums = std::max(sums, std::uint64_t{stage.sums.size()} * plan.units(stage, 0));
    if (!stage.products.empty()) one_panel = one_panel && plan.panels(stage) == 1;
    for (const Product& p : stage.products) {
      const std::uint64_t full = (plan.units(stage, 0) - 1) * p.gate.size();
      vectors += std::uint64_t{p.k} * (full + jit::last_terms(stage, p, plan.lanes).size());
    }
  }
  const bool avx2 = plan.isa == Isa::avx2;
  const std::uint64_t limit = avx2 ? 6 : 16;
  // While one function runs, the panel's other sums wait in registers.
  const std::uint64_t beside = sums + jit::kMathTemps + 1;
  if (one_panel && vectors > 0 && vectors <= limit) {
    if (vectors + beside <= (avx2 ? 16 : 32)) return {};
    return Error(fmt::format(
        "weights=registers: {} vectors of weights and {} sums leave too few registers to functions",
        vectors, sums));
  }
  return Error(fmt::format(
      "weights=registers: needs batch 1, one panel and at most {} vectors of weights; this layer "
      "has {}",
      limit, vectors));
}

Status check_limits(const KernelPlan& plan) {
  if (plan.buffers.size() > jit::kMaxBuffers) {
    return Error(fmt::format("cell: {} buffers, at most {} can be addressed", plan.buffers.size(),
                             jit::kMaxBuffers));
  }
  if (plan.stages.size() > jit::kMaxStages) {
    return Error(fmt::format("cell: {} stages in a step, at most {} can be run", plan.stages.size(),
                             jit::kMaxStages));
  }
  // Row strides and offsets inside a row are 32-bit displacements of emitted code.
  constexpr std::uint64_t kMostRowBytes = std::uint64_t{1} << 30;
  for (const jit::Buffer& b : plan.buffers) {
    if (b.row_stride > kMostRowBytes || b.width * sizeof(float) > kMostRowBytes) {
      return Error(fmt::format("cell: {} bytes in a row of {}, at most {} can be addressed",
                               b.width * sizeof(float), b.name, kMostRowBytes));
    }
  }
  for (const Stage& s : plan.stages) {
    if (s.epilogue.size() > jit::kMaxEpilogue) {
      return Error(fmt::format("cell: {} element-wise operations in a stage, at most {}",
                               s.epilogue.size(), jit::kMaxEpilogue));
    }
  }
  return check_registers(plan);
}

}  // namespace

std::uint32_t max_tile_rows(Isa isa, std::uint32_t vectors) {
  // One register per accumulator, one per row for the broadcast operand, one for the weights.
  const std::uint32_t registers = isa == Isa::avx2 ? 16 : 32;
  const std::uint32_t fit = (registers - 1) / (vectors + 1);
  return std::clamp<std::uint32_t>(fit, 1, 6);
}

bool hoists(const StepGraph& graph) {
  return std::any_of(graph.sums.begin(), graph.sums.end(),
                     [&](const SumExpr& s) { return has_hoistable(graph, s); });
}

Result<LayerPlans> lower_layer(const LayerInput& in, const std::string& name) {
  const bool hoist = in.schedule.hoist_block > 0 && hoists(in.graph);
  const Context ctx{in, hoist_layout(in.graph, in.widths, hoist)};
  LayerPlans out;
  out.step = build_step(ctx, name + ".step");
  if (auto st = check_limits(out.step.plan); !st) return st.error();
  if (hoist) {
    out.hoist = build_hoist(ctx, out.step, name + ".hoist");
    out.hoisted_row = ctx.hoist.row;
  }
  if (in.schedule.hoist_ahead) {
    if (auto st = build_ahead(ctx, name + ".ahead", out); !st) return st.error();
  }
  return out;
}

}  // namespace deepcpu::lower
