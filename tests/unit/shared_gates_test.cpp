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

/// Sums and vectors of each group, of all stages: "4/1" = four share a vector, "" = none do.
std::string groups(const std::string& problem, std::uint32_t lanes) {
  std::string out;
  for (const lower::FusedStage& stage : packed(problem, lanes).layout.stages) {
    for (const lower::SharedSums& group : stage.shared) {
      out += (out.empty() ? "" : " ") + std::to_string(group.sums.size()) + "/" +
             std::to_string(group.vectors);
    }
  }
  return out;
}

TEST_CASE("shared gates: those whose sums take the same products") {
  CHECK(groups("lstm:i20h36", 16) == "4/1");  // 4 units are left
  CHECK(groups("lstm:i20h40", 16) == "4/2");
  CHECK(groups("lstm:i20h40", 8).empty());
  CHECK(groups("lstm:i20h36", 8) == "4/2");
  CHECK(groups("lstm:i20h42", 16) == "4/3");
  CHECK(groups("lstm:i20h44", 16) == "4/3");
  CHECK(groups("lstm:i20h45", 16).empty());
  CHECK(groups("lstm:i20h37", 8).empty());
  CHECK(groups("lstm:i20h32", 16).empty());
  CHECK(groups("gru:i20h36", 16) == "2/1 1/1 1/1");  // n has a sum for x and one for h
  CHECK(groups("gru:i20h36,reset=before", 16) == "2/1");
  CHECK(groups("gru:i20h41", 16).empty());
  CHECK(groups("rnn:i20h36", 16).empty());
  // A single unit block: only beside a long product.
  CHECK(groups("lstm:i4h4", 16).empty());
  CHECK(groups("lstm:i64h4", 16) == "4/1");
  CHECK(groups("lstm:i4h12", 8) == "4/2");
}

/// `part`: lanes from one gate to the next in the second of two unit blocks.
void check_packed(std::uint32_t hidden, std::uint32_t part) {
  const Packed p = packed("lstm:i3h" + std::to_string(hidden), 16);
  const Weights weights = Weights::random(p.spec, 1).value();
  std::vector<float> out(p.layout.bytes / sizeof(float));
  lower::pack(p.spec.cell, p.layout, lower::widths_of(p.spec, 0), weights, "_l0",
              reinterpret_cast<std::byte*>(out.data()));
  const auto row = [&](int parameter, std::uint32_t unit) {
    const Parameter& from = p.spec.cell.parameters()[static_cast<std::size_t>(parameter)];
    return static_cast<std::size_t>(from.block) * hidden + unit;
  };
  REQUIRE(p.layout.matrices.size() == 2);
  for (const lower::PackedMatrix& m : p.layout.matrices) {
    REQUIRE(m.last.size() == 4);
    const Tensor& tensor = weights.tensors().at(m.k == 3 ? "weight_ih_l0" : "weight_hh_l0");
    for (std::uint32_t gate = 0; gate < 4; ++gate) {
      CHECK(m.last[gate] == part * gate);
      for (std::uint32_t unit = 0; unit < hidden; ++unit) {
        const std::size_t lane = unit < 16 ? gate * 16 + unit : m.last[gate] + unit - 16;
        const std::size_t block = (m.offset + unit / 16 * m.block_stride) / sizeof(float);
        for (std::uint32_t k = 0; k < m.k; ++k) {
          CHECK(out[block + k * 64 + lane] == tensor.data[row(m.parameters[gate], unit) * m.k + k]);
        }
      }
    }
  }
  // The biases of the last units stand side by side, too, and each beside its own others.
  const float* biases = out.data() + p.layout.stages[0].shared[0].biases / sizeof(float);
  for (std::size_t gate = 0; gate < 4; ++gate) {
    const lower::PackedVector& bias = p.layout.sum_bias[gate];
    for (std::uint32_t unit = 0; unit < hidden; ++unit) {
      const std::size_t from = row(bias.parameters[0], unit);
      const float sum = weights.tensors().at("bias_ih_l0").data[from] +
                        weights.tensors().at("bias_hh_l0").data[from];
      CHECK(out[bias.offset / sizeof(float) + unit] == sum);
      if (unit >= 16) CHECK(biases[part * gate + unit - 16] == sum);
    }
  }
}

TEST_CASE("shared gates: hoisted sums of a product share whatever the time loop adds") {
  const auto hoisted = [](const std::string& problem, std::uint32_t lanes) {
    const lower::SharedSums all = packed(problem, lanes).layout.stages.front().hoisted;
    return all.sums.empty() ? ""
                            : std::to_string(all.sums.size()) + "/" + std::to_string(all.vectors);
  };
  CHECK(hoisted("gru:i20h42", 16) == "3/2");
  CHECK(hoisted("gru:i20h40", 16).empty());  // as in the time loop, where r and z share
  CHECK(hoisted("gru:i20h43", 16).empty());
  CHECK(hoisted("gru:i20h36", 8).empty());
  CHECK(hoisted("gru:i20h42,reset=before", 16).empty());  // n is in a stage of its own
  CHECK(hoisted("lstm:i20h42", 16).empty());              // as in the time loop
  CHECK(hoisted("gru:i64h9", 16) == "3/2");
  CHECK(hoisted("gru:i4h9", 16).empty());
}

TEST_CASE("shared gates: weights and biases stand where the plan says") {
  check_packed(18, 2);
  check_packed(22, 6);
  check_packed(26, 10);
  check_packed(28, 12);
}

}  // namespace
}  // namespace deepcpu
