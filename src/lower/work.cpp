// SPDX-License-Identifier: Apache-2.0
#include "src/lower/work.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "jit/element_ops.hpp"
#include "jit/row_tiles.hpp"
#include "src/lower/lower.hpp"

namespace deepcpu {
namespace {

using jit::Action;
using jit::Instr;

/// Higher than any register tile, so that lowering says how high it may be.
constexpr int kHighestTile = 6;
constexpr lower::Sharing kAlone{1, Exchange::flag};
/// Shows after which stages participants wait for each other.
constexpr lower::Sharing kShared{2, Exchange::flag};

/// The count that an element-wise operation belongs to.
int& count_of(OperationCounts& counts, Op op) {
  if (op == Op::sigmoid) return counts.sigmoids;
  return op == Op::tanh || op == Op::exp ? counts.tanhs : counts.others;
}

/// Cycles of an epilogue's longest path from a sum.
double latency_of(const std::vector<Instr>& epilogue) {
  std::vector<double> ready(epilogue.size(), 0.0);
  double longest = 0.0;
  for (std::size_t n = 0; n < epilogue.size(); ++n) {
    const Instr& i = epilogue[n];
    for (const std::int32_t arg : {i.a, i.b, i.c}) {
      if (arg >= 0) ready[n] = std::max(ready[n], ready[static_cast<std::size_t>(arg)]);
    }
    if (i.action == Action::fma) ready[n] += jit::kStepLatency;
    if (i.action == Action::element) ready[n] += jit::find_element_op(i.op)->latency;
    longest = std::max(longest, ready[n]);
  }
  return longest;
}

void add_epilogue(StageWork& work, const std::vector<Instr>& epilogue, std::uint32_t lanes) {
  const double vector_bytes = 4.0 * lanes;
  for (const Instr& i : epilogue) {
    if (i.action == Action::fma) {
      work.vectors += 1.0;
      ++work.operations.others;
    }
    if (i.action == Action::element) {
      const jit::ElementOp& op = *jit::find_element_op(i.op);
      work.vectors += op.vectors;
      work.divisions += op.divisions;
      ++count_of(work.operations, i.op);
    }
    if (i.action == Action::load || i.action == Action::store) work.row_bytes += vector_bytes;
  }
  work.latency_cycles = latency_of(epilogue);
}

/// Whether products read, as a whole row, a buffer that the stage stores to.
bool hands_over(const jit::KernelPlan& plan, const jit::Stage& stage) {
  const auto reads = [&](const Instr& store) {
    return std::any_of(plan.stages.begin(), plan.stages.end(), [&](const jit::Stage& s) {
      return std::any_of(s.products.begin(), s.products.end(), [&](const jit::Product& p) {
        return p.operand.buffer == store.ref.buffer;
      });
    });
  };
  return std::any_of(stage.epilogue.begin(), stage.epilogue.end(),
                     [&](const Instr& i) { return i.action == Action::store && reads(i); });
}

StageWork stage_work(const jit::KernelPlan& plan, const jit::Stage& stage,
                     const std::vector<lower::BufferRole>& roles) {
  StageWork work;
  work.outputs = stage.width;
  work.gates = static_cast<std::uint32_t>(stage.sums.size());
  work.row_vectors = lower::row_vectors(stage);
  for (const jit::Product& p : stage.products) {
    const lower::BufferRole role = roles[p.operand.buffer];
    const auto last = jit::last_terms(stage, p, plan.lanes);
    const auto half = std::count_if(last.begin(), last.end(),
                                    [&](const jit::Term& t) { return t.half(plan.lanes); });
    work.products.push_back({p.k, static_cast<std::uint32_t>(p.gate.size()), p.chains,
                             p.gates_packed, static_cast<std::uint32_t>(last.size()),
                             static_cast<std::uint32_t>(half),
                             role.role == lower::Role::input && role.index == 0});
  }
  for (const jit::Sum& sum : stage.sums) {
    if (sum.init == jit::Sum::Init::load) work.row_bytes += 4.0 * plan.lanes;
  }
  add_epilogue(work, stage.epilogue, plan.lanes);
  work.exchange = stage.exchange;
  work.hands_over = hands_over(plan, stage);
  return work;
}

/// `step`: the time loop, which says how units are shared.
KernelWork kernel_work(const lower::BoundPlan& bound, const lower::BoundPlan& step) {
  KernelWork work;
  for (std::size_t s = 0; s < bound.plan.stages.size(); ++s) {
    const jit::Stage& stage = bound.plan.stages[s];
    StageWork one = stage_work(bound.plan, stage, bound.roles);
    one.width = bound.widths[s];
    one.share = lower::share_width(step, stage.width);
    one.hoisted = &bound != &step;
    work.weight_bytes += one.weight_bytes(bound.plan.lanes, 1);
    work.stages.push_back(std::move(one));
  }
  return work;
}

/// Lowers one layer in all its forms.
class LayerWorker {
 public:
  LayerWorker(const ModelSpec& spec, int layer, Isa isa, const lower::StepGraph& graph, int threads)
      : spec_(spec),
        isa_(isa),
        threads_(std::max(threads, 2)),
        graph_(graph),
        widths_(lower::widths_of(spec, layer)),
        layout_(lower::PackLayout::build(spec.cell, graph, widths_,
                                         static_cast<std::uint32_t>(lanes(isa)))) {}

