// SPDX-License-Identifier: Apache-2.0
#include "src/lower/lower.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "src/lower/stages.hpp"

namespace deepcpu::lower {
namespace {

using jit::Action;
using jit::Buffer;
using jit::Instr;
using jit::KernelPlan;
using jit::Product;
using jit::Ref;
using jit::Space;
using jit::Stage;
using jit::Sum;

std::size_t at(int i) { return static_cast<std::size_t>(i); }
std::uint64_t align_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

/// Bytes of a row of `elements` numbers, whole vectors, off multiples of 4 KiB: rows a multiple of
/// 4 KiB apart fall into the same cache set and alias in the store buffer.
std::uint64_t row_bytes(std::uint64_t elements) {
  const std::uint64_t bytes = align_up(elements * sizeof(float), 64);
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

/// Where the hoisted sums of one row stand: one segment per sum.
struct HoistLayout {
  std::vector<std::int64_t> offset;  ///< per sum, -1 = not hoisted
  std::uint64_t row = 0;
};

/// Only products of the layer's input are hoisted: their operand is there for every step before the
/// loop begins.
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
  if (layout.row > 0 && layout.row % 4096 == 0) layout.row += 64;
  return layout;
}

/// What both kinds of plan need to know.
struct Context {
  const Cell& cell;
  const StepGraph& graph;
  const Widths& widths;
  const PackLayout& layout;
  const LayerSchedule& schedule;
  Isa isa;
  std::uint32_t batch;
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

  std::uint16_t add(Role role, int index, Buffer buffer) {
    const auto id = static_cast<std::uint16_t>(bound_.plan.buffers.size());
    bound_.plan.buffers.push_back(std::move(buffer));
    bound_.roles.push_back({role, index});
    ids_[{static_cast<int>(role), index}] = id;
    return id;
  }

  Buffer& of(std::uint16_t id) { return bound_.plan.buffers[id]; }

 private:
  BoundPlan& bound_;
  std::map<std::pair<int, int>, std::uint16_t> ids_;
};

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

/// The products of the stage's sums, one per packed matrix, in the order of the summation: those of
/// the input first. `position` gives the place of a sum among the stage's accumulators, -1 if none.
template <class Wanted, class Operand>
std::vector<Product> products_of(const Context& ctx, int fused, const std::vector<int>& position,
                                 Wanted wanted, Operand operand) {
  std::vector<Product> out;
  for (const bool of_input : {true, false}) {
    for (const PackedMatrix& m : ctx.layout.matrices) {
      if (m.stage != fused || !wanted(m)) continue;
      if (hoistable(ctx.graph, {0, m.operand}) != of_input) continue;
      Product p;
      p.k = m.k;
      p.weights = m.offset;
      p.panel_stride = m.panel_stride;
      p.gates_packed = static_cast<std::uint32_t>(m.parameters.size());
      for (std::uint32_t g = 0; g < p.gates_packed; ++g) {
        const int sum = position[at(m.sums[g])];
        if (sum < 0) continue;
        p.gate.push_back(g);
        p.sum.push_back(static_cast<std::uint32_t>(sum));
        p.note += (p.note.empty() ? "" : " ") + ctx.cell.parameters()[at(m.parameters[g])].name;
      }
      if (p.gate.empty()) continue;
      p.operand = operand(m.operand);
      out.push_back(std::move(p));
    }
  }
  return out;
}

/// Rows of the register tile: what the schedule asks, as far as the accumulators fit.
std::uint32_t tile_rows(const Context& ctx, const Stage& stage, int wanted) {
  if (stage.products.empty()) return 1;
  const auto vectors = static_cast<std::uint32_t>(stage.sums.size()) * stage.units_per_panel;
  return std::min(static_cast<std::uint32_t>(wanted), max_tile_rows(ctx.isa, vectors));
}

/// Builds the time loop's plan.
class StepPlan {
 public:
  explicit StepPlan(const Context& ctx)
      : ctx_(ctx),
        map_(StageMap::build(ctx.graph, ctx.widths, ctx.layout, ctx.schedule.fuse_gates)),
        buffers_(bound_) {}

  BoundPlan build(const std::string& name) {
    KernelPlan& plan = bound_.plan;
    plan.name = name;
    plan.isa = ctx_.isa;
    plan.lanes = ctx_.layout.lanes;
    plan.rows = ctx_.batch;
    plan.weights_in_registers = ctx_.schedule.weights == Residency::registers;
    declare_buffers();
    for (stage_ = 0; stage_ < static_cast<int>(map_.stages.size()); ++stage_) {
      plan.stages.push_back(build_stage());
    }
    finish_slots();
    finish_exchange();
    return std::move(bound_);
  }

