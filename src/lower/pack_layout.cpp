// SPDX-License-Identifier: Apache-2.0
#include "src/lower/pack_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "src/lower/context.hpp"

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
    if (it == stages.end()) it = stages.insert(stages.end(), {e.level, width, {}, {}});
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

/// Numbers of the matrices that the sum takes part in.
std::vector<std::size_t> matrices_of(const PackLayout& layout, int sum) {
  std::vector<std::size_t> out;
  for (std::size_t m = 0; m < layout.matrices.size(); ++m) {
    const auto& sums = layout.matrices[m].sums;
    if (std::find(sums.begin(), sums.end(), sum) != sums.end()) out.push_back(m);
  }
  return out;
}

/// Whether two sums may share a vector: what is added to one is added to the other. Epilogues read
/// those that leave the time loop as a whole, one by one.
bool alike(const StepGraph& graph, const PackLayout& layout, int a, int b) {
  const auto biased = [&](int sum) { return !layout.sum_bias[at(sum)].parameters.empty(); };
  return !wholly_hoisted(graph, graph.sums[at(a)]) && biased(a) == biased(b) &&
         matrices_of(layout, a) == matrices_of(layout, b);
}

/// Whether fewer vectors make the stage's products shorter. With a single unit block all sums would
/// be one vector or two, and short products wait for the sums themselves: Zen 4, AVX-512, time of
/// separate vectors over that of shared ones: lstm i4h4 0.96, i16h4 0.89, i1h8 1.00, i24h8 0.97,
/// i32h4 1.08 to 1.13, i32h8 1.05, i64h8 1.36, gru i8h8 0.95, i16h4 0.92, i32h4 1.09.
bool gains_by_sharing(const PackLayout& layout, const FusedStage& stage) {
  constexpr std::uint32_t kLong = 32;
  return stage.width > layout.lanes ||
         std::any_of(layout.matrices.begin(), layout.matrices.end(), [&](const PackedMatrix& m) {
           return &layout.stages[at(m.stage)] == &stage && m.k >= kLong;
         });
}

/// Lanes of 4 or 8, from which a vector begins that half an instruction moves; with AVX-512 also
/// exactly as many as there are units, where that takes fewer vectors.
void choose_part(std::uint32_t width, std::uint32_t lanes, SharedSums& group) {
  const auto count = static_cast<std::uint32_t>(group.sums.size());
  const std::uint32_t units = width % lanes;
  const auto vectors = [&](std::uint32_t part) { return (count * part + lanes - 1) / lanes; };
  group.part = std::min(lanes, std::max(4U, std::bit_ceil(units)));
  if (lanes == 16 && vectors(units) < vectors(group.part)) group.part = units;
  group.vectors = vectors(group.part);
}

/// Groups of sums that share the vectors of the last unit block. Empty if no vector is saved.
std::vector<SharedSums> shared_sums(const StepGraph& graph, const PackLayout& layout,
                                    const FusedStage& stage) {
  std::vector<SharedSums> groups;
  if (stage.width % layout.lanes == 0 || !gains_by_sharing(layout, stage)) return groups;
  for (const int s : stage.sums) {
    const auto it = std::find_if(groups.begin(), groups.end(), [&](const SharedSums& group) {
      return alike(graph, layout, group.sums[0], s);
    });
    if (it != groups.end()) it->sums.push_back(s);
    if (it == groups.end()) groups.push_back({{s}});
  }
  std::size_t vectors = 0;
  for (SharedSums& group : groups) {
    choose_part(stage.width, layout.lanes, group);
    vectors += group.vectors;
  }
  return vectors < stage.sums.size() ? groups : std::vector<SharedSums>{};
}

/// Groups in the order in which their first gates stand in the matrix.
void place_gates(const FusedStage& stage, std::uint32_t lanes, PackedMatrix& m) {
  std::map<const SharedSums*, std::uint32_t> first;
  std::uint32_t vectors = 0;
  for (const int sum : m.sums) {
    const auto position = [sum](const SharedSums& group) {
      return std::find(group.sums.begin(), group.sums.end(), sum);
    };
    const auto group = std::find_if(
        stage.shared.begin(), stage.shared.end(),
        [&](const SharedSums& candidate) { return position(candidate) != candidate.sums.end(); });
    if (first.emplace(&*group, vectors).second) vectors += group->vectors;
    const auto part = static_cast<std::uint32_t>(position(*group) - group->sums.begin());
    m.last.push_back(first.at(&*group) * lanes + part * group->part);
  }
  if (stage.width <= lanes) m.vectors = vectors;
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
  for (FusedStage& stage : layout.stages) {
    stage.shared = shared_sums(graph, layout, stage);
    for (SharedSums& group : stage.shared) {
      if (layout.sum_bias[at(group.sums[0])].parameters.empty()) continue;
      group.biases = offset;
      offset = align_up(offset + group.vectors * vector_bytes, 64);
    }
  }
  for (PackedMatrix& m : layout.matrices) {
    const FusedStage& stage = layout.stages[at(m.stage)];
    m.vectors = static_cast<std::uint32_t>(m.parameters.size());
    if (!stage.shared.empty()) place_gates(stage, lanes, m);
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
void share_biases(const PackLayout& layout, const FusedStage& stage, std::byte* out) {
  const std::uint32_t units = stage.width % layout.lanes;
  for (const SharedSums& group : stage.shared) {
    auto* to = reinterpret_cast<float*>(out + group.biases);
    for (const int sum : group.sums) {
      const PackedVector& bias = layout.sum_bias[at(sum)];
      if (bias.parameters.empty()) continue;
      const auto* all = reinterpret_cast<const float*>(out + bias.offset);
      to = std::copy_n(all + stage.width - units, units, to) + group.part - units;
    }
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
  for (const FusedStage& stage : layout.stages) share_biases(layout, stage, out);
  for (const PackedVector& v : layout.parameters) {
    pack_vector(v, cell, widths, weights, tensor_suffix, out);
  }
  for (const PackedMatrix& m : layout.matrices) {
    pack_matrix(m, layout.lanes, cell, widths, weights, tensor_suffix, out);
  }
}

}  // namespace deepcpu::lower
