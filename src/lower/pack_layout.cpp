// SPDX-License-Identifier: Apache-2.0
#include "src/lower/pack_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "src/lower/context.hpp"
#include "src/lower/shared_sums.hpp"

namespace deepcpu::lower {
namespace {

/// Gates that one register tile may hold; more are computed in a further stage.
constexpr std::size_t kMaxGates = 8;

std::vector<FusedStage> fuse(const StepGraph& graph, const Widths& widths) {
  std::vector<FusedStage> stages;
  for (int s = 0; s < static_cast<int>(graph.sums.size()); ++s) {
    const Expr& e = graph.exprs[at(graph.sums[at(s)].expr)];
    const std::uint32_t width = widths.of(e.dim);
    auto it = std::find_if(stages.begin(), stages.end(), [&](const FusedStage& f) {
      return f.level == e.level && f.width == width && f.sums.size() < kMaxGates;
    });
    if (it == stages.end()) it = stages.insert(stages.end(), {e.level, width, {}, {}, {}});
    it->sums.push_back(s);
  }
  std::stable_sort(stages.begin(), stages.end(), [](const FusedStage& a, const FusedStage& b) {
    return a.level != b.level ? a.level < b.level : a.width > b.width;
  });
  return stages;
}

void add_matrices(const StepGraph& graph, const Widths& widths, int stage_index,
                  PackLayout& layout) {
  const FusedStage& stage = layout.stages[at(stage_index)];
  const std::size_t first = layout.matrices.size();
  for (const int s : stage.sums) {
    for (const SumProduct& p : graph.sums[at(s)].products) {
      auto it = std::find_if(layout.matrices.begin() + static_cast<std::ptrdiff_t>(first),
                             layout.matrices.end(), [&](const PackedMatrix& m) {
                               return m.operand == p.operand &&
                                      std::find(m.sums.begin(), m.sums.end(), s) == m.sums.end();
                             });
      if (it == layout.matrices.end()) {
        PackedMatrix m;
        m.stage = stage_index;
        m.operand = p.operand;
        m.k = widths.of(graph.exprs[at(p.operand)].dim);
        m.width = stage.width;
        it = layout.matrices.insert(layout.matrices.end(), std::move(m));
      }
      it->parameters.push_back(p.parameter);
      it->sums.push_back(s);
    }
  }
}

/// Parameters that the epilogue reads one by one (peepholes, biases outside a sum).
std::vector<bool> vectors_read_alone(const Cell& cell, const StepGraph& graph) {
  std::vector<bool> alone(cell.parameters().size(), false);
  auto mark = [&](int arg) {
    if (arg < 0) return;
    const Expr& e = graph.exprs[at(arg)];
    if (e.kind == Kind::parameter) alone[at(e.index)] = true;
  };
  for (const Expr& e : graph.exprs) {
    mark(e.a);
    mark(e.b);
    mark(e.c);
  }
  for (const int next : graph.state_next) mark(next);
  mark(graph.output);
  for (const SumExpr& s : graph.sums) {
    for (const SumProduct& p : s.products) mark(p.operand);
  }
  return alone;
}

}  // namespace

bool knows_its_input(const ModelSpec& spec, int layer) {
  return layer == 0 || spec.directions() == 2;
}

Widths widths_of(const ModelSpec& spec, int layer) {
  auto number = [&](Dim d) { return static_cast<std::uint32_t>(spec.width(d, layer)); };
  return {number(Dim::input), number(Dim::hidden), number(Dim::proj)};
}

PackLayout PackLayout::build(const Cell& cell, const StepGraph& graph, const Widths& widths,
                             std::uint32_t lanes) {
  PackLayout layout;
  layout.lanes = lanes;
  layout.stages = fuse(graph, widths);
  for (int i = 0; i < static_cast<int>(layout.stages.size()); ++i) {
    add_matrices(graph, widths, i, layout);
  }
  std::uint64_t offset = 0;
  const std::uint64_t vector_bytes = std::uint64_t{lanes} * sizeof(float);
  auto place = [&](PackedVector& v) {
    v.offset = offset;
    offset = align_up(offset + align_up(v.width, lanes) * sizeof(float), 64);
  };
  for (const SumExpr& s : graph.sums) {
    PackedVector v{s.biases, widths.of(graph.exprs[at(s.expr)].dim), 0};
    if (!v.parameters.empty()) place(v);
    layout.sum_bias.push_back(std::move(v));
  }
  const std::vector<bool> alone = vectors_read_alone(cell, graph);
  for (int i = 0; i < static_cast<int>(cell.parameters().size()); ++i) {
    const Parameter& p = cell.parameters()[at(i)];
    PackedVector v{{}, widths.of(p.rows), 0};
    if (alone[at(i)] && !p.is_matrix) {
      v.parameters.push_back(i);
      place(v);
    }
    layout.parameters.push_back(std::move(v));
  }
  for (PackedMatrix& m : layout.matrices) {
    m.vectors = static_cast<std::uint32_t>(m.parameters.size());
  }
  share_vectors(graph, layout);
  const auto place_biases = [&](SharedSums& group) {
    if (group.sums.empty() || layout.sum_bias[at(group.sums[0])].parameters.empty()) return;
    group.biases = offset;
    offset = align_up(offset + group.vectors * vector_bytes, 64);
  };
  for (FusedStage& stage : layout.stages) {
    for (SharedSums& group : stage.shared) place_biases(group);
    place_biases(stage.hoisted);
  }
  for (PackedMatrix& m : layout.matrices) {
    m.offset = offset;
    m.block_stride = vector_bytes * m.k * m.vectors;
    offset = align_up(offset + m.block_stride * unit_blocks(m.width, lanes), 64);
    // A vector that begins at a gate's own units may end behind the last k.
    if (!m.last.empty()) offset += 64;
  }
  layout.bytes = offset;
  return layout;
}

std::string PackLayout::to_text(const Cell& cell) const {
  std::string out = fmt::format("packed {} bytes, {} lanes\n", bytes, lanes);
  auto names = [&](const std::vector<int>& ids) {
    std::string s;
    for (const int id : ids) s += (s.empty() ? "" : " ") + cell.parameters()[at(id)].name;
    return s;
  };
  for (const PackedVector& v : sum_bias) {
    if (!v.parameters.empty()) {
      out += fmt::format("  @{:<8} vector[{}] = {}\n", v.offset, v.width, names(v.parameters));
    }
  }
  for (const PackedVector& v : parameters) {
    if (!v.parameters.empty()) {
      out += fmt::format("  @{:<8} vector[{}] = {}\n", v.offset, v.width, names(v.parameters));
    }
  }
  for (const PackedMatrix& m : matrices) {
    out += fmt::format(
        "  @{:<8} [unit block][k={}][gate={}][{}] block {} bytes: {}{}\n", m.offset, m.k,
        m.parameters.size(), lanes, m.block_stride, names(m.parameters),
        m.last.empty() ? "" : fmt::format("; last block at lanes {}", fmt::join(m.last, " ")));
  }
  return out;
}

namespace {

/// First element of a parameter inside its tensor, which stacks its blocks by rows.
const float* source(const Cell& cell, int parameter, const Widths& widths, const Weights& weights,
                    const std::string& suffix) {
  const Parameter& p = cell.parameters()[at(parameter)];
  const Tensor& tensor = weights.tensors().at(p.tensor + suffix);
  const std::size_t cols = p.is_matrix ? widths.of(p.cols) : 1;
  return tensor.data.data() + static_cast<std::size_t>(p.block) * widths.of(p.rows) * cols;
}

void pack_vector(const PackedVector& v, const Cell& cell, const Widths& widths,
                 const Weights& weights, const std::string& suffix, std::byte* out) {
  float* dst = reinterpret_cast<float*>(out + v.offset);
  for (const int parameter : v.parameters) {
    const float* src = source(cell, parameter, widths, weights, suffix);
    const bool first = parameter == v.parameters.front();
    // The first is copied, not added to zero: that would turn -0 into 0.
    for (std::uint32_t i = 0; i < v.width; ++i) dst[i] = first ? src[i] : dst[i] + src[i];
  }
}

/// Copies the biases of the last unit block to where those of a group stand side by side.
void share_biases(const PackLayout& layout, const SharedSums& group, std::uint32_t width,
                  std::byte* out) {
  const std::uint32_t units = width % layout.lanes;
  auto* to = reinterpret_cast<float*>(out + group.biases);
  for (const int sum : group.sums) {
    const PackedVector& bias = layout.sum_bias[at(sum)];
    if (bias.parameters.empty()) continue;
    const auto* all = reinterpret_cast<const float*>(out + bias.offset);
    std::copy_n(all + width - units, units, to);
    to += group.part;
  }
}

void pack_matrix(const PackedMatrix& m, std::uint32_t lanes, const Cell& cell, const Widths& widths,
                 const Weights& weights, const std::string& suffix, std::byte* out) {
  const std::uint32_t gates = static_cast<std::uint32_t>(m.parameters.size());
  for (std::uint32_t g = 0; g < gates; ++g) {
    const float* src = source(cell, m.parameters[g], widths, weights, suffix);
    for (std::uint32_t unit = 0; unit < m.width; ++unit) {
      const std::uint32_t block = unit / lanes;
      const bool shares = !m.last.empty() && block == m.width / lanes;
      const std::uint32_t first = shares ? m.last[g] : g * lanes;
      float* dst =
          reinterpret_cast<float*>(out + m.offset + block * m.block_stride) + first + unit % lanes;
      const std::size_t k_stride = std::size_t{m.vectors} * lanes;
      for (std::uint32_t k = 0; k < m.k; ++k) dst[k * k_stride] = src[std::size_t{unit} * m.k + k];
    }
  }
}

}  // namespace

void pack(const Cell& cell, const PackLayout& layout, const Widths& widths, const Weights& weights,
          const std::string& tensor_suffix, std::byte* out) {
  if (layout.bytes > 0) std::memset(out, 0, layout.bytes);
  for (const PackedVector& v : layout.sum_bias) {
    pack_vector(v, cell, widths, weights, tensor_suffix, out);
  }
  for (const FusedStage& stage : layout.stages) {
    for (const SharedSums& group : stage.shared) share_biases(layout, group, stage.width, out);
    share_biases(layout, stage.hoisted, stage.width, out);
  }
  for (const PackedVector& v : layout.parameters) {
    pack_vector(v, cell, widths, weights, tensor_suffix, out);
  }
  for (const PackedMatrix& m : layout.matrices) {
    pack_matrix(m, layout.lanes, cell, widths, weights, tensor_suffix, out);
  }
}

}  // namespace deepcpu::lower
