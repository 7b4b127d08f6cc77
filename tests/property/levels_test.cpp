// SPDX-License-Identifier: Apache-2.0
/// Lowering and the MM-DAG look at the same cell by different code. They must agree on which
/// products depend on a state, on how many follow each other, and no product may be lost or done
/// twice on the way into kernel plans.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "src/cells/cells.hpp"
#include "src/dag/matmul_dag.hpp"
#include "src/lower/context.hpp"
#include "src/lower/stages.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/user_cells.hpp"
#include "tests/property/harness.hpp"
#include "tests/support/random_cells.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;
using lower::Expr;
using lower::Kind;
using lower::StepGraph;
using lower::SumExpr;
using lower::SumProduct;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

/// What the normal form says of one value.
struct Facts {
  bool recurrent = false;      ///< a state reaches it
  std::array<int, 2> depth{};  ///< most products on a path: [0] time-independent, [1] recurrent
};

std::vector<Facts> facts_of(const StepGraph& graph) {
  std::vector<Facts> facts;
  for (const Expr& e : graph.exprs) {
    Facts f;
    f.recurrent = e.kind == Kind::state;
    const auto join = [&](const Facts& from, int kind) {
      f.recurrent = f.recurrent || from.recurrent;
      for (const int k : {0, 1}) {
        f.depth[at(k)] = std::max(f.depth[at(k)], from.depth[at(k)] + (k == kind ? 1 : 0));
      }
    };
    for (const int arg : {e.a, e.b, e.c}) {
      if (arg >= 0) join(facts[at(arg)], -1);
    }
    if (e.kind == Kind::sum) {
      for (const SumProduct& p : graph.sums[at(e.index)].products) {
        const Facts& operand = facts[at(p.operand)];
        join(operand, operand.recurrent ? 1 : 0);
      }
    }
    facts.push_back(f);
  }
  return facts;
}

/// Products of any kind on the longest path up to and with each product, by the DAG's edges.
std::vector<int> full_depths(const MatmulDag& dag) {
  std::vector<int> depth(dag.nodes().size(), 1);
  for (std::size_t to = 0; to < depth.size(); ++to) {  // arguments precede users
    for (const MatmulEdge& e : dag.edges()) {
      if (at(e.to) == to && e.lag == 0) depth[to] = std::max(depth[to], depth[at(e.from)] + 1);
    }
  }
  return depth;
}

/// A single number per row that needs products is read back by wider values one level later, which
/// is a rule of lowering's own.
bool broadcasts(const StepGraph& graph) {
  return std::any_of(graph.exprs.begin(), graph.exprs.end(),
                     [](const Expr& e) { return e.dim == Dim::one && e.level > 0; });
}

/// Compares every product of the normal form with its node of the DAG, found by its parameter.
std::string compare_products(const MatmulDag& dag, const StepGraph& graph) {
  const std::vector<Facts> facts = facts_of(graph);
  const std::vector<int> depth = full_depths(dag);
  const bool exact = !broadcasts(graph);
  std::map<int, std::size_t> node_of;
  for (std::size_t i = 0; i < dag.nodes().size(); ++i) node_of[dag.nodes()[i].parameter] = i;
  std::multiset<int> seen;
  for (const SumExpr& sum : graph.sums) {
    int level = 0;
    for (const SumProduct& p : sum.products) {
      const std::string name = dag.cell().parameters()[at(p.parameter)].name;
      seen.insert(p.parameter);
      const MatmulNode& node = dag.nodes()[node_of.at(p.parameter)];
      const Facts& operand = facts[at(p.operand)];
      if (operand.recurrent != node.recurrent) return name + ": time-dependent in one alone";
      if (operand.depth[node.recurrent ? 1 : 0] != node.level) return name + ": level differs";
      if (lower::hoistable(graph, p) && node.recurrent) return name + ": hoistable and recurrent";
      level = std::max(level, depth[node_of.at(p.parameter)]);
    }
    const int own = graph.exprs[at(sum.expr)].level;
    if (exact ? own != level : own < level) return "a sum of level " + std::to_string(own);
  }
  if (seen.size() != dag.nodes().size()) return std::to_string(seen.size()) + " products in sums";
  for (const auto& [parameter, node] : node_of) {
    if (seen.count(parameter) != 1) return "parameter " + std::to_string(parameter) + " lost";
  }
  return {};
}

/// Names of the parameters that a plan multiplies with, as its notes list them.
void add_names(const jit::KernelPlan& plan, std::multiset<std::string>& names) {
  for (const jit::Stage& stage : plan.stages) {
    for (const jit::Product& p : stage.products) {
      for (std::size_t from = 0; from < p.note.size();) {
        const std::size_t end = std::min(p.note.find(' ', from), p.note.size());
        names.insert(p.note.substr(from, end - from));
        from = end + 1;
      }
    }
  }
}

