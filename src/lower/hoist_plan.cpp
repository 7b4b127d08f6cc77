// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "src/lower/context.hpp"

namespace deepcpu::lower {
namespace {

using jit::Action;
using jit::Buffer;
using jit::Instr;
using jit::Ref;
using jit::Space;
using jit::Stage;

struct HoistBuffers {
  std::uint16_t params;
  std::uint16_t x;
  std::uint16_t out;
};

HoistBuffers declare_buffers(const Context& ctx, Buffers& buffers) {
  Buffer params;
  params.name = "params";
  params.space = Space::params;
  Buffer x;
  x.name = "x";
  x.space = Space::strided;
  x.width = ctx.widths.of(Dim::input);
  Buffer out;
  out.name = "hoisted";
  out.space = Space::strided;
  out.width = static_cast<std::uint32_t>(ctx.hoist.row / sizeof(float));
  return {buffers.add(Role::params, 0, params), buffers.add(Role::input, 0, x),
          buffers.add(Role::hoisted, 0, out)};
}

/// Adds sum `sum` to the stage, stored to its segment of the hoisted row.
void add_sum(const Context& ctx, const HoistBuffers& ids, int sum, Stage& stage) {
  Instr value;
  value.action = Action::sum;
  value.gate = static_cast<std::uint32_t>(stage.sums.size());
  Instr store;
  store.action = Action::store;
  store.a = static_cast<std::int32_t>(stage.epilogue.size());
  store.ref = {ids.out, false, static_cast<std::uint64_t>(ctx.hoist.offset[at(sum)])};
  stage.sums.push_back(initial_sum(ctx, sum, ids.params));
  stage.epilogue.push_back(value);
  stage.epilogue.push_back(store);
}

Stage hoist_stage(const Context& ctx, const HoistBuffers& ids, int fused_index) {
  const FusedStage& fused = ctx.layout.stages[at(fused_index)];
  Stage stage;
  stage.name = fmt::format("hoist{}", fused_index);
  stage.width = fused.width;
  std::vector<int> position(ctx.graph.sums.size(), -1);
  const bool all_share = !fused.hoisted.sums.empty();
  for (const int s : all_share ? fused.hoisted.sums : fused.sums) {
    if (ctx.hoist.offset[at(s)] < 0) continue;
    position[at(s)] = static_cast<int>(stage.sums.size());
    add_sum(ctx, ids, s, stage);
  }
  if (stage.sums.empty()) return stage;
  const std::vector<SharedSums> groups =
      all_share ? std::vector<SharedSums>{fused.hoisted} : fused.shared;
  stage.places = places_of(ctx, fused, groups, position, true);
  stage.keeps_places = !stage.places.empty() && ctx.schedule.fuse_gates && !all_share;
  stage.products = products_of(
      ctx, fused_index, position,
      [&](const PackedMatrix& m) {
        return hoistable(ctx.graph, {0, m.operand});
      },
      [&](int) {
        return Ref{ids.x, false, 0};
      });
  return stage;
}

}  // namespace

BoundPlan build_hoist(const Context& ctx, const BoundPlan& step, const std::string& name) {
  BoundPlan bound;
  Buffers buffers(bound);
  bound.plan.name = name;
  bound.plan.isa = ctx.isa;
  bound.plan.lanes = ctx.layout.lanes;
  bound.plan.rows = 0;
  const HoistBuffers ids = declare_buffers(ctx, buffers);
  for (int f = 0; f < static_cast<int>(ctx.layout.stages.size()); ++f) {
    Stage stage = hoist_stage(ctx, ids, f);
    if (stage.sums.empty()) continue;
    const PanelWidth width = panel_width(ctx, stage, true);
    stage.units_per_panel =
        hoisted_units(width, share_width(step, stage.width), ctx.sharing.participants);
    stage.tile_rows = tile_rows(ctx, stage, ctx.schedule.hoist_rows);
    const auto block = static_cast<std::uint64_t>(ctx.schedule.hoist_block);
    set_fetch(stage, bound.plan.lanes, block * ctx.batch, LayerSchedule{}.fetch_lines);
    if (ctx.schedule.cut_panels) cut_products(stage, bound.plan.lanes, block * ctx.batch);
    bound.widths.push_back(width);
    bound.plan.stages.push_back(std::move(stage));
  }
  return bound;
}

}  // namespace deepcpu::lower
