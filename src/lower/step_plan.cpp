// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "src/lower/context.hpp"
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
    fit_plain_panels();
    finish_slots();
    finish_exchange();
    finish_gathers();
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
      b.fetch_next = ctx_.sharing.hoisters && b.step_stride <= Buffer::kFarthestFetch;
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
    const bool skip_input = ctx_.hoist.row > 0;
    stage.products = products_of(
        ctx_, def().fused, position,
        [&](const PackedMatrix& m) {
          return !(skip_input && hoistable(ctx_.graph, {0, m.operand}));
        },
        [&](int id) { return operand(id); });
    position_ = position;
    build_epilogue(stage);
    const PanelWidth width = stage.products.empty() ? plain_width(stage.width)
                                                    : panel_width(ctx_, stage, ctx_.batch == 1);
    stage.units_per_panel = width.units(ctx_.sharing.participants, ctx_.schedule.panel);
    bound_.widths.push_back(width);
    stage.tile_rows = tile_rows(ctx_, stage, ctx_.schedule.tile_rows);
    set_fetch(stage, ctx_.layout.lanes, ctx_.batch);
    cut_products(stage, ctx_.layout.lanes, ctx_.batch);
    return stage;
  }

  /// Unit blocks of a panel that only element-wise code runs on: enough to be worth a turn, but of
  /// what is shared single ones, since hoisted products are divided at the same units.
  PanelWidth plain_width(std::uint32_t width) const {
    constexpr std::uint32_t kPlain = 4;
    const std::uint32_t blocks = unit_blocks(width, ctx_.layout.lanes);
    return {blocks, 1, std::min(kPlain, blocks), true};
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

  /// A stage without products must not make the shares of those that have some coarser.
  void fit_plain_panels() {
    auto& stages = bound_.plan.stages;
    for (std::size_t n = 0; n < stages.size(); ++n) {
      if (!stages[n].products.empty()) continue;
      PanelWidth fit{bound_.widths[n].blocks, 0, 0, false};
      for (std::size_t o = 0; o < stages.size(); ++o) {
        if (stages[o].width != stages[n].width || stages[o].products.empty()) continue;
        fit.narrow = std::max(fit.narrow, bound_.widths[o].narrow);
        fit.wide = std::max(fit.wide, bound_.widths[o].wide);
      }
      if (fit.narrow == 0) continue;
      stages[n].units_per_panel = fit.units(ctx_.sharing.participants, ctx_.schedule.panel);
      bound_.widths[n] = fit;
    }
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

  bool is_written(const Ref& ref) const {
    return std::any_of(bound_.plan.stages.begin(), bound_.plan.stages.end(),
                       [&](const Stage& s) { return store_of(s, ref.buffer) >= 0; });
  }

  /// The stage that stores a state or scratch.
  int writer_of(std::uint16_t buffer) const {
    int s = 0;
    while (store_of(bound_.plan.stages[at(s)], buffer) < 0) ++s;
    return s;
  }

  void finish_exchange() {
    std::map<std::uint16_t, std::vector<int>> readers;
    // What is read unit by unit was computed by the reader itself: participants own the same units
    // in all stages of a width.
    each_read([&](int reader, const Ref& ref, bool whole_row) {
      if (whole_row && is_written(ref)) readers[ref.buffer].push_back(reader);
    });
    for (const auto& [buffer, stages] : readers) {
      const int writer = writer_of(buffer);
      if (!can_be_ring(buffer, writer, stages)) exchange_by_flag(writer, stages);
    }
    std::vector<Ring> rings;
    for (const auto& [buffer, stages] : readers) {
      const int writer = writer_of(buffer);
      // Where flags stand on all sides anyway, polling would come on top of them.
      if (has_flags(writer, stages)) continue;
      rings.push_back({buffer, writer, *std::min_element(stages.begin(), stages.end()),
                       store_of(bound_.plan.stages[at(writer)], buffer)});
    }
    for (const Ring& ring : rings) {
      const bool carried = std::any_of(rings.begin(), rings.end(),
                                       [&](const Ring& other) { return rides_on(ring, other); });
      if (!carried) make_ring(ring);
    }
  }

  /// What others have written and nobody polls is fetched before products read it.
  void finish_gathers() {
    if (ctx_.sharing.participants < 2) return;
    each_read([&](int reader, const Ref& ref, bool whole_row) {
      if (!whole_row || !is_written(ref) || bound_.plan.buffers[ref.buffer].slots == 3) return;
      auto& gathers = bound_.plan.stages[at(reader)].gathers;
      const Ref row{ref.buffer, ref.next, 0};
      if (std::find(gathers.begin(), gathers.end(), row) == gathers.end()) gathers.push_back(row);
    });
  }

  /// A buffer that may be a ring: who writes it, who reads it first, and where the store stands.
  struct Ring {
    std::uint16_t buffer;
    int writer;
    int first_reader;
    int store;
  };

  static int store_of(const Stage& stage, std::uint16_t buffer) {
    for (int n = 0; n < static_cast<int>(stage.epilogue.size()); ++n) {
      const Instr& i = stage.epilogue[at(n)];
      if (i.action == Action::store && i.ref.buffer == buffer) return n;
    }
    return -1;
  }

  /// Whether waiting for `other` is waiting for `ring`, which then needs two slots only: every unit
  /// of it is stored before the same unit of `other`, nobody reads it before having seen all of
  /// `other`, and it is written again after the next look at `other`.
  bool rides_on(const Ring& ring, const Ring& other) const {
    return ring.writer == other.writer && ring.store < other.store &&
           ring.first_reader >= other.first_reader &&
           bound_.roles[ring.buffer].role == bound_.roles[other.buffer].role;
  }

  bool has_flags(int writer, const std::vector<int>& readers) const {
    const auto& stages = bound_.plan.stages;
    return stages[at(writer)].exchange && std::all_of(readers.begin(), readers.end(), [&](int r) {
             return stages[at(r)].exchange;
           });
  }

  /// An exchange stands after the stage that stores what others read, so that they find it
  /// complete, and after every stage that reads what others store, so that nobody overwrites it
  /// while it is still being read.
  void exchange_by_flag(int writer, const std::vector<int>& readers) {
    bound_.plan.stages[at(writer)].exchange = true;
    for (const int r : readers) bound_.plan.stages[at(r)].exchange = true;
  }

  /// The conditions for rings, see the head of kernel_plan.hpp.
  bool can_be_ring(std::uint16_t buffer, int writer, const std::vector<int>& readers) const {
    const Sharing& sharing = ctx_.sharing;
    if (sharing.participants < 2 || sharing.exchange != Exchange::data) return false;
    const std::uint32_t width = bound_.plan.stages[at(writer)].width;
    if (shares(bound_.plan, width) < sharing.participants) return false;
    const bool state = bound_.roles[buffer].role == Role::state;
    return std::all_of(readers.begin(), readers.end(),
                       [&](int r) { return state ? r <= writer : r > writer; });
  }

  /// The first stage that reads numbers of others waits for them; later ones find them there.
  void make_ring(const Ring& ring) {
    buffers_.of(ring.buffer).slots = 3;
    const bool next = bound_.roles[ring.buffer].role == Role::scratch;
    bound_.plan.stages[at(ring.first_reader)].polls.push_back({ring.buffer, next, 0});
    quiet_stores(bound_.plan.stages[at(ring.writer)], ring.buffer);
  }

  /// What is not surely the result of arithmetic might be a caller's signalling NaN.
  static void quiet_stores(Stage& stage, std::uint16_t buffer) {
    const auto stores = std::find_if(stage.epilogue.begin(), stage.epilogue.end(),
                                     [](const Instr& i) { return i.action == Action::store; });
    const auto place = static_cast<int>(stores - stage.epilogue.begin());
    for (std::size_t n = at(place); n < stage.epilogue.size(); ++n) {
      const int value = stage.epilogue[n].a;
      if (stage.epilogue[n].ref.buffer != buffer || is_arithmetic(stage, value)) continue;
      Instr quiet;
      quiet.action = Action::quiet;
      quiet.a = value;
      stage.epilogue[n].a = place;
      stage.epilogue.insert(stage.epilogue.begin() + place, std::move(quiet));
      return;  // a buffer is stored once
    }
  }

  /// Whether a value is never a signalling NaN: the result of an addition or multiplication.
  static bool is_arithmetic(const Stage& stage, int value) {
    const Instr& i = stage.epilogue[at(value)];
    if (i.action == Action::fma) return true;
    if (i.action == Action::element) {
      return i.op == Op::add || i.op == Op::sub || i.op == Op::mul;
    }
    if (i.action != Action::sum) return false;
    return std::any_of(stage.products.begin(), stage.products.end(), [&](const Product& p) {
      return std::find(p.sum.begin(), p.sum.end(), i.gate) != p.sum.end();
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
