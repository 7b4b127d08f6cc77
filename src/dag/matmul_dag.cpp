// SPDX-License-Identifier: Apache-2.0
#include "src/dag/matmul_dag.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <set>
#include <tuple>

#include "jit/index.hpp"

namespace deepcpu {
namespace {

/// Merges a sorted list into another.
void unite(std::vector<int>& into, const std::vector<int>& from) {
  std::vector<int> both;
  std::set_union(into.begin(), into.end(), from.begin(), from.end(), std::back_inserter(both));
  into = std::move(both);
}

/// Loop-carried edges into product `to`, whose operand reads `states`: one step back are the
/// products in those states' next values; where a next value is made of further states, theirs
/// are one more step back.
void carried_edges(const Cell& cell, const std::vector<DirectSources>& sources, int to,
                   std::vector<int> states, std::vector<MatmulEdge>& edges) {
  std::set<int> done(states.begin(), states.end());
  std::set<int> found;
  for (int lag = 1; !states.empty(); ++lag) {
    std::vector<int> older;
    for (const int state : states) {
      const DirectSources& made_of = sources[at(cell.states()[at(state)].next)];
      for (const int from : made_of.products) {
        if (found.insert(from).second) edges.push_back({from, to, lag});
      }
      for (const int further : made_of.states) {
        if (done.insert(further).second) older.push_back(further);
      }
    }
    states = std::move(older);
  }
}

}  // namespace

std::vector<DirectSources> direct_sources(const Cell& cell) {
  std::vector<DirectSources> sources;
  int products = 0;
  for (const Node& node : cell.nodes()) {
    DirectSources s;
    const int id = static_cast<int>(sources.size());
    if (node.op == Op::matmul) {
      s.products = {products++};
    } else if (node.op == Op::input) {
      const auto& inputs = cell.inputs();
      s.inputs = {static_cast<int>(std::find(inputs.begin(), inputs.end(), id) - inputs.begin())};
    } else if (node.op == Op::state) {
      const auto is_it = [&](const State& state) { return state.node == id; };
      const auto& states = cell.states();
      s.states = {
          static_cast<int>(std::find_if(states.begin(), states.end(), is_it) - states.begin())};
    } else {
      for (const int argument : {node.a, node.b}) {
        if (argument < 0) continue;
        unite(s.products, sources[at(argument)].products);
        unite(s.states, sources[at(argument)].states);
        unite(s.inputs, sources[at(argument)].inputs);
      }
    }
    sources.push_back(std::move(s));
  }
  return sources;
}

MatmulDag MatmulDag::build(const Cell& cell) {
  MatmulDag dag;
  dag.cell_ = cell;
  dag.find_nodes();
  dag.find_classes();
  dag.find_edges();
  return dag;
}

void MatmulDag::find_nodes() {
  // Products on the longest path up to a node, per kind: [0] time-independent, [1] recurrent.
  std::vector<std::array<int, 2>> depth;
  for (const Node& node : cell_.nodes()) {
    bool dependent = node.op == Op::state;
    std::array<int, 2> here = {0, 0};
    for (const int argument : {node.a, node.b}) {
      if (argument < 0) continue;
      dependent = dependent || time_dependent_[at(argument)];
      for (std::size_t kind : {0U, 1U}) {
        here[kind] = std::max(here[kind], depth[at(argument)][kind]);
      }
    }
    if (node.op == Op::matmul) {
      const int id = static_cast<int>(depth.size());
      nodes_.push_back({id, node.parameter, node.a, dependent, here[dependent ? 1 : 0]++, -1});
    }
    time_dependent_.push_back(dependent);
    depth.push_back(here);
  }
}

void MatmulDag::find_classes() {
  using Key = std::tuple<bool, int, int, Dim>;  // kind, level, operand, rows: the order of classes
  std::map<Key, std::vector<int>> groups;
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    const MatmulNode& n = nodes_[at(i)];
    const Dim rows = cell_.nodes()[at(n.node)].dim;
    groups[{n.recurrent, n.level, n.operand, rows}].push_back(i);
  }
  const auto place = [&](int product) {
    const Parameter& p = cell_.parameters()[at(nodes_[at(product)].parameter)];
    return std::tie(p.tensor, p.block);
  };
  for (auto& [key, products] : groups) {
    std::sort(products.begin(), products.end(), [&](int a, int b) { return place(a) < place(b); });
    for (const int i : products) nodes_[at(i)].matmul_class = static_cast<int>(classes_.size());
    const auto& [recurrent, level, operand, rows] = key;
    classes_.push_back({operand, recurrent, level, rows, std::move(products)});
  }
}

void MatmulDag::find_edges() {
  const std::vector<DirectSources> sources = direct_sources(cell_);
  for (int to = 0; to < static_cast<int>(nodes_.size()); ++to) {
    const DirectSources& reads = sources[at(nodes_[at(to)].operand)];
    for (const int from : reads.products) edges_.push_back({from, to, 0});
    carried_edges(cell_, sources, to, reads.states, edges_);
  }
  std::sort(edges_.begin(), edges_.end());
}

std::vector<MatmulEdge> MatmulDag::class_edges() const {
  std::set<MatmulEdge> edges;
  for (const MatmulEdge& e : edges_) {
    edges.insert({nodes_[at(e.from)].matmul_class, nodes_[at(e.to)].matmul_class, e.lag});
  }
  return {edges.begin(), edges.end()};
}

int MatmulDag::recurrent_levels() const noexcept {
  int levels = 0;
  for (const MatmulNode& n : nodes_) {
    if (n.recurrent) levels = std::max(levels, n.level + 1);
  }
  return levels;
}

std::vector<StackEdge> stack_edges(int layers, Direction direction) {
  const int directions = direction == Direction::bidirectional ? 2 : 1;
  std::vector<StackEdge> edges;
  for (int layer = 0; layer < layers; ++layer) {
    for (int d = 0; d < directions; ++d) {
      const bool reverse = direction == Direction::reverse || d == 1;
      edges.push_back({layer, d, layer, d, reverse ? 1 : -1});
      for (int below = 0; layer > 0 && below < directions; ++below) {
        edges.push_back({layer - 1, below, layer, d, 0});
      }
    }
  }
  return edges;
}

}  // namespace deepcpu
