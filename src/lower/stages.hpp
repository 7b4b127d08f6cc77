// SPDX-License-Identifier: Apache-2.0
/// Which stage of the step computes what: the fused stages of the PackLayout, split where the
/// schedule does not fuse gates, plus stages for element-wise values that need one of their own.
#pragma once

#include <vector>

#include "src/lower/pack_layout.hpp"
#include "src/lower/step_graph.hpp"

namespace deepcpu::lower {

struct StageDef {
  int level = 0;
  std::uint32_t width = 0;
  std::vector<int> sums;
  int fused = -1;  ///< index into PackLayout::stages, -1 for a stage without products
};

struct StageMap {
  std::vector<StageDef> stages;  ///< in the order they run
  std::vector<int> home;         ///< per expr: the stage that computes it; -1 = wherever it is used
  std::vector<int> store_stage;  ///< per state of the cell: the stage that stores its next value
  int output_stage = 0;

  static StageMap build(const StepGraph& graph, const Widths& widths, const PackLayout& layout,
                        bool fuse_gates);
};

}  // namespace deepcpu::lower
