// SPDX-License-Identifier: Apache-2.0
#include "src/lower/stages.hpp"

#include <algorithm>

#include "jit/index.hpp"

namespace deepcpu::lower {
namespace {

class Mapper {
 public:
  Mapper(const StepGraph& graph, const Widths& widths) : graph_(graph), widths_(widths) {
    operand_.assign(graph.exprs.size(), false);
    for (const SumExpr& s : graph.sums) {
      for (const SumProduct& p : s.products) operand_[at(p.operand)] = true;
    }
  }

  StageMap map(const PackLayout& layout, bool fuse_gates) {
    for (int f = 0; f < static_cast<int>(layout.stages.size()); ++f) {
      add_fused(layout.stages[at(f)], f, fuse_gates);
    }
    add_missing();
    std::stable_sort(map_.stages.begin(), map_.stages.end(),
                     [](const StageDef& a, const StageDef& b) {
                       return a.level != b.level ? a.level < b.level : a.width > b.width;
                     });
    assign_homes();
    for (const int next : graph_.state_next) map_.store_stage.push_back(root_stage(next));
    map_.output_stage = root_stage(graph_.output);
    return std::move(map_);
  }

 private:
  std::uint32_t width(const Expr& e) const { return widths_.of(e.dim); }

  void add_fused(const FusedStage& fused, int index, bool fuse_gates) {
    StageDef def{fused.level, fused.width, fused.sums, index};
    if (fuse_gates) {
      map_.stages.push_back(def);
      return;
    }
    for (const int s : fused.sums) {
      def.sums = {s};
      map_.stages.push_back(def);
    }
  }

  bool exists(int level, std::uint32_t w) const {
    return std::any_of(map_.stages.begin(), map_.stages.end(),
                       [&](const StageDef& s) { return s.level == level && s.width == w; });
  }

  void ensure(int level, std::uint32_t w) {
    if (!exists(level, w)) map_.stages.push_back({level, w, {}, -1});
  }

  bool has_width(std::uint32_t w) const {
    return std::any_of(map_.stages.begin(), map_.stages.end(),
                       [&](const StageDef& s) { return s.width == w; });
  }

  /// An operand of a product that is computed from leaves alone has to be in memory before.
  bool materialised_at_zero(int id) const {
    return graph_.exprs[at(id)].level == 0 && operand_[at(id)] && needs_copy(id);
  }

  /// Inputs and states can be read in place; everything else that is an operand is stored first.
  bool needs_copy(int id) const {
    const Kind k = graph_.exprs[at(id)].kind;
    return k != Kind::input && k != Kind::state;
  }

  void add_missing() {
    for (int id = 0; id < static_cast<int>(graph_.exprs.size()); ++id) {
      const Expr& e = graph_.exprs[at(id)];
      if (materialised_at_zero(id)) ensure(0, width(e));
      if (e.level > 0 && e.kind != Kind::sum) ensure(e.level, width(e));
    }
    auto ensure_root = [&](int id) {
      const Expr& e = graph_.exprs[at(id)];
      if (e.level == 0 && !has_width(width(e))) ensure(1, width(e));
    };
    for (const int next : graph_.state_next) ensure_root(next);
    ensure_root(graph_.output);
  }

  int stage_of_sum(int sum) const {
    for (int i = 0; i < static_cast<int>(map_.stages.size()); ++i) {
      const auto& sums = map_.stages[at(i)].sums;
      if (std::find(sums.begin(), sums.end(), sum) != sums.end()) return i;
    }
    return -1;
  }

  /// First stage from `first` on with this width and at least this level.
  int find_stage(int first, int level, std::uint32_t w) const {
    for (int i = std::max(first, 0); i < static_cast<int>(map_.stages.size()); ++i) {
      if (map_.stages[at(i)].width == w && map_.stages[at(i)].level >= level) return i;
    }
    return -1;
  }

  void assign_homes() {
    map_.home.assign(graph_.exprs.size(), -1);
    for (int id = 0; id < static_cast<int>(graph_.exprs.size()); ++id) {
      const Expr& e = graph_.exprs[at(id)];
      if (e.kind == Kind::sum) {
        map_.home[at(id)] = stage_of_sum(e.index);
      } else if (materialised_at_zero(id)) {
        map_.home[at(id)] = find_stage(0, 0, width(e));
      } else if (e.level > 0) {
        int first = 0;
        for (const int arg : {e.a, e.b, e.c}) {
          if (arg >= 0) first = std::max(first, map_.home[at(arg)]);
        }
        map_.home[at(id)] = find_stage(first, e.level, width(e));
      }
    }
  }

  /// Where a state's next value or the output is stored.
  int root_stage(int id) const {
    const int home = map_.home[at(id)];
    return home >= 0 ? home : find_stage(0, 0, width(graph_.exprs[at(id)]));
  }

  const StepGraph& graph_;
  const Widths& widths_;
  std::vector<bool> operand_;
  StageMap map_;
};

}  // namespace

StageMap StageMap::build(const StepGraph& graph, const Widths& widths, const PackLayout& layout,
                         bool fuse_gates) {
  return Mapper(graph, widths).map(layout, fuse_gates);
}

}  // namespace deepcpu::lower
