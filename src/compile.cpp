// SPDX-License-Identifier: Apache-2.0
#include "src/compile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "jit/emitter.hpp"
#include "jit/inspect/listing.hpp"
#include "src/dag/matmul_dag.hpp"
#include "src/dag/phases.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/system.hpp"
#include "src/runtime/hoist_share.hpp"
#include "src/runtime/kernel_cache.hpp"
#include "src/schedule/check.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/wisdom_store.hpp"

namespace deepcpu {
namespace {

/// Walking orders of one stage: forward, and backward by groups that stay forward inside.
std::vector<std::uint32_t> order_of(std::uint32_t first, std::uint32_t count, std::uint32_t group,
                                    bool backward) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), first);
  if (!backward) return order;
  std::vector<std::uint32_t> out;
  for (std::uint32_t end = count; end > 0;) {
    const std::uint32_t begin = (end - 1) / group * group;
    out.insert(out.end(), order.begin() + begin, order.begin() + end);
    end = begin;
  }
  return out;
}

/// The panels of a stage that participant p of n owns: first and number (lower::Sharing).
std::pair<std::uint32_t, std::uint32_t> owned_panels(const jit::KernelPlan& plan,
                                                     const jit::KernelPlan& step,
                                                     const jit::Stage& stage, std::uint32_t p,
                                                     std::uint32_t n) {
  const std::uint32_t shares = lower::shares(step, stage.width);
  const std::uint32_t per = lower::share_units(step, stage.width) / stage.units_per_panel;
  const std::uint32_t panels = plan.panels(stage);
  // Panels in front of share s; the last share may have fewer, or one that is not full.
  const auto before = [&](std::uint32_t s) { return s == shares ? panels : s * per; };
  const std::uint32_t first = before(shares * p / n);
  return {first, before(shares * (p + 1) / n) - first};
}

/// Part p of n of some panels of a stage (first and number), of which none depends on another
/// stage. What two parts store never shares a cache line.
std::pair<std::uint32_t, std::uint32_t> panels_of_part(
    const jit::KernelPlan& plan, const jit::Stage& stage,
    std::pair<std::uint32_t, std::uint32_t> panels, std::uint32_t p, std::uint32_t n) {
  const std::uint32_t together = lower::panels_per_line(plan.lanes, stage.units_per_panel);
  const std::uint32_t first = panels.first;
  const std::uint32_t end = first + panels.second;
  const std::uint32_t skipped = first / together;  // whole lines
  const std::uint32_t lines = (end + together - 1) / together - skipped;
  const auto before = [&](std::uint32_t part) {
    return std::clamp((skipped + lines * part / n) * together, first, end);
  };
  return {before(p), before(p + 1) - before(p)};
}

/// Divides the panels of every stage of `plan` into contiguous ranges. `range(stage, p)` gives the
/// first and the number of those of participant or part p.
template <class Range>
std::unique_ptr<PanelOrders> panel_orders(const jit::KernelPlan& plan, const LayerSchedule& layer,
                                          std::uint32_t parts, Range range) {
  auto out = std::make_unique<PanelOrders>();
  out->stages = plan.stages.size();
  std::vector<std::size_t> at;
  const bool alternating = layer.sweep == Sweep::alternating;
  for (std::uint32_t p = 0; p < parts; ++p) {
    for (const jit::Stage& stage : plan.stages) {
      const auto [first, count] = range(stage, p);
      for (const bool backward : {false, alternating}) {
        const auto order =
            order_of(first, count, static_cast<std::uint32_t>(layer.group), backward);
        at.push_back(out->numbers.size());
        out->numbers.insert(out->numbers.end(), order.begin(), order.end());
      }
      out->ranges.push_back({{nullptr, nullptr}, count});
    }
  }
  for (std::size_t i = 0; i < out->ranges.size(); ++i) {
    out->ranges[i].order[0] = out->numbers.data() + at[2 * i];
    out->ranges[i].order[1] = out->numbers.data() + at[2 * i + 1];
  }
  return out;
}

/// Of the stage with the most, how many parts there can be: see panels_of_part().
std::uint32_t most_parts(const jit::KernelPlan& plan) {
  std::uint32_t most = 1;
  for (const jit::Stage& stage : plan.stages) {
    most = std::max(most,
                    lower::most_panel_parts(plan.panels(stage), plan.lanes, stage.units_per_panel));
  }
  return most;
}

