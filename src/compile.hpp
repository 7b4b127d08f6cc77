// SPDX-License-Identifier: Apache-2.0
/// The compiler on one page: from a spec to kernels; what each stage made can be dumped.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"
#include "jit/code_blob.hpp"
#include "src/lower/lower.hpp"
#include "src/lower/pack_layout.hpp"
#include "src/lower/step_graph.hpp"
#include "src/runtime/program.hpp"

namespace deepcpu {

/// A plan that can be run: by its code, or by the interpreter where there is none.
struct Kernel {
  lower::BoundPlan bound;
  std::shared_ptr<const jit::CodeBlob> code;
  double microseconds = 0.0;  ///< to emit it, or to find it in the cache
  bool too_large = false;     ///< there is no code because it would exceed what is allowed

  void operator()(const jit::KernelArgs& args) const noexcept {
    if (code) {
      code->entry()(&args);
    } else {
      jit::interpret(bound.plan, args);
    }
  }
};

/// The panels of every stage of a plan, divided over participants or into parts, in walking order.
struct PanelOrders {
  std::vector<std::uint32_t> numbers;
  std::vector<jit::PanelRange> ranges;  ///< [participant][stage]
  std::size_t stages = 0;
  PanelOrders() = default;
  PanelOrders(const PanelOrders&) = delete;  // ranges point into numbers
  PanelOrders& operator=(const PanelOrders&) = delete;

  const jit::PanelRange* of(int participant) const {
    return ranges.data() + static_cast<std::size_t>(participant) * stages;
  }
  std::int64_t parts() const {
    return stages == 0 ? 1 : static_cast<std::int64_t>(ranges.size() / stages);
  }
};

/// Orders of the kernels of a layer for one number of participants.
struct LayerPanels {
  std::unique_ptr<PanelOrders> step;
  std::unique_ptr<PanelOrders> hoist;   ///< null if nothing is hoisted
  std::unique_ptr<PanelOrders> pieces;  ///< with hoisters: of the parts of Program::panel_parts
  /// With several participants, of the pieces of each in turn, as many for everybody: HoistShare.
  std::unique_ptr<PanelOrders> own_pieces;
};

/// One layer; its directions share everything but the weights.
struct LayerCode {
  lower::Widths widths;
  lower::PackLayout layout;
  Kernel step;
  std::unique_ptr<Kernel> hoist;
  std::uint64_t hoisted_row = 0;
  std::unique_ptr<Kernel> ahead;  ///< step with products of the next block; null if not asked for
  std::vector<lower::AheadSum> ahead_sums;
  LayerPanels shared_panels;  ///< for the schedule's participants
  LayerPanels serial_panels;  ///< for one participant

  const LayerPanels& panels(bool serial) const { return serial ? serial_panels : shared_panels; }
  bool too_large() const { return step.too_large || (hoist && hoist->too_large); }
};

/// Everything compile_program derives; immutable afterwards.
struct Compilation {
  ModelSpec spec;
  Schedule schedule;
  bool tuned = false;  ///< the schedule came from wisdom
  lower::StepGraph graph;
  std::vector<LayerCode> layers;
  Program program;
  Program serial_program;  ///< the same on one participant, for when threads cannot be had
  int processors = 1;      ///< that the thread which compiled could use
  std::vector<std::string> notes;
  double microseconds = 0.0;
};

/// Called after each stage with its name (cell, dag, phases, schedule, plan, asm) and its text.
/// An empty hook costs nothing: no text is made.
using DumpHook = std::function<void(std::string_view stage, const std::string& text)>;

/// Schedule, lower, emit. Weights play no part. `spec` is valid (ModelSpec::validate).
Result<Compilation> compile_program(const ModelSpec& spec, const CompileOptions& options,
                                    const DumpHook& dump = {});

}  // namespace deepcpu
