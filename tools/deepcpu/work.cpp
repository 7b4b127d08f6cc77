// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/work.hpp"

#include <algorithm>

namespace deepcpu::cli {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// `calls` times the products of a plan for `rows` rows.
void add_products(Work& work, const jit::KernelPlan& plan, std::int64_t rows, std::int64_t calls) {
  for (const jit::Stage& stage : plan.stages) {
    for (const jit::Product& product : stage.products) {
      const double weights =
          static_cast<double>(product.k) * stage.width * static_cast<double>(product.gate.size());
      const std::int64_t tiles = ceil_div(rows, stage.tile_rows);
      work.flops += 2.0 * weights * static_cast<double>(rows * calls);
      // Weights that stay in registers are loaded with the rest of the state, once per call.
      const std::int64_t walks = plan.weights_in_registers ? 1 : tiles * calls;
      work.weight_bytes += sizeof(float) * weights * static_cast<double>(walks);
    }
  }
}

}  // namespace

Work count_work(const Compilation& compiled, std::int64_t steps) {
  Work work;
  const std::int64_t batch = compiled.spec.batch;
  for (const ProgramStep& step : compiled.program.steps) {
    const LayerCode& layer = compiled.layers[static_cast<std::size_t>(step.layer)];
    add_products(work, layer.step.bound.plan, batch, steps);
    if (!layer.hoist) continue;
    const Program& program = compiled.program;
    const Blocks blocks = program.blocks_of(steps);
    // A piece has some panels, and one of each of the others has the same steps.
    const auto& pieces = layer.shared_panels.pieces;
    const std::int64_t most =
        pieces ? program.piece_steps(blocks.longest(), pieces->parts()) : blocks.longest();
    for (std::int64_t b = 0; b < blocks.count(); ++b) {
      for (std::int64_t done = 0; done < blocks.size(b); done += most) {
        const std::int64_t together = std::min(most, blocks.size(b) - done);
        add_products(work, layer.hoist->bound.plan, together * batch, 1);
      }
    }
  }
  return work;
}

}  // namespace deepcpu::cli