 private:
  const StageDef& def() const { return map_.stages[at(stage_)]; }
  const Expr& expr(int id) const { return ctx_.graph.exprs[at(id)]; }
  std::uint32_t width(const Expr& e) const { return ctx_.widths.of(e.dim); }

  Buffer slots(std::string name, std::uint32_t width) const {
    Buffer b;
    b.name = std::move(name);
    b.space = Space::slots;
    b.width = width;
    b.row_stride = row_bytes(align_up(width, ctx_.layout.lanes));
    b.slot_stride = align_up(b.row_stride * ctx_.batch + 64, 128);
    return b;
  }

  Buffer external(std::string name, std::uint32_t width) const {
    Buffer b;
    b.name = std::move(name);
    b.space = Space::external;
    b.width = width;
    return b;
  }

  void declare_buffers() {
    Buffer params;
    params.name = "params";
    params.space = Space::params;
    params_ = buffers_.add(Role::params, 0, params);
    for (int i = 0; i < static_cast<int>(ctx_.cell.inputs().size()); ++i) {
      const Node& n = ctx_.cell.nodes()[at(ctx_.cell.inputs()[at(i)])];
      buffers_.add(Role::input, i, external(n.name, ctx_.widths.of(n.dim)));
    }
    buffers_.add(Role::output, 0, external("y", width(expr(ctx_.graph.output))));
    for (int i = 0; i < static_cast<int>(ctx_.cell.states().size()); ++i) {
      const State& s = ctx_.cell.states()[at(i)];
      buffers_.add(Role::state, i, slots(s.name, ctx_.widths.of(s.dim)));
    }
    if (ctx_.hoist.row > 0) {
      Buffer b;
      b.name = "hoisted";
      b.space = Space::block;
      b.width = static_cast<std::uint32_t>(ctx_.hoist.row / sizeof(float));
      b.row_stride = ctx_.hoist.row;
      b.step_stride = ctx_.hoist.row * ctx_.batch;
      buffers_.add(Role::hoisted, 0, b);
    }
  }

  /// Scratch that carries expr `id` from its home stage to later ones.
  Ref scratch(int id) {
    const auto found = scratch_.find(id);
    if (found != scratch_.end()) return {found->second, true, 0};
    const Expr& e = expr(id);
    const std::string name = e.name.empty() ? fmt::format("v{}", id) : e.name;
    const std::uint16_t buffer = buffers_.add(Role::scratch, id, slots(name, width(e)));
    // Two slots: a participant that is a stage ahead must not overwrite what others still read.
    buffers_.of(buffer).slots = 2;
    scratch_[id] = buffer;
    return {buffer, true, 0};
  }

  Ref leaf(const Expr& e) {
    switch (e.kind) {
      case Kind::input: return {buffers_.get(Role::input, e.index), false, 0};
      case Kind::state: return {buffers_.get(Role::state, e.index), false, 0};
      default: return {params_, false, ctx_.layout.parameters[at(e.index)].offset};
    }
  }

  /// Where a product reads its operand.
  Ref operand(int id) {
    const Expr& e = expr(id);
    if (e.kind == Kind::input || e.kind == Kind::state) return leaf(e);
    return scratch(id);
  }

  Stage build_stage() {
    Stage stage;
    stage.name = fmt::format("stage{}.level{}", stage_, def().level);
    stage.width = def().width;
    stage.units_per_panel = def().units_per_panel;
    std::vector<int> position(ctx_.graph.sums.size(), -1);
    for (const int s : def().sums) {
      const SumExpr& sum = ctx_.graph.sums[at(s)];
      const bool hoisted = ctx_.hoist.offset[at(s)] >= 0;
      if (hoisted && wholly_hoisted(ctx_.graph, sum)) continue;
      position[at(s)] = static_cast<int>(stage.sums.size());
      stage.sums.push_back(initial_sum(ctx_, s, params_));
      if (hoisted) {
        stage.sums.back().init = Sum::Init::load;
        stage.sums.back().ref = hoisted_ref(s);
      }
    }
    const bool skip_input = ctx_.hoist.row > 0;
    stage.products = products_of(
        ctx_, def().fused, position,
        [&](const PackedMatrix& m) {
          return !(skip_input && hoistable(ctx_.graph, {0, m.operand}));
        },
        [&](int id) { return operand(id); });
    position_ = position;
    build_epilogue(stage);
    stage.tile_rows = tile_rows(ctx_, stage, ctx_.schedule.tile_rows);
    return stage;
  }

  Ref hoisted_ref(int sum) {
    return {buffers_.get(Role::hoisted, 0), false,
            static_cast<std::uint64_t>(ctx_.hoist.offset[at(sum)])};
  }