  Result<LayerWork> work() {
    LayerWork out;
    for (const bool hoisted : {false, true}) {
      for (const bool fused : {false, true}) {
        const LayerSchedule s = form(hoisted, fused);
        auto plans = lower(s, kShared);
        if (!plans) return plans.error();
        out.step[hoisted][fused] = kernel_work(plans->step, plans->step);
        add_fits(out, s);
        if (!plans->hoist || !fused) continue;
        out.hoist = kernel_work(*plans->hoist, plans->step);
        out.hoisted_row_bytes = static_cast<double>(plans->hoisted_row);
      }
    }
    const auto& stages = out.step[1][1].stages;
    out.one_gate_stages = out.step[1][0].stages.size() == stages.size();
    return out;
  }

 private:
  static LayerSchedule form(bool hoisted, bool fused) {
    LayerSchedule s;
    s.hoist_block = hoisted ? static_cast<int>(lower::kAheadRows) : 0;
    s.fuse_gates = fused;
    return s;
  }

  /// What is known of panels of so many unit blocks, by stage: where they are alike plans are
  /// alike.
  using Seen = std::map<std::vector<std::uint32_t>, bool>;

  void add_fits(LayerWork& out, LayerSchedule s) const {
    const bool hoisted = s.hoist_block > 0;
    const bool fused = s.fuse_gates;
    const auto& stages = out.step[hoisted][fused].stages;
    Seen seen;
    // Where no panel gets wider the plans are the same.
    const bool widens = out.widens(hoisted, fused, 1);
    for (const Panel panel : {Panel::narrow, Panel::wide}) {
      s.panel = panel;
      LayerWork::Fits& fits = panel == Panel::wide ? out.wide : out.narrow;
      const bool same = panel == Panel::wide && !widens;
      fits.registers[hoisted][fused] =
          same ? out.narrow.registers[hoisted][fused] : fits_registers(s);
      if (hoisted) fits.ahead[fused] = fits_ahead(s, stages, seen);
    }
  }

  bool fits_registers(LayerSchedule s) const {
    s.weights = Residency::registers;
    return lower(s, kAlone).ok();
  }

  /// For every number of participants.
  std::vector<bool> fits_ahead(LayerSchedule s, const std::vector<StageWork>& stages,
                               Seen& seen) const {
    s.hoist_ahead = true;
    std::vector<bool> out;
    for (int n = 1; n <= threads_; ++n) {
      std::vector<std::uint32_t> units;
      for (const StageWork& stage : stages) units.push_back(stage.panel_units(n, s.panel));
      const auto [it, is_new] = seen.try_emplace(std::move(units), false);
      const lower::Sharing sharing{static_cast<std::uint32_t>(n), Exchange::flag};
      if (is_new) it->second = lower(s, sharing).ok();
      out.push_back(it->second);
    }
    return out;
  }

  Result<lower::LayerPlans> lower(LayerSchedule s, lower::Sharing sharing) const {
    s.tile_rows = kHighestTile;
    s.hoist_rows = kHighestTile;
    const auto rows = static_cast<std::uint32_t>(spec_.batch);
    return lower::lower_layer({spec_.cell, graph_, widths_, layout_, s, isa_, rows, sharing}, {});
  }