/// Every sum in exactly one stage; every product in exactly one plan.
std::string compare_plans(const MatmulDag& dag, const StepGraph& graph, const ModelSpec& spec,
                          const LayerSchedule& schedule) {
  const lower::Widths widths = lower::widths_of(spec, 0);
  const auto layout = lower::PackLayout::build(spec.cell, graph, widths, 16);
  const auto map = lower::StageMap::build(graph, widths, layout, schedule.fuse_gates);
  std::vector<int> stages_of(graph.sums.size(), 0);
  std::set<int> recurrent_levels;
  const std::vector<Facts> facts = facts_of(graph);
  for (const lower::StageDef& stage : map.stages) {
    for (const int s : stage.sums) {
      ++stages_of[at(s)];
      for (const SumProduct& p : graph.sums[at(s)].products) {
        if (facts[at(p.operand)].recurrent) recurrent_levels.insert(stage.level);
      }
    }
  }
  if (std::any_of(stages_of.begin(), stages_of.end(), [](int n) { return n != 1; })) {
    return "a sum is in no stage or in several";
  }
  if (static_cast<int>(recurrent_levels.size()) < dag.recurrent_levels()) {
    return "fewer levels of stages than dependent products";
  }
  const auto rows = static_cast<std::uint32_t>(spec.batch);
  const auto plans = lower::lower_layer(
      {spec.cell, graph, widths, layout, schedule, Isa::avx512, rows, {}}, "plan");
  if (!plans.ok()) return plans.error().message();
  std::multiset<std::string> names;
  std::multiset<std::string> expected;
  add_names(plans->step.plan, names);
  if (plans->hoist) add_names(plans->hoist->plan, names);
  for (const MatmulNode& n : dag.nodes()) {
    expected.insert(spec.cell.parameters()[at(n.parameter)].name);
  }
  return names == expected ? std::string() : "the plans hold other products";
}

/// Empty if all agree.
std::string disagreement(const Cell& cell) {
  const MatmulDag dag = MatmulDag::build(cell);
  const StepGraph graph = StepGraph::build(cell);
  if (std::string wrong = compare_products(dag, graph); !wrong.empty()) return wrong;
  const auto spec = ModelSpec::make(
      cell, {.input = 24, .hidden = {24}, .projection = cell.uses(Dim::proj) ? 24 : 0, .batch = 2});
  if (!spec.ok()) return spec.error().message();
  for (const bool fuse : {true, false}) {
    for (const int hoist : {0, 4}) {
      LayerSchedule schedule;
      schedule.fuse_gates = fuse;
      schedule.hoist_block = hoist;
      if (std::string wrong = compare_plans(dag, graph, *spec, schedule); !wrong.empty()) {
        return wrong;
      }
    }
  }
  return {};
}

/// Every combination of the options of `entry`, from option `next` on.
void add_variants(const CellEntry& entry, std::size_t next, CellOptions& options,
                  std::vector<Cell>& out) {
  if (next == entry.options.size()) {
    for (const bool projection : {false, true}) {
      if (auto cell = entry.build(options, projection)) out.push_back(std::move(*cell));
    }
    return;
  }
  const CellOption& option = entry.options[next];
  std::vector<std::string> values(option.values.begin(), option.values.end());
  if (values.empty()) values = {"0", "2.5"};
  for (const std::string& value : values) {
    options[std::string(option.key)] = value;
    add_variants(entry, next + 1, options, out);
  }
}

TEST_CASE("lowering and the DAG agree on the built-in cells and on those of a user") {
  std::vector<Cell> cells = {oracle::mgu().value(), oracle::sru().value(), oracle::skip().value()};
  for (const CellEntry& entry : cell_table()) {
    CellOptions options;
    add_variants(entry, 0, options, cells);
  }
  CHECK(cells.size() >= 3 + 16 + 2 + 3 + 2);
  for (const Cell& cell : cells) {
    INFO(cell.to_text());
    CHECK(disagreement(cell).empty());
    // Here every level of stages that a step waits for is a dependent product.
    const MatmulDag dag = MatmulDag::build(cell);
    int levels = 0;
    for (const Expr& e : StepGraph::build(cell).exprs) levels = std::max(levels, e.level);
    CHECK(levels == std::max(1, dag.recurrent_levels()));
  }
}

TEST_CASE("lowering and the DAG agree on random cells") {
  int deep = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    const Cell cell = random_cell(seed);
    const std::string wrong = disagreement(cell);
    INFO("random." << seed << ": " << wrong << "\n" << cell.to_text());
    CHECK(wrong.empty());
    deep += MatmulDag::build(cell).recurrent_levels() > 1 ? 1 : 0;
  }
  CHECK(deep > 100);
}

}  // namespace