  void build_epilogue(Stage& stage) {
    code_ = &stage.epilogue;
    memo_.clear();
    std::vector<std::pair<int, Ref>> stores;
    for (int id = 0; id < static_cast<int>(ctx_.graph.exprs.size()); ++id) {
      if (map_.home[at(id)] == stage_ && crosses(id)) stores.emplace_back(emit(id), scratch(id));
    }
    for (int i = 0; i < static_cast<int>(map_.store_stage.size()); ++i) {
      if (map_.store_stage[at(i)] != stage_) continue;
      stores.emplace_back(emit(ctx_.graph.state_next[at(i)]),
                          Ref{buffers_.get(Role::state, i), true, 0});
    }
    if (map_.output_stage == stage_) {
      stores.emplace_back(emit(ctx_.graph.output), Ref{buffers_.get(Role::output, 0), false, 0});
    }
    // Stores come last: a state that is updated in place is read before it is overwritten.
    for (const auto& [value, ref] : stores) {
      Instr i;
      i.action = Action::store;
      i.a = value;
      i.ref = ref;
      i.note = buffers_.of(ref.buffer).name;
      code_->push_back(std::move(i));
    }
  }

  /// Whether a later stage needs the value, or a product reads it from memory.
  bool crosses(int id) const {
    for (const SumExpr& s : ctx_.graph.sums) {
      for (const SumProduct& p : s.products) {
        if (p.operand == id) return true;
      }
    }
    for (int user = id + 1; user < static_cast<int>(ctx_.graph.exprs.size()); ++user) {
      const Expr& u = expr(user);
      if (map_.home[at(user)] > stage_ && (u.a == id || u.b == id || u.c == id)) return true;
    }
    return false;
  }

  int push(Instr i) {
    code_->push_back(std::move(i));
    return static_cast<int>(code_->size()) - 1;
  }

  int emit(int id) {
    const auto found = memo_.find(id);
    if (found != memo_.end()) return found->second;
    const int result = emit_new(id);
    memo_[id] = result;
    return result;
  }

  int emit_load(const Expr& e, Ref ref) {
    Instr i;
    // A single number per row meets a wider stage: all lanes get it.
    i.action = e.dim == Dim::one && width(e) != def().width ? Action::broadcast : Action::load;
    i.ref = ref;
    i.note = e.name;
    return push(std::move(i));
  }

  int emit_new(int id) {
    const Expr& e = expr(id);
    Instr i;
    i.note = e.name;
    i.p = e.p;
    i.q = e.q;
    switch (e.kind) {
      case Kind::constant: i.action = Action::constant; return push(std::move(i));
      case Kind::input:
      case Kind::state:
      case Kind::parameter: return emit_load(e, leaf(e));
      case Kind::sum:
      case Kind::element:
      case Kind::fma: break;
    }
    const int home = map_.home[at(id)];
    if (home >= 0 && home != stage_) return emit_load(e, scratch(id));
    if (e.kind == Kind::sum) return emit_sum(e);
    i.action = e.kind == Kind::fma ? Action::fma : Action::element;
    i.op = e.op;
    if (e.a >= 0) i.a = emit(e.a);
    if (e.b >= 0) i.b = emit(e.b);
    if (e.c >= 0) i.c = emit(e.c);
    return push(std::move(i));
  }

  int emit_sum(const Expr& e) {
    Instr i;
    i.note = e.name;
    if (position_[at(e.index)] >= 0) {
      i.action = Action::sum;
      i.gate = static_cast<std::uint32_t>(position_[at(e.index)]);
    } else {
      i.action = Action::load;
      i.ref = hoisted_ref(e.index);
    }
    return push(std::move(i));
  }

  template <class Visit>
  void each_read(Visit visit) {
    for (int s = 0; s < static_cast<int>(bound_.plan.stages.size()); ++s) {
      const Stage& stage = bound_.plan.stages[at(s)];
      for (const Product& p : stage.products) visit(s, p.operand, true);
      for (const Instr& i : stage.epilogue) {
        if (i.action == Action::load) visit(s, i.ref, false);
        if (i.action == Action::broadcast) visit(s, i.ref, true);
      }
    }
  }

  /// A state is updated in place unless other units, or a later stage, still read the old value.
  void finish_slots() {
    each_read([&](int stage, const Ref& ref, bool whole_row) {
      const BufferRole role = bound_.roles[ref.buffer];
      if (role.role != Role::state) return;
      if (whole_row || stage > map_.store_stage[at(role.index)]) buffers_.of(ref.buffer).slots = 2;
    });
  }

  /// A stage is followed by an exchange if another participant may read what it stores: a product
  /// reads whole rows, and stages with other panels divide the units differently.
  void finish_exchange() {
    for (Stage& stage : bound_.plan.stages) {
      for (const Instr& store : stage.epilogue) {
        if (store.action != Action::store) continue;
        each_read([&](int reader, const Ref& ref, bool whole_row) {
          const Stage& r = bound_.plan.stages[at(reader)];
          const bool same_units =
              r.width == stage.width && r.units_per_panel == stage.units_per_panel;
          if (ref.buffer == store.ref.buffer && (whole_row || !same_units)) stage.exchange = true;
        });
      }
    }
  }