LayerPanels layer_panels(const LayerCode& layer, const LayerSchedule& schedule,
                         const Program& program) {
  const auto group = static_cast<std::uint32_t>(program.group);
  const jit::KernelPlan& step = layer.step.bound.plan;
  const auto owned = [&](const jit::KernelPlan& plan) {
    return panel_orders(plan, schedule, group, [&](const jit::Stage& stage, std::uint32_t p) {
      return owned_panels(plan, step, stage, p, group);
    });
  };
  LayerPanels out;
  out.step = owned(step);
  if (!layer.hoist) return out;
  const jit::KernelPlan& hoist = layer.hoist->bound.plan;
  out.hoist = owned(hoist);
  // With products ahead few blocks are hoisted by themselves, and not by all participants alike.
  if (group > 1 && !layer.ahead) {
    std::uint32_t most = 1;
    for (std::size_t s = 0; s < hoist.stages.size(); ++s) {
      most = std::max(most, static_cast<std::uint32_t>(out.hoist->of(0)[s].count));
    }
    const std::uint32_t each = std::min<std::uint32_t>(most, HoistShare::kPieces);
    out.own_pieces =
        panel_orders(hoist, schedule, group * each, [&](const jit::Stage& stage, std::uint32_t i) {
          const auto own = owned_panels(hoist, step, stage, i / each, group);
          return panels_of_part(hoist, stage, own, i % each, each);
        });
  }
  if (program.hoisters == 0) return out;
  const auto parts = static_cast<std::uint32_t>(program.panel_parts(most_parts(hoist)));
  out.pieces = panel_orders(hoist, schedule, parts, [&](const jit::Stage& stage, std::uint32_t p) {
    return panels_of_part(hoist, stage, {0, hoist.panels(stage)}, p, parts);
  });
  return out;
}

double microseconds_since(std::chrono::steady_clock::time_point start) {
  const std::chrono::duration<double, std::micro> passed = std::chrono::steady_clock::now() - start;
  return passed.count();
}

/// Code for a plan, or none where the interpreter has to serve: then a note says why.
Result<std::shared_ptr<const jit::CodeBlob>> code_for(const jit::KernelPlan& plan) {
  if (plan.isa == Isa::interpreter) return std::shared_ptr<const jit::CodeBlob>();
  return kernel_cache().get_or_compile(plan, [](const jit::KernelPlan& p) { return jit::emit(p); });
}

void add_note(std::vector<std::string>& notes, std::string note) {
  if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
}

/// Where a kernel cannot be emitted the interpreter serves and a note says why; but if that is for
/// lack of memory, which may pass, it is an error.
Status emit_kernel(Kernel& kernel, std::vector<std::string>& notes) {
  const auto start = std::chrono::steady_clock::now();
  auto code = code_for(kernel.bound.plan);
  kernel.microseconds = microseconds_since(start);
  if (code) {
    kernel.code = *code;
    return {};
  }
  if (code.error().kind() == ErrorKind::memory) return code.error();
  kernel.too_large = code.error().kind() == ErrorKind::code_size;
  add_note(notes, code.error().message() + "; the interpreter serves instead");
  return {};
}

/// Where the kernel with products ahead cannot be emitted, the two that it stands in for serve.
Status emit_ahead(LayerCode& layer, std::vector<std::string>& notes) {
  const auto start = std::chrono::steady_clock::now();
  auto code = code_for(layer.ahead->bound.plan);
  layer.ahead->microseconds = microseconds_since(start);
  if (code) {
    layer.ahead->code = *code;
    return {};
  }
  if (code.error().kind() == ErrorKind::memory) return code.error();
  add_note(notes, code.error().message() + "; hoisted products run before the time loop instead");
  layer.ahead.reset();
  layer.ahead_sums.clear();
  return {};
}

std::string layer_name(const ModelSpec& spec, int layer) {
  const auto at = static_cast<std::size_t>(layer);
  return fmt::format("{}.i{}.h{}", spec.cell.name(), spec.width(Dim::input, layer),
                     spec.hidden[at]);
}

