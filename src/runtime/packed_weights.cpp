// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/packed_weights.hpp"

#include "src/lower/pack_layout.hpp"
#include "src/model/weights.hpp"

namespace deepcpu {
namespace {

constexpr std::uint64_t kPage = 4096;

/// Offsets in one block; a page apart so that no two layers share a cache line.
std::uint64_t place(const Compilation& compiled, std::vector<std::uint64_t>& at) {
  std::uint64_t bytes = 0;
  for (const ProgramStep& step : compiled.program.steps) {
    at.push_back(bytes);
    const auto& layout = compiled.layers[static_cast<std::size_t>(step.layer)].layout;
    bytes += (layout.bytes + kPage - 1) / kPage * kPage;
  }
  return bytes;
}

}  // namespace

Result<std::shared_ptr<const PackedWeights>> pack_weights(const Compilation& compiled,
                                                          const Weights& weights) {
  auto packed = std::make_shared<PackedWeights>();
  const std::uint64_t bytes = place(compiled, packed->at);
  if (auto st = check_available("weights: packed they take", bytes); !st) return st.error();
  packed->bytes = AlignedBytes(bytes);
  const auto& steps = compiled.program.steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const LayerCode& layer = compiled.layers[static_cast<std::size_t>(steps[i].layer)];
    lower::pack(compiled.spec.cell, layer.layout, layer.widths, weights,
                tensor_name("", steps[i].layer, steps[i].direction),
                packed->bytes.data() + packed->at[i]);
  }
  return std::shared_ptr<const PackedWeights>(std::move(packed));
}

}  // namespace deepcpu