  const ModelSpec& spec_;
  Isa isa_;
  int threads_;  ///< at most
  const lower::StepGraph& graph_;
  lower::Widths widths_;
  lower::PackLayout layout_;
};

}  // namespace

/// Participants own as many shares, and the last ones are the first to own one more.
bool StageWork::busiest_has_last(int sharers) const {
  return own_blocks(sharers) == width.blocks ||
         shares(sharers) % static_cast<unsigned>(sharers) == 1;
}

double StageWork::product_blocks(const ProductWork& p, int sharers) const {
  return own_blocks(sharers) - (busiest_has_last(sharers) ? p.saved() : 0.0);
}

double StageWork::weight_bytes(std::uint32_t lanes, int sharers) const {
  double bytes = 0.0;
  for (const ProductWork& p : products) bytes += p.panel_bytes(product_blocks(p, sharers), lanes);
  return bytes;
}

bool StageWork::cuts(std::uint64_t rows, std::uint32_t height) const {
  return jit::tiles_of_several_rows(rows, height) > 1 &&
         std::all_of(products.begin(), products.end(),
                     [](const ProductWork& p) { return p.chains == 1; });
}

std::uint32_t StageWork::panel_units(int sharers, Panel panel) const {
  const auto n = static_cast<std::uint32_t>(sharers);
  return hoisted ? lower::hoisted_units(width, share, n) : width.units(n, panel);
}

std::uint32_t StageWork::highest_tile(Isa isa, int sharers, Panel panel) const {
  if (products.empty()) return 1;
  return lower::max_tile_rows(isa, row_vectors * panel_units(sharers, panel));
}

std::uint32_t StageWork::panels(int sharers, Panel panel) const {
  return parts_of(width.blocks, panel_units(sharers, panel));
}

std::uint32_t StageWork::share_units(int sharers) const {
  return share.units(static_cast<std::uint32_t>(sharers), Panel::narrow);
}

std::uint32_t StageWork::shares(int sharers) const {
  return parts_of(width.blocks, share_units(sharers));
}

std::uint32_t StageWork::own_blocks(int sharers) const {
  return lower::largest_share(width.blocks, share_units(sharers),
                              static_cast<std::uint32_t>(sharers));
}

bool LayerWork::fits_ahead(const LayerSchedule& s, int sharers) const {
  const std::vector<bool>& fit = fits(s.panel).ahead[s.fuse_gates];
  return static_cast<std::size_t>(sharers) <= fit.size() &&
         fit[static_cast<std::size_t>(sharers) - 1];
}

bool LayerWork::widens(bool hoisted, bool fused, int sharers) const {
  const auto& stages = step[hoisted][fused].stages;
  return std::any_of(stages.begin(), stages.end(), [&](const StageWork& s) {
    return s.panel_units(sharers, Panel::wide) != s.panel_units(sharers, Panel::narrow);
  });
}

std::uint32_t LayerWork::panels(int sharers, Panel panel) const {
  std::uint32_t most = 1;
  for (const StageWork& s : step[1][1].stages) most = std::max(most, s.panels(sharers, panel));
  return most;
}

std::uint32_t LayerWork::own_panels(int sharers, Panel panel) const {
  std::uint32_t most = 1;
  for (const StageWork& s : step[1][1].stages) {
    const std::uint32_t units = s.panel_units(sharers, panel);
    most = std::max(most, (s.own_blocks(sharers) + units - 1) / units);
  }
  return most;
}

std::uint32_t LayerWork::hoisted_parts(std::uint32_t lanes, int sharers) const {
  std::uint32_t most = 1;
  for (const StageWork& s : hoist.stages) {
    most = std::max(most, lower::most_panel_parts(s.panels(sharers, Panel::narrow), lanes,
                                                  s.panel_units(sharers, Panel::narrow)));
  }
  return most;
}

std::uint32_t LayerWork::shares(int sharers) const {
  std::uint32_t most = 1;
  for (const auto& forms : step) {
    for (const KernelWork& form : forms) {
      for (const StageWork& s : form.stages) most = std::max(most, s.shares(sharers));
    }
  }
  return most;
}

namespace {

/// Of all rows of the spec.
Result<ModelWork> work_of(const ModelSpec& spec, Isa isa, int threads) {
  ModelWork out;
  out.spec = spec;
  out.isa = isa;
  out.lanes = static_cast<std::uint32_t>(deepcpu::lanes(isa));
  const lower::StepGraph graph = lower::StepGraph::build(spec.cell);
  std::vector<lower::Widths> seen;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    const lower::Widths w = lower::widths_of(spec, layer);
    const auto same =
        static_cast<std::size_t>(std::find(seen.begin(), seen.end(), w) - seen.begin());
    seen.push_back(w);
    if (same < out.layers.size()) {
      out.layers.push_back(LayerWork(out.layers[same]));
      continue;
    }
    auto work = LayerWorker(spec, layer, isa, graph, threads).work();
    if (!work) return work.error();
    out.layers.push_back(std::move(*work));
  }
  for (int layer = 0; layer < spec.layers(); ++layer) {
    if (lower::knows_its_input(spec, layer)) continue;
    LayerWork& work = out.layers[static_cast<std::size_t>(layer)];
    for (auto* fits : {&work.narrow, &work.wide}) {
      for (std::vector<bool>& ahead : fits->ahead) ahead.assign(ahead.size(), false);
    }
  }
  return out;
}

}  // namespace

Result<ModelWork> ModelWork::of(const ModelSpec& spec, Isa isa, int threads) {
  auto out = work_of(spec, isa, threads);
  if (!out) return out;
  std::int64_t rows = spec.batch;
  for (std::int64_t parts = 2; parts <= std::min<std::int64_t>(threads, spec.batch); ++parts) {
    const std::int64_t most = (spec.batch + parts - 1) / parts;
    if (most == rows) continue;
    rows = most;
    ModelSpec part = spec;
    part.batch = rows;
    auto work = work_of(part, isa, threads);
    if (!work) return work;
    out->parts.push_back(std::move(*work));
  }
  return out;
}

const ModelWork& ModelWork::part(int split_rows) const {
  const std::int64_t rows = (spec.batch + split_rows - 1) / split_rows;
  if (rows >= spec.batch || parts.empty()) return *this;
  const auto found = std::find_if(parts.begin(), parts.end(), [rows](const ModelWork& part) {
    return part.spec.batch <= rows;
  });
  return found == parts.end() ? parts.back() : *found;
}

}  // namespace deepcpu
