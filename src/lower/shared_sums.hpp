// SPDX-License-Identifier: Apache-2.0
/// Which sums share the vectors of a last unit block, and where their weights stand there.
#pragma once

#include "src/lower/pack_layout.hpp"
#include "src/lower/step_graph.hpp"

namespace deepcpu::lower {

/// Sets FusedStage::shared and hoisted, but for the offsets of biases, and PackedMatrix::last and,
/// of a single unit block, vectors. The layout has its stages, matrices and biases already, with a
/// vector for each gate.
void share_vectors(const StepGraph& graph, PackLayout& layout);

}  // namespace deepcpu::lower