Result<LayerCode> compile_layer(const Compilation& c, int layer, std::vector<std::string>& notes) {
  const auto at = static_cast<std::size_t>(layer);
  const LayerSchedule& schedule = c.schedule.layers[at];
  LayerCode out;
  out.widths = lower::widths_of(c.spec, layer);
  out.layout = lower::PackLayout::build(c.spec.cell, c.graph, out.widths,
                                        static_cast<std::uint32_t>(lanes(c.schedule.isa)));
  const auto rows = static_cast<std::uint32_t>(c.program.part_rows(c.spec.batch));
  auto plans = lower::lower_layer({c.spec.cell, c.graph, out.widths, out.layout, schedule,
                                   c.schedule.isa, rows, c.program.sharing(c.schedule.exchange)},
                                  layer_name(c.spec, layer));
  if (!plans) return Error(fmt::format("layers[{}].{}", layer, plans.error().message()));
  out.step.bound = std::move(plans->step);
  out.hoisted_row = plans->hoisted_row;
  if (auto st = emit_kernel(out.step, notes); !st) return st.error();
  if (plans->hoist) {
    out.hoist = std::make_unique<Kernel>();
    out.hoist->bound = std::move(*plans->hoist);
    if (auto st = emit_kernel(*out.hoist, notes); !st) return st.error();
  }
  if (plans->ahead) {
    out.ahead = std::make_unique<Kernel>();
    out.ahead->bound = std::move(*plans->ahead);
    out.ahead_sums = std::move(plans->ahead_sums);
    if (auto st = emit_ahead(out, notes); !st) return st.error();
  }
  out.shared_panels = layer_panels(out, schedule, c.program);
  out.serial_panels = layer_panels(out, schedule, c.serial_program);
  return out;
}

/// Makes the register tiles of a layer smaller; false if they are as small as they can be.
bool shrink_tiles(LayerSchedule& layer) {
  if (layer.panel == Panel::wide) {
    layer.panel = Panel::narrow;
    return true;
  }
  int& rows = layer.tile_rows > 1 ? layer.tile_rows : layer.hoist_rows;
  if (rows == 1) return false;
  rows /= 2;
  return true;
}

/// Compiles a layer by the schedule of our own choice. A cell with much element-wise work can
/// exceed the code size with large tiles: then smaller ones are tried before the interpreter
/// serves.
Result<LayerCode> compile_fitting(Compilation& c, int layer) {
  LayerSchedule& schedule = c.schedule.layers[static_cast<std::size_t>(layer)];
  for (;;) {
    std::vector<std::string> notes;
    auto code = compile_layer(c, layer, notes);
    if (!code || !code->too_large() || !shrink_tiles(schedule)) {
      for (std::string& note : notes) add_note(c.notes, std::move(note));
      return code;
    }
  }
}

/// The schedule by itself, and against this machine and the caller's caps.
Status check_legal(const ModelSpec& spec, const Schedule& s, const CompileOptions& options) {
  auto st = check_schedule(s, spec.hidden.size());
  if (!st) return Error("schedule." + st.error().message());
  if (s.isa > host_isa()) {
    return Error(fmt::format("schedule.isa={}: this machine offers {} at most", to_string(s.isa),
                             to_string(host_isa())));
  }
  if (options.isa && s.isa > *options.isa) {
    return Error(
        fmt::format("schedule.isa={}: the cap is {}", to_string(s.isa), to_string(*options.isa)));
  }
  if (s.threads < 1 || s.threads > options.threads) {
    return Error(
        fmt::format("schedule.threads={}: must be between 1 and {}", s.threads, options.threads));
  }
  return {};
}

Isa pick_isa(const CompileOptions& options, std::vector<std::string>& notes) {
  (void)machine();  // if there is no memory to find it out, this says so; host_isa() cannot
  const Isa host = host_isa();
  const Isa isa = options.isa && *options.isa < host ? *options.isa : host;
  if (std::string note = isa_note(); !note.empty()) {
    add_note(notes, std::move(note));
  } else if (host == Isa::interpreter && options.isa.value_or(Isa::avx2) != Isa::interpreter) {
    add_note(notes, "isa=interpreter: no code is emitted; the interpreter serves");
  }
  return isa;
}

/// The caller's cap, as far as the calling thread may use that many processors.
int threads_within(int cap, int cpus, std::vector<std::string>& notes) {
  const Machine& m = machine();
  if (m.cpu_quota > 0 && m.cpu_quota < 1.0) {
    add_note(notes, fmt::format("threads: the control group grants {:.2f} processors; one thread "
                                "is used",
                                m.cpu_quota));
  }
  const int usable = usable_threads(cpus, m.cpu_quota);
  if (cap > usable) {
    add_note(notes,
             fmt::format("threads={}: the calling thread may use {} processors; no more are used",
                         cap, usable));
  }
  return std::min(cap, usable);
}

