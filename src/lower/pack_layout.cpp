// SPDX-License-Identifier: Apache-2.0
#include "src/lower/pack_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "src/lower/align.hpp"

namespace deepcpu::lower {
namespace {

/// Vectors that a panel should have at least: one panel read as a single stream of four vectors
/// per k is load bound already, and four sums hide the latency of an FMA.
constexpr std::uint32_t kPanelVectors = 4;
/// Gates that one register tile may hold; more are computed in a further stage.
constexpr std::size_t kMaxGates = 8;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

/// Accumulators that one row of a register tile may take: half of AVX2's registers, so that the
/// epilogue has some left; of AVX-512's so many that a tile of two rows still fits.
std::uint32_t max_accumulators(std::uint32_t lanes) { return lanes == 8 ? 8 : 12; }

/// The largest number of gates of a stage that share an operand.
std::uint32_t widest_class(const StepGraph& graph, const std::vector<int>& sums) {
  std::uint32_t most = 1;
  for (const int s : sums) {
    for (const SumProduct& p : graph.sums[at(s)].products) {
      std::uint32_t n = 0;
      for (const int other : sums) {
        const auto& products = graph.sums[at(other)].products;
        n += static_cast<std::uint32_t>(
            std::count_if(products.begin(), products.end(),
                          [&](const SumProduct& q) { return q.operand == p.operand; }));
      }
      most = std::max(most, n);
    }
  }
  return most;
}

std::vector<FusedStage> fuse(const StepGraph& graph, const Widths& widths, std::uint32_t lanes) {
  std::vector<FusedStage> stages;
  for (int s = 0; s < static_cast<int>(graph.sums.size()); ++s) {
    const Expr& e = graph.exprs[at(graph.sums[at(s)].expr)];
    const std::uint32_t width = widths.of(e.dim);
    auto it = std::find_if(stages.begin(), stages.end(), [&](const FusedStage& f) {
      return f.level == e.level && f.width == width && f.sums.size() < kMaxGates;
    });
    if (it == stages.end()) it = stages.insert(stages.end(), {e.level, width, {}, 1});
    it->sums.push_back(s);
  }
  for (FusedStage& f : stages) {
    const std::uint32_t units = (f.width + lanes - 1) / lanes;
    const std::uint32_t gates = widest_class(graph, f.sums);
    const std::uint32_t wanted = (kPanelVectors + gates - 1) / gates;
    const std::uint32_t fit = max_accumulators(lanes) / static_cast<std::uint32_t>(f.sums.size());
    f.units_per_panel = std::min({wanted, units, fit});
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
        m.units_per_panel = stage.units_per_panel;
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

Widths widths_of(const ModelSpec& spec, int layer) {
  auto number = [&](Dim d) { return static_cast<std::uint32_t>(spec.width(d, layer)); };
  return {number(Dim::input), number(Dim::hidden), number(Dim::proj)};
}

PackLayout PackLayout::build(const Cell& cell, const StepGraph& graph, const Widths& widths,
                             std::uint32_t lanes) {
  PackLayout layout;
  layout.lanes = lanes;
  layout.stages = fuse(graph, widths, lanes);
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
    const std::uint32_t units = (m.width + lanes - 1) / lanes;
    m.offset = offset;
    m.panel_stride = vector_bytes * m.k * m.units_per_panel * m.parameters.size();
    offset = align_up(offset + vector_bytes * m.k * units * m.parameters.size(), 64);
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
    out += fmt::format("  @{:<8} [panel][k={}][unit block={}][gate={}][{}] panel {} bytes: {}\n",
                       m.offset, m.k, m.units_per_panel, m.parameters.size(), lanes, m.panel_stride,
                       names(m.parameters));
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

void pack_matrix(const PackedMatrix& m, std::uint32_t lanes, const Cell& cell, const Widths& widths,
                 const Weights& weights, const std::string& suffix, std::byte* out) {
  const std::uint32_t gates = static_cast<std::uint32_t>(m.parameters.size());
  for (std::uint32_t g = 0; g < gates; ++g) {
    const float* src = source(cell, m.parameters[g], widths, weights, suffix);
    for (std::uint32_t unit = 0; unit < m.width; ++unit) {
      const std::uint32_t block = unit / lanes;
      const std::uint32_t panel = block / m.units_per_panel;
      const std::uint32_t blocks = (m.width + lanes - 1) / lanes;
      const std::uint32_t in_panel =
          std::min(m.units_per_panel, blocks - panel * m.units_per_panel);
      float* dst = reinterpret_cast<float*>(out + m.offset + panel * m.panel_stride) +
                   ((block % m.units_per_panel) * gates + g) * lanes + unit % lanes;
      const std::size_t k_stride = std::size_t{in_panel} * gates * lanes;
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
  for (const PackedVector& v : layout.parameters) {
    pack_vector(v, cell, widths, weights, tensor_suffix, out);
  }
  for (const PackedMatrix& m : layout.matrices) {
    pack_matrix(m, layout.lanes, cell, widths, weights, tensor_suffix, out);
  }
}

}  // namespace deepcpu::lower
