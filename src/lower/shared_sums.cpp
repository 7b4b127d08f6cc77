// SPDX-License-Identifier: Apache-2.0
#include "src/lower/shared_sums.hpp"

#include <algorithm>

#include "src/lower/context.hpp"

namespace deepcpu::lower {
namespace {

/// Numbers of the matrices that the sum takes part in.
std::vector<std::size_t> matrices_of(const PackLayout& layout, int sum) {
  std::vector<std::size_t> out;
  for (std::size_t m = 0; m < layout.matrices.size(); ++m) {
    const auto& sums = layout.matrices[m].sums;
    if (std::find(sums.begin(), sums.end(), sum) != sums.end()) out.push_back(m);
  }
  return out;
}

bool biased(const PackLayout& layout, int sum) {
  return !layout.sum_bias[at(sum)].parameters.empty();
}

/// Whether two sums may share a vector: what is added to one is added to the other. Epilogues read
/// those that leave the time loop as a whole, one by one.
bool alike(const StepGraph& graph, const PackLayout& layout, int a, int b) {
  return !wholly_hoisted(graph, graph.sums[at(a)]) && biased(layout, a) == biased(layout, b) &&
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

/// As many lanes as there are units; with AVX2, which has no instruction that cuts a vector out of
/// two at any lane, half a vector or all of it.
std::uint32_t part_lanes(std::uint32_t width, std::uint32_t lanes) {
  const std::uint32_t units = width % lanes;
  if (lanes == 16) return units;
  return units <= lanes / 2 ? lanes / 2 : lanes;
}

void count_vectors(std::uint32_t lanes, SharedSums& group) {
  const auto count = static_cast<std::uint32_t>(group.sums.size());
  group.vectors = (count * group.part + lanes - 1) / lanes;
}

std::uint32_t vectors(const std::vector<SharedSums>& groups) {
  std::uint32_t sum = 0;
  for (const SharedSums& group : groups) sum += group.vectors;
  return sum;
}

/// The stage's sums in groups of those that may share.
std::vector<SharedSums> groups_of(const StepGraph& graph, const PackLayout& layout,
                                  const FusedStage& stage) {
  std::vector<SharedSums> groups;
  for (const int s : stage.sums) {
    const auto it = std::find_if(groups.begin(), groups.end(), [&](const SharedSums& group) {
      return alike(graph, layout, group.sums[0], s);
    });
    if (it != groups.end()) {
      it->sums.push_back(s);
    } else {
      groups.push_back({{s}, part_lanes(stage.width, layout.lanes)});
    }
  }
  for (SharedSums& group : groups) count_vectors(layout.lanes, group);
  return groups;
}

bool takes(const PackedMatrix& m, const SharedSums& group) {
  return std::find(m.sums.begin(), m.sums.end(), group.sums[0]) != m.sums.end();
}

/// Places for the gates of a matrix, group after group.
void place_gates(const std::vector<SharedSums>& groups, std::uint32_t lanes, PackedMatrix& m) {
  std::vector<std::uint32_t> of_sum;
  const auto place = [&](int sum, std::uint32_t lane) {
    of_sum.resize(std::max(of_sum.size(), at(sum) + 1));
    of_sum[at(sum)] = lane;
  };
  std::uint32_t first = 0;
  for (const SharedSums& group : groups) {
    if (!takes(m, group)) continue;
    for (std::size_t i = 0; i < group.sums.size(); ++i) {
      place(group.sums[i], first * lanes + static_cast<std::uint32_t>(i) * group.part);
    }
    first += group.vectors;
  }
  m.last.clear();
  for (const int sum : m.sums) m.last.push_back(of_sum[at(sum)]);
  if (m.width <= lanes) m.vectors = first;
}

/// In the plan of hoisted products, sums share what the time loop takes apart: a GRU's n has a sum
/// for x and one for h. The time loop reads each by itself, so only where it has a vector for each.
void share_hoisted(const StepGraph& graph, FusedStage& stage, PackLayout& layout) {
  std::vector<PackedMatrix*> of_input;
  for (PackedMatrix& m : layout.matrices) {
    const bool here = &layout.stages[at(m.stage)] == &stage;
    if (here && hoistable(graph, {0, m.operand})) of_input.push_back(&m);
  }
  if (of_input.size() != 1) return;
  PackedMatrix& m = *of_input.front();
  SharedSums all{m.sums, part_lanes(stage.width, layout.lanes)};
  count_vectors(layout.lanes, all);
  const bool alike = std::all_of(all.sums.begin(), all.sums.end(), [&](int sum) {
    return biased(layout, sum) == biased(layout, all.sums[0]);
  });
  if (!alike || all.vectors >= all.sums.size()) return;
  stage.hoisted = all;
  place_gates({all}, layout.lanes, m);
}

}  // namespace

void share_vectors(const StepGraph& graph, PackLayout& layout) {
  for (FusedStage& stage : layout.stages) {
    if (stage.width % layout.lanes == 0 || !gains_by_sharing(layout, stage)) continue;
    const std::vector<SharedSums> groups = groups_of(graph, layout, stage);
    if (vectors(groups) >= stage.sums.size()) {
      share_hoisted(graph, stage, layout);
      continue;
    }
    stage.shared = groups;
    for (PackedMatrix& m : layout.matrices) {
      if (&layout.stages[at(m.stage)] == &stage) place_gates(groups, layout.lanes, m);
    }
  }
}

}  // namespace deepcpu::lower