/// A tuned schedule where one is loaded, else the one that the cost model likes best.
Result<Schedule> choose_schedule(Compilation& c, Isa isa, int threads) {
  auto tuned = wisdom::find(c.spec, isa, threads, c.notes);
  c.tuned = tuned.has_value();
  if (tuned) return std::move(*tuned);
  if (machine_model().refused) add_note(c.notes, machine_model().note);
  return estimate_schedule(c.spec, isa, threads, machine_model());
}

std::string plan_text(const Compilation& c) {
  std::string out = c.program.to_text();
  for (const LayerCode& l : c.layers) {
    out += l.layout.to_text(c.spec.cell);
    if (l.hoist) out += jit::to_text(l.hoist->bound.plan);
    out += jit::to_text(l.step.bound.plan);
    if (l.ahead) out += jit::to_text(l.ahead->bound.plan);
  }
  return out;
}

std::string asm_text(const Compilation& c) {
  std::string out;
  for (const LayerCode& l : c.layers) {
    if (l.hoist && l.hoist->code) out += jit::inspect::listing(*l.hoist->code);
    if (l.step.code) out += jit::inspect::listing(*l.step.code);
    if (l.ahead && l.ahead->code) out += jit::inspect::listing(*l.ahead->code);
  }
  return out.empty() ? "no code: the interpreter serves\n" : out;
}

void report(const Compilation& c, const CompileOptions& options) {
  const char* verbose = std::getenv("DEEPCPU_VERBOSE");
  if (verbose == nullptr || std::string_view(verbose) != "1") return;
  const char* source = options.schedule ? "given" : c.tuned ? "wisdom" : "estimate";
  const std::string from = fmt::format("deepcpu,schedule,{},{}\n", c.spec.str(), source);
  std::fputs(from.c_str(), stderr);
  for (const LayerCode& l : c.layers) {
    for (const Kernel* k :
         std::initializer_list<const Kernel*>{l.hoist.get(), &l.step, l.ahead.get()}) {
      if (k == nullptr) continue;
      const std::string line =
          fmt::format("deepcpu,compile,{},{},{},{:.1f}\n", c.spec.str(), to_string(c.schedule.isa),
                      k->code ? k->code->size() : 0, k->microseconds);
      std::fputs(line.c_str(), stderr);
    }
  }
}

}  // namespace

Result<Compilation> compile_program(const ModelSpec& spec, const CompileOptions& options,
                                    const DumpHook& dump) {
  const auto start = std::chrono::steady_clock::now();
  if (options.threads < 1) {
    return Error(fmt::format("threads={}: must be at least 1", options.threads));
  }
  Compilation c;
  c.spec = spec;
  c.processors = static_cast<int>(affinity().size());
  if (dump) dump("cell", spec.cell.to_text());
  if (dump) dump("dag", MatmulDag::build(spec.cell).to_text(spec));
  if (dump) dump("phases", phases_text(MatmulDag::build(spec.cell), spec));
  const Isa isa = pick_isa(options, c.notes);
  if (options.schedule) {
    c.schedule = *options.schedule;
  } else {
    const int threads = threads_within(options.threads, c.processors, c.notes);
    auto chosen = choose_schedule(c, isa, threads);
    if (!chosen) return chosen.error();
    c.schedule = std::move(*chosen);
  }
  if (auto st = check_legal(spec, c.schedule, options); !st) return st.error();
  if (auto st = check_division(spec, c.schedule); !st)
    return Error("schedule." + st.error().message());
  c.graph = lower::StepGraph::build(spec.cell);
  c.program = Program::build(spec, c.schedule);
  Schedule serial = c.schedule;
  serial.threads = 1;
  if (serial.parallel == Parallel::hoist) serial.parallel = Parallel::none;
  c.serial_program = Program::build(spec, serial);
  for (int layer = 0; layer < spec.layers(); ++layer) {
    auto code = options.schedule ? compile_layer(c, layer, c.notes) : compile_fitting(c, layer);
    if (!code) return code.error();
    c.schedule.layers[static_cast<std::size_t>(layer)].hoist_ahead = code->ahead != nullptr;
    c.layers.push_back(std::move(*code));
  }
  // There are no products ahead if the kernels with them could not be emitted.
  c.program.full_blocks = c.serial_program.full_blocks =
      std::any_of(c.layers.begin(), c.layers.end(),
                  [](const LayerCode& layer) { return layer.ahead != nullptr; });
  c.microseconds = microseconds_since(start);
  if (dump) dump("schedule", c.schedule.to_json() + "\n");
  if (dump) dump("plan", plan_text(c));
  if (dump) dump("asm", asm_text(c));
  report(c, options);
  return c;
}

}  // namespace deepcpu
