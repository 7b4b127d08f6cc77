// SPDX-License-Identifier: Apache-2.0
/// Which gates share the vectors of the last unit block, and where their weights stand there.
#include <string>
#include <vector>

#include "src/lower/pack_layout.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

using lower::PackLayout;

struct Packed {
  ModelSpec spec;
  PackLayout layout;
};

Packed packed(const std::string& problem, std::uint32_t lanes) {
  Packed p{ModelSpec::parse(problem).value(), {}};
  const auto graph = lower::StepGraph::build(p.spec.cell);
  p.layout = PackLayout::build(p.spec.cell, graph, lower::widths_of(p.spec, 0), lanes);
  return p;
}

/// Sums of each group, of all stages: "4" = four share a vector, "" = none do.
std::string groups(const std::string& problem, std::uint32_t lanes) {
  std::string out;
  for (const lower::FusedStage& stage : packed(problem, lanes).layout.stages) {
    for (const auto& group : stage.shared) out += std::to_string(group.size());
  }
  return out;
}

TEST_CASE("shared gates: those whose sums take the same products") {
  CHECK(groups("lstm:i20h36", 16) == "4");  // 4 units are left
  CHECK(groups("lstm:i20h40", 16) == "22");
  CHECK(groups("lstm:i20h40", 8).empty());
  CHECK(groups("lstm:i20h36", 8) == "22");
  CHECK(groups("lstm:i20h41", 16).empty());  // more than half a vector
  CHECK(groups("lstm:i20h32", 16).empty());
  CHECK(groups("gru:i20h36", 16) == "211");  // n has a sum for x and one for h
  CHECK(groups("gru:i20h36,reset=before", 16) == "2");
  CHECK(groups("rnn:i20h36", 16).empty());
  // A single unit block: only beside a long product.
  CHECK(groups("lstm:i4h4", 16).empty());
  CHECK(groups("lstm:i64h4", 16) == "4");
  CHECK(groups("lstm:i4h12", 8) == "22");
}

TEST_CASE("shared gates: weights and biases stand where the plan says") {
  const Packed p = packed("lstm:i3h18", 16);
  const Weights weights = Weights::random(p.spec, 1).value();
  std::vector<float> out(p.layout.bytes / sizeof(float));
  lower::pack(p.spec.cell, p.layout, lower::widths_of(p.spec, 0), weights, "_l0",
              reinterpret_cast<std::byte*>(out.data()));
  REQUIRE(p.layout.matrices.size() == 2);
  for (const lower::PackedMatrix& m : p.layout.matrices) {
    REQUIRE(m.last.size() == 4);
    const bool of_input = m.k == 3;
    const Tensor& tensor = weights.tensors().at(of_input ? "weight_ih_l0" : "weight_hh_l0");
    for (std::uint32_t gate = 0; gate < 4; ++gate) {
      CHECK(m.last[gate] == 4 * gate);
      const Parameter& from =
          p.spec.cell.parameters()[static_cast<std::size_t>(m.parameters[gate])];
      const auto first = static_cast<std::size_t>(from.block) * 18;
      for (std::uint32_t unit = 0; unit < 18; ++unit) {
        const std::size_t lane = unit < 16 ? gate * 16 + unit : m.last[gate] + unit - 16;
        for (std::uint32_t k = 0; k < m.k; ++k) {
          const std::size_t block = (m.offset + unit / 16 * m.block_stride) / sizeof(float);
          CHECK(out[block + k * 64 + lane] == tensor.data[(first + unit) * m.k + k]);
        }
      }
    }
  }
  // The first gate's bias ends with those of all.
  const float* biases = out.data() + p.layout.sum_bias[0].offset / sizeof(float) + 16;
  for (std::size_t gate = 0; gate < 4; ++gate) {
    const float* own = out.data() + p.layout.sum_bias[gate].offset / sizeof(float);
    CHECK(own[15] != 0.0F);
    const auto block = static_cast<std::size_t>(
        p.spec.cell.parameters()[static_cast<std::size_t>(p.layout.sum_bias[gate].parameters[0])]
            .block);
    for (std::size_t unit = 16; unit < 18; ++unit) {
      const float sum = weights.tensors().at("bias_ih_l0").data[block * 18 + unit] +
                        weights.tensors().at("bias_hh_l0").data[block * 18 + unit];
      CHECK(biases[4 * gate + unit - 16] == sum);
    }
  }
}

}  // namespace
}  // namespace deepcpu
