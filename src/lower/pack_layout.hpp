// SPDX-License-Identifier: Apache-2.0
/// PackLayout: where every weight of one layer and direction stands in the packed copy.
///
/// It depends on the cell, the sizes and the ISA only, never on the schedule, so one packed copy
/// serves every register tile, thread count and hoisting choice. A product's matrix is cut into
/// unit blocks: [unit block][k][gate][lanes], each read as one stream. Where that makes fewer
/// vectors of the last block, gates whose sums take the same products share them; a k is as long
/// there as in the others, if there are any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "jit/kernel_plan.hpp"
#include "src/lower/step_graph.hpp"

namespace deepcpu::lower {

/// Numbers for the symbolic dimensions of one layer.
struct Widths {
  std::uint32_t input = 0;
  std::uint32_t hidden = 0;
  std::uint32_t proj = 0;
  bool operator==(const Widths&) const = default;
  std::uint32_t of(Dim dim) const {
    switch (dim) {
      case Dim::one:
        return 1;
      case Dim::input:
        return input;
      case Dim::hidden:
        return hidden;
      case Dim::proj:
        return proj;
    }
    return 0;
  }
};
Widths widths_of(const ModelSpec& spec, int layer);
/// Whether the input of all steps is there before the layer begins: the first layer's is, and that
/// of layers that hand over whole sequences.
bool knows_its_input(const ModelSpec& spec, int layer);

/// Sums whose units of the last unit block stand side by side in as few vectors as hold them.
struct SharedSums {
  std::vector<int> sums;      ///< indices into StepGraph::sums
  std::uint32_t part = 0;     ///< lanes from one's units to the next one's
  std::uint32_t vectors = 1;  ///< the vectors of the first sums; one, or fewer than there are sums
  std::uint64_t biases = 0;   ///< offset of as many vectors with the biases, if there are any
};

/// Sums that become complete together and share a register tile: same level, same width.
struct FusedStage {
  int level = 0;
  std::uint32_t width = 0;
  std::vector<int> sums;           ///< indices into StepGraph::sums
  std::vector<SharedSums> shared;  ///< each sum is in one of them; none if no vector is saved
  /// In the plan of hoisted products alone: all sums of x·W, if there fewer vectors hold them
  /// though none share any in the time loop; else no sums.
  SharedSums hoisted;
};

/// All products of one fused stage with one operand.
struct PackedMatrix {
  int stage = 0;    ///< fused stage
  int operand = 0;  ///< expr id
  std::uint32_t k = 0;
  std::uint32_t width = 0;
  std::vector<int> parameters;      ///< per gate
  std::vector<int> sums;            ///< per gate: the sum it belongs to
  std::vector<std::uint32_t> last;  ///< per gate, or none: as jit::Product::last
  std::uint32_t vectors = 0;        ///< that the numbers of one k take
  std::uint64_t offset = 0;
  std::uint64_t block_stride = 0;  ///< bytes from one unit block to the next
};

/// A vector of one number per unit: the folded biases of a sum, or one parameter.
struct PackedVector {
  std::vector<int> parameters;  ///< added up in this order, in float32
  std::uint32_t width = 0;
  std::uint64_t offset = 0;
};

struct PackLayout {
  std::uint32_t lanes = 16;
  std::vector<FusedStage> stages;
  std::vector<PackedMatrix> matrices;
  std::vector<PackedVector> sum_bias;    ///< one per sum; no parameters = no bias
  std::vector<PackedVector> parameters;  ///< one per parameter of the cell; empty if unused alone
  std::uint64_t bytes = 0;

  static PackLayout build(const Cell& cell, const StepGraph& graph, const Widths& widths,
                          std::uint32_t lanes);
  std::string to_text(const Cell& cell) const;
};

/// Copies the weights of one layer and direction into `out` (layout.bytes long, zeroed here).
/// The tensors have been checked against the spec.
void pack(const Cell& cell, const PackLayout& layout, const Widths& widths, const Weights& weights,
          const std::string& tensor_suffix, std::byte* out);

}  // namespace deepcpu::lower
