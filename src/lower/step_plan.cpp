// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "src/lower/context.hpp"
#include "src/lower/exchange_plan.hpp"
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
    set_panels();
    finish_slots();
    plan_exchange(ctx_.sharing, bound_);
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
      b.fetch_next = others_hoist() && b.step_stride <= Buffer::kFarthestFetch;
      buffers_.add(Role::hoisted, 0, b);
    }
  }

  /// Whether other participants may have computed hoisted sums of one's own units.
  bool others_hoist() const {
    return ctx_.sharing.hoisters || (ctx_.sharing.participants > 1 && !ctx_.schedule.hoist_ahead);
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
      case Kind::input:
        return {buffers_.get(Role::input, e.index), false, 0};
      case Kind::state:
        return {buffers_.get(Role::state, e.index), false, 0};
      default:
        return {params_, false, ctx_.layout.parameters[at(e.index)].offset};
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
    if (def().fused >= 0) {
      const FusedStage& fused = ctx_.layout.stages[at(def().fused)];
      stage.places = places_of(ctx_, fused, fused.shared, position, false);
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
    bound_.widths.push_back(stage.products.empty() ? plain_width(stage.width)
                                                   : panel_width(ctx_, stage, false));
    return stage;
  }

  /// Unit blocks of a panel that only element-wise code runs on: enough to be worth a turn, but of
  /// what is shared single ones, since hoisted products are divided at the same units.
  PanelWidth plain_width(std::uint32_t width) const {
    constexpr std::uint32_t kPlain = 4;
    const std::uint32_t blocks = unit_blocks(width, ctx_.layout.lanes);
    return {.blocks = blocks, .narrow = 1, .wide = std::min(kPlain, blocks), .plain = true};
  }

  Ref hoisted_ref(int sum) {
    return {buffers_.get(Role::hoisted, 0), false,
            static_cast<std::uint64_t>(ctx_.hoist.offset[at(sum)])};
  }

  void build_epilogue(Stage& stage) {
    code_ = &stage.epilogue;
    memo_.clear();
    std::vector<std::pair<int, Ref>> stores;
    std::vector<std::pair<int, Ref>> rows;  // that products read
    for (int id = 0; id < static_cast<int>(ctx_.graph.exprs.size()); ++id) {
      if (map_.home[at(id)] == stage_ && crosses(id)) {
        (multiplied(id) ? rows : stores).emplace_back(emit(id), scratch(id));
      }
    }
    for (int i = 0; i < static_cast<int>(map_.store_stage.size()); ++i) {
      if (map_.store_stage[at(i)] != stage_) continue;
      (multiplied_state(i) ? rows : stores)
          .emplace_back(emit(ctx_.graph.state_next[at(i)]),
                        Ref{buffers_.get(Role::state, i), true, 0});
    }
    // Whoever has seen what products read, which others wait for, sees the rest as well.
    stores.insert(stores.end(), rows.begin(), rows.end());
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

  bool multiplied(int id) const {
    return std::any_of(ctx_.graph.sums.begin(), ctx_.graph.sums.end(), [&](const SumExpr& s) {
      return std::any_of(s.products.begin(), s.products.end(),
                         [&](const SumProduct& p) { return p.operand == id; });
    });
  }

  bool multiplied_state(int state) const {
    for (int id = 0; id < static_cast<int>(ctx_.graph.exprs.size()); ++id) {
      if (expr(id).kind == Kind::state && expr(id).index == state && multiplied(id)) return true;
    }
    return false;
  }

  /// Whether a later stage needs the value, or a product reads it from memory.
  bool crosses(int id) const {
    if (multiplied(id)) return true;
    if (expr(id).level == 0) return false;
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
      case Kind::constant:
        i.action = Action::constant;
        return push(std::move(i));
      case Kind::input:
      case Kind::state:
      case Kind::parameter:
        return emit_load(e, leaf(e));
      case Kind::sum:
      case Kind::element:
      case Kind::fma:
        break;
    }
    // A value of level 0 needs no product: it is computed again wherever it is used.
    const int home = map_.home[at(id)];
    if (e.level > 0 && home != stage_) return emit_load(e, scratch(id));
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

  /// Panels of all stages, and what follows from them.
  void set_panels() {
    auto& stages = bound_.plan.stages;
    std::vector<PanelWidth> joined;
    for (std::size_t n = 0; n < stages.size(); ++n) joined.push_back(joined_width(n));
    bound_.widths = std::move(joined);
    for (std::size_t n = 0; n < stages.size(); ++n) {
      Stage& stage = stages[n];
      stage.units_per_panel =
          bound_.widths[n].units(ctx_.sharing.participants, ctx_.schedule.panel);
      stage.tile_rows = tile_rows(ctx_, stage, ctx_.schedule.tile_rows);
      set_fetch(stage, ctx_.layout.lanes, ctx_.batch, ctx_.schedule.fetch_lines);
      if (ctx_.schedule.cut_panels) cut_products(stage, ctx_.layout.lanes, ctx_.batch);
    }
  }

  /// With what the stages of its width that multiply have in common. A stage without products takes
  /// the widest panels of theirs: it must not make their shares coarser.
  PanelWidth joined_width(std::size_t n) const {
    const auto& stages = bound_.plan.stages;
    PanelWidth own = bound_.widths[n];
    for (std::size_t o = 0; o < stages.size(); ++o) {
      if (stages[o].width != stages[n].width || stages[o].products.empty()) continue;
      const PanelWidth& other = bound_.widths[o];
      if (own.plain) own = other;
      if (stages[n].products.empty()) {
        own.narrow = std::max(own.narrow, other.narrow);
        own.wide = std::max(own.wide, other.wide);
      }
      own.coarsest = std::max(own.coarsest, other.narrow);
      own.fewest = std::max(own.fewest, other.fewest);
      own.most = std::min(own.most, other.most);
    }
    return own;
  }

  /// A state is updated in place unless other units, or a later stage, still read the old value.
  void finish_slots() {
    each_read(bound_.plan, [&](int stage, const Ref& ref, bool whole_row) {
      const BufferRole role = bound_.roles[ref.buffer];
      if (role.role != Role::state) return;
      if (whole_row || stage > map_.store_stage[at(role.index)]) buffers_.of(ref.buffer).slots = 2;
    });
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

}  // namespace

BoundPlan build_step(const Context& ctx, const std::string& name) {
  return StepPlan(ctx).build(name);
}

}  // namespace deepcpu::lower