  const Context& ctx_;
  StageMap map_;
  BoundPlan bound_;
  Buffers buffers_;
  std::uint16_t params_ = 0;
  std::map<int, std::uint16_t> scratch_;
  int stage_ = 0;
  std::vector<int> position_;
  std::vector<Instr>* code_ = nullptr;
  std::map<int, int> memo_;
};

/// x·W for many rows at once: every fused stage with products of the input, stored to segments.
BoundPlan build_hoist(const Context& ctx, const std::string& name) {
  BoundPlan bound;
  Buffers buffers(bound);
  bound.plan.name = name;
  bound.plan.isa = ctx.isa;
  bound.plan.lanes = ctx.layout.lanes;
  bound.plan.rows = 0;
  Buffer params;
  params.name = "params";
  params.space = Space::params;
  const std::uint16_t params_id = buffers.add(Role::params, 0, params);
  Buffer x;
  x.name = "x";
  x.space = Space::strided;
  x.width = ctx.widths.of(Dim::input);
  const std::uint16_t x_id = buffers.add(Role::input, 0, x);
  Buffer out;
  out.name = "hoisted";
  out.space = Space::strided;
  out.width = static_cast<std::uint32_t>(ctx.hoist.row / sizeof(float));
  const std::uint16_t out_id = buffers.add(Role::hoisted, 0, out);

  for (int f = 0; f < static_cast<int>(ctx.layout.stages.size()); ++f) {
    const FusedStage& fused = ctx.layout.stages[at(f)];
    Stage stage;
    stage.name = fmt::format("hoist{}", f);
    stage.width = fused.width;
    stage.units_per_panel = fused.units_per_panel;
    std::vector<int> position(ctx.graph.sums.size(), -1);
    for (const int s : fused.sums) {
      if (ctx.hoist.offset[at(s)] < 0) continue;
      const auto gate = static_cast<std::uint32_t>(stage.sums.size());
      position[at(s)] = static_cast<int>(gate);
      stage.sums.push_back(initial_sum(ctx, s, params_id));
      Instr value;
      value.action = Action::sum;
      value.gate = gate;
      Instr store;
      store.action = Action::store;
      store.a = static_cast<std::int32_t>(stage.epilogue.size());
      store.ref = {out_id, false, static_cast<std::uint64_t>(ctx.hoist.offset[at(s)])};
      stage.epilogue.push_back(value);
      stage.epilogue.push_back(store);
    }
    if (stage.sums.empty()) continue;
    stage.products = products_of(
        ctx, f, position,
        [&](const PackedMatrix& m) { return hoistable(ctx.graph, {0, m.operand}); },
        [&](int) { return Ref{x_id, false, 0}; });
    stage.tile_rows = tile_rows(ctx, stage, ctx.schedule.hoist_rows);
    bound.plan.stages.push_back(std::move(stage));
  }
  return bound;
}

Status check_registers(const KernelPlan& plan) {
  if (!plan.weights_in_registers) return {};
  std::uint64_t vectors = 0;
  bool one_panel = plan.rows == 1;
  for (const Stage& stage : plan.stages) {
    if (!stage.products.empty()) one_panel = one_panel && plan.panels(stage) == 1;
    for (const Product& p : stage.products) {
      vectors += std::uint64_t{p.k} * p.gate.size() * plan.units(stage, 0);
    }
  }
  const std::uint64_t limit = plan.isa == Isa::avx2 ? 6 : 16;
  if (one_panel && vectors > 0 && vectors <= limit) return {};
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
    return Error(fmt::format("cell: {} stages in a step, at most {} can be run",
                             plan.stages.size(), jit::kMaxStages));
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

Result<LayerPlans> lower_layer(const Cell& cell, const StepGraph& graph, const Widths& widths,
                               const PackLayout& layout, const LayerSchedule& schedule, Isa isa,
                               std::uint32_t batch, const std::string& name) {
  const bool any = std::any_of(graph.sums.begin(), graph.sums.end(),
                               [&](const SumExpr& s) { return has_hoistable(graph, s); });
  const bool hoist = schedule.hoist_block > 0 && any;
  const Context ctx{cell, graph, widths, layout, schedule, isa, batch,
                    hoist_layout(graph, widths, hoist)};
  LayerPlans out;
  out.step = StepPlan(ctx).build(name + ".step");
  if (auto st = check_limits(out.step.plan); !st) return st.error();
  if (hoist) {
    out.hoist = build_hoist(ctx, name + ".hoist");
    out.hoisted_row = ctx.hoist.row;
  }
  return out;
}

}  // namespace deepcpu::lower
