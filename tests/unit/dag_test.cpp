// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "src/cells/cells.hpp"
#include "src/dag/matmul_dag.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/user_cells.hpp"

using deepcpu::Cell;
using deepcpu::CellBuilder;
using deepcpu::CellOptions;
using deepcpu::Dim;
using deepcpu::Direction;
using deepcpu::MatmulClass;
using deepcpu::MatmulDag;
using deepcpu::MatmulEdge;
using deepcpu::MatmulNode;
using deepcpu::ModelSpec;
using deepcpu::StackEdge;
using deepcpu::Value;

namespace {

Cell built_in(const char* name, const CellOptions& options = {}, bool projection = false) {
  return deepcpu::find_cell(name)->build(options, projection).value();
}

MatmulDag dag_of(const char* name, const CellOptions& options = {}, bool projection = false) {
  return MatmulDag::build(built_in(name, options, projection));
}

std::string name_of(const MatmulDag& dag, int product) {
  const MatmulNode& n = dag.nodes()[static_cast<std::size_t>(product)];
  return dag.cell().parameters()[static_cast<std::size_t>(n.parameter)].name;
}

std::vector<std::string> names_of(const MatmulDag& dag, int matmul_class) {
  std::vector<std::string> names;
  for (const int i : dag.classes()[static_cast<std::size_t>(matmul_class)].products) {
    names.push_back(name_of(dag, i));
  }
  return names;
}

/// Edges with lag `lag` by the names of the products.
std::vector<std::string> edges_of(const MatmulDag& dag, int lag) {
  std::vector<std::string> edges;
  for (const MatmulEdge& e : dag.edges()) {
    if (e.lag == lag) edges.push_back(name_of(dag, e.from) + ">" + name_of(dag, e.to));
  }
  std::sort(edges.begin(), edges.end());
  return edges;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++n;
  }
  return n;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("dag: lstm has 8 products a step in one dependent level") {
  const MatmulDag dag = dag_of("lstm");
  CHECK(dag.nodes().size() == 8);
  CHECK(dag.recurrent_levels() == 1);
  for (const MatmulNode& n : dag.nodes()) CHECK(n.level == 0);
  REQUIRE(dag.classes().size() == 2);
  CHECK_FALSE(dag.classes()[0].recurrent);
  CHECK(dag.classes()[1].recurrent);
  CHECK(names_of(dag, 0) == Names{"weight_ih_i", "weight_ih_f", "weight_ih_g", "weight_ih_o"});
  CHECK(names_of(dag, 1) == Names{"weight_hh_i", "weight_hh_f", "weight_hh_g", "weight_hh_o"});
  CHECK(edges_of(dag, 0).empty());
  CHECK(edges_of(dag, 1).size() == 8 * 4);
  CHECK(dag.edges().size() == 8 * 4);
  CHECK(dag.class_edges() == std::vector<MatmulEdge>{{0, 1, 1}, {1, 1, 1}});
}

TEST_CASE("dag: gru has one dependent level with reset=after, two with reset=before") {
  const MatmulDag after = dag_of("gru", {{"reset", "after"}});
  CHECK(after.nodes().size() == 6);
  CHECK(after.classes().size() == 2);
  CHECK(after.recurrent_levels() == 1);
  CHECK(edges_of(after, 0).empty());
  CHECK(edges_of(after, 1).size() == 6 * 3);

  const MatmulDag before = dag_of("gru", {{"reset", "before"}});
  CHECK(before.nodes().size() == 6);
  CHECK(before.recurrent_levels() == 2);
  REQUIRE(before.classes().size() == 3);
  CHECK(names_of(before, 0) == Names{"weight_ih_r", "weight_ih_z", "weight_ih_n"});
  CHECK(names_of(before, 1) == Names{"weight_hh_r", "weight_hh_z"});
  CHECK(names_of(before, 2) == Names{"weight_hh_n"});
  CHECK(before.classes()[2].level == 1);
  CHECK(edges_of(before, 0) == Names{"weight_hh_r>weight_hh_n", "weight_ih_r>weight_hh_n"});
  // h' = n + z * (h - n) is made of the products of n and z; r's stand behind weight_hh_n.
  CHECK(edges_of(before, 1).size() == 4 * 3);
  CHECK(
      before.class_edges() ==
      std::vector<MatmulEdge>{
          {0, 1, 1}, {0, 2, 0}, {0, 2, 1}, {1, 1, 1}, {1, 2, 0}, {1, 2, 1}, {2, 1, 1}, {2, 2, 1}});
}

TEST_CASE("dag: a projection is a second dependent level") {
  const MatmulDag dag = dag_of("lstm", {}, true);
  CHECK(dag.recurrent_levels() == 2);
  REQUIRE(dag.classes().size() == 3);
  CHECK(names_of(dag, 2) == Names{"weight_hr"});
  CHECK(dag.classes()[2].rows == Dim::proj);
  CHECK(edges_of(dag, 0).size() == 8);
}

TEST_CASE("dag: the cells of a user") {
  const MatmulDag mgu = MatmulDag::build(deepcpu::oracle::mgu().value());
  CHECK(mgu.classes().size() == 3);
  CHECK(mgu.recurrent_levels() == 2);
  CHECK(edges_of(mgu, 0) == Names{"recurrent_f>recurrent_n", "weight_f>recurrent_n"});

  const MatmulDag sru = MatmulDag::build(deepcpu::oracle::sru().value());
  REQUIRE(sru.classes().size() == 1);
  CHECK(names_of(sru, 0) == Names{"weight", "weight_f", "weight_r"});
  CHECK_FALSE(sru.classes()[0].recurrent);
  CHECK(sru.recurrent_levels() == 0);
  CHECK(sru.edges().empty());

  const MatmulDag skip = MatmulDag::build(deepcpu::oracle::skip().value());
  CHECK(skip.classes().size() == 3);
  CHECK(skip.recurrent_levels() == 2);
  CHECK(edges_of(skip, 0) == Names{"recurrent_a>recurrent_n", "weight_a>recurrent_n"});
  CHECK(edges_of(skip, 1) == Names{"recurrent_n>recurrent_a"});
}

TEST_CASE("dag: a node is time-dependent if a state reaches it") {
  const MatmulDag dag = dag_of("gru", {{"reset", "before"}});
  std::map<std::string, bool> by_name;
  for (std::size_t i = 0; i < dag.cell().nodes().size(); ++i) {
    const deepcpu::Node& node = dag.cell().nodes()[i];
    const bool dependent = dag.time_dependent(static_cast<int>(i));
    if (!node.name.empty()) by_name[node.name] = dependent;
    if (node.parameter >= 0) {
      by_name[dag.cell().parameters()[static_cast<std::size_t>(node.parameter)].name] = dependent;
    }
  }
  for (const char* name : {"x", "bias_ih_r", "bias_hh_n", "weight_ih_r", "weight_ih_n"}) {
    INFO(name);
    CHECK_FALSE(by_name.at(name));
  }
  for (const char* name : {"h", "weight_hh_r", "weight_hh_n", "r", "z", "n", "next_h"}) {
    INFO(name);
    CHECK(by_name.at(name));
  }
}

TEST_CASE("dag: levels count products of the same kind only") {
  CellBuilder b("deep");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value embedded = b.relu(b.matmul("embed", x));
  const Value wide = b.matmul("input", embedded);
  const Value next = b.tanh(wide + b.matmul("hidden", h * wide));
  b.next(h, next);
  b.output(next);
  const MatmulDag dag = MatmulDag::build(b.build().value());
  REQUIRE(dag.classes().size() == 3);
  CHECK(names_of(dag, 0) == Names{"embed"});
  CHECK(names_of(dag, 1) == Names{"input"});
  CHECK(dag.classes()[1].level == 1);
  CHECK_FALSE(dag.classes()[1].recurrent);
  CHECK(names_of(dag, 2) == Names{"hidden"});
  CHECK(dag.classes()[2].level == 0);
  CHECK(dag.recurrent_levels() == 1);
}

TEST_CASE("dag: products of different width are classes of their own") {
  CellBuilder b("two");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value p = b.state("p", Dim::proj);
  b.next(h, b.tanh(b.matmul("a", x) + b.matmul("b", p)));
  b.next(p, b.matmul("c", x, Dim::proj));
  b.output(h);
  const MatmulDag dag = MatmulDag::build(b.build().value());
  CHECK(dag.classes().size() == 3);
}

TEST_CASE("dag: a state that is passed on delays by one more step") {
  CellBuilder b("delay");
  const Value x = b.input("x");
  const Value now = b.state("now");
  const Value before = b.state("before");
  b.next(before, now);
  b.next(now, b.tanh(b.matmul("w", x) + b.matmul("u", before)));
  b.output(now);
  const MatmulDag dag = MatmulDag::build(b.build().value());
  CHECK(edges_of(dag, 1).empty());
  CHECK(edges_of(dag, 2) == Names{"u>u", "w>u"});
}

TEST_CASE("dag: in a stack cell (l,t) depends on (l,t-1) and (l-1,t)") {
  using Edges = std::vector<StackEdge>;
  CHECK(
      deepcpu::stack_edges(3, Direction::forward) ==
      Edges{
          {0, 0, 0, 0, -1}, {1, 0, 1, 0, -1}, {0, 0, 1, 0, 0}, {2, 0, 2, 0, -1}, {1, 0, 2, 0, 0}});
  CHECK(deepcpu::stack_edges(2, Direction::reverse) ==
        Edges{{0, 0, 0, 0, 1}, {1, 0, 1, 0, 1}, {0, 0, 1, 0, 0}});
  CHECK(deepcpu::stack_edges(2, Direction::bidirectional) == Edges{{0, 0, 0, 0, -1},
                                                                   {0, 1, 0, 1, 1},
                                                                   {1, 0, 1, 0, -1},
                                                                   {0, 0, 1, 0, 0},
                                                                   {0, 1, 1, 0, 0},
                                                                   {1, 1, 1, 1, 1},
                                                                   {0, 0, 1, 1, 0},
                                                                   {0, 1, 1, 1, 0}});
}

TEST_CASE("dag: prints as text") {
  const ModelSpec spec = ModelSpec::parse("gru:i8h16l2,reset=before").value();
  CHECK(MatmulDag::build(spec.cell).to_text(spec) ==
        "MM-DAG of gru: 6 products a step, 3 classes, 2 dependent levels of time-dependent "
        "products\n"
        "products\n"
        "  %5 weight_ih_n * x: time-independent, level 0, class 0\n"
        "  %10 weight_ih_r * x: time-independent, level 0, class 0\n"
        "  %12 weight_hh_r * h: time-dependent, level 0, class 1\n"
        "  %16 weight_hh_n * %15: time-dependent, level 1, class 2\n"
        "  %22 weight_ih_z * x: time-independent, level 0, class 0\n"
        "  %24 weight_hh_z * h: time-dependent, level 0, class 1\n"
        "classes\n"
        "  class 0: 3 products with x, time-independent, level 0; by layer 48x8 48x16\n"
        "  class 1: 2 products with h, time-dependent, level 0; by layer 32x16 32x16\n"
        "  class 2: 1 product with %15, time-dependent, level 1; by layer 16x16 16x16\n"
        "edges between classes\n"
        "  class 0 at t-1 -> class 1 at t\n"
        "  class 0 at t -> class 2 at t\n"
        "  class 0 at t-1 -> class 2 at t\n"
        "  class 1 at t-1 -> class 1 at t\n"
        "  class 1 at t -> class 2 at t\n"
        "  class 1 at t-1 -> class 2 at t\n"
        "  class 2 at t-1 -> class 1 at t\n"
        "  class 2 at t-1 -> class 2 at t\n"
        "stack\n"
        "  layer 0 forward at t-1 -> layer 0 forward at t\n"
        "  layer 1 forward at t-1 -> layer 1 forward at t\n"
        "  layer 0 forward at t -> layer 1 forward at t\n");
}

TEST_CASE("dag: prints for Graphviz") {
  const ModelSpec spec = ModelSpec::parse("lstm:i8h16l2bi").value();
  const std::string dot = MatmulDag::build(spec.cell).to_dot(spec);
  CHECK(count(dot, "digraph") == 1);
  CHECK(count(dot, "{") == count(dot, "}"));
  CHECK(count(dot, "label=\"layer ") == 4);
  CHECK(count(dot, "label=\"class ") == 4 * 2);
  CHECK(count(dot, "[label=\"weight_") == 4 * 8);
  CHECK(count(dot, "_y -> ") == 4);
  CHECK(count(dot, "f0_y -> r1_x0;") == 1);
  CHECK(count(dot, "label=\"class 0: 64x32 x\"") == 2);
  // Loop-carried: h into four products; c into c, h and y, in each of four cells.
  CHECK(count(dot, "style=dashed") == 4 * 7);
  CHECK(count(dot, "style=dashed, label=\"t+1\"") == 2 * 7);
}
