// SPDX-License-Identifier: Apache-2.0
#include "src/lower/step_graph.hpp"

#include <algorithm>

#include "jit/index.hpp"

namespace deepcpu::lower {
namespace {

/// Leaves of an add tree, left to right.
struct Addends {
  std::vector<int> biases;    // cell nodes
  std::vector<int> products;  // cell nodes
  std::vector<int> others;    // cell nodes
};

class Builder {
 public:
  explicit Builder(const Cell& cell) : cell_(cell), uses_(cell.nodes().size(), 0) {
    for (const Node& n : cell.nodes()) {
      if (n.a >= 0) ++uses_[at(n.a)];
      if (n.b >= 0) ++uses_[at(n.b)];
    }
    for (const State& s : cell.states()) ++uses_[at(s.next)];
    ++uses_[at(cell.output())];
  }

  StepGraph build() {
    mark_absorbed();
    value_.assign(cell_.nodes().size(), -1);
    for (int id = 0; id < static_cast<int>(cell_.nodes().size()); ++id) {
      if (!absorbed_[at(id)]) value_[at(id)] = lower_node(id);
    }
    for (const State& s : cell_.states()) graph_.state_next.push_back(value_[at(s.next)]);
    graph_.output = value_[at(cell_.output())];
    return std::move(graph_);
  }

 private:
  const Node& node(int id) const { return cell_.nodes()[at(id)]; }

  /// A node is absorbed when its only user takes it over: an add into the add above it, a product
  /// or a bias into its sum, a multiplication into an fma.
  void mark_absorbed() {
    absorbed_.assign(cell_.nodes().size(), false);
    sum_root_.assign(cell_.nodes().size(), false);
    fma_factor_.assign(cell_.nodes().size(), -1);
    for (int id = static_cast<int>(cell_.nodes().size()) - 1; id >= 0; --id) {
      const Node& n = node(id);
      if (absorbed_[at(id)]) continue;
      if (n.op == Op::matmul) sum_root_[at(id)] = true;
      if (n.op != Op::add) continue;
      Addends leaves;
      collect(id, leaves);
      if (leaves.products.empty()) {
        absorb_factor(id);
      } else {
        sum_root_[at(id)] = true;
        absorb_tree(id);
        absorb_addend_factors(leaves);
      }
    }
  }

  bool single_use(int id) const { return uses_[at(id)] == 1; }

  void collect(int id, Addends& out) const {
    for (const int arg : {node(id).a, node(id).b}) {
      const Node& n = node(arg);
      const bool same_width = n.dim == node(id).dim;
      if (n.op == Op::add && single_use(arg) && same_width) {
        collect(arg, out);
      } else if (n.op == Op::matmul && single_use(arg) && same_width) {
        out.products.push_back(arg);
      } else if (n.op == Op::parameter && same_width) {
        out.biases.push_back(arg);
      } else {
        out.others.push_back(arg);
      }
    }
  }

  void absorb_tree(int id) {
    for (const int arg : {node(id).a, node(id).b}) {
      const Node& n = node(arg);
      if (!single_use(arg) || n.dim != node(id).dim) continue;
      if (n.op == Op::add) absorb_tree(arg);
      if (n.op == Op::add || n.op == Op::matmul) absorbed_[at(arg)] = true;
    }
  }

  bool is_factor(int id) const { return node(id).op == Op::mul && single_use(id); }

  /// a * b + c: the left factor is preferred, so that the choice depends on the graph alone.
  void absorb_factor(int id) {
    for (const int arg : {node(id).a, node(id).b}) {
      if (is_factor(arg)) {
        absorbed_[at(arg)] = true;
        fma_factor_[at(id)] = arg;
        return;
      }
    }
  }

  void absorb_addend_factors(const Addends& leaves) {
    for (const int other : leaves.others) {
      if (is_factor(other)) absorbed_[at(other)] = true;
    }
  }

  int push(Expr e) {
    graph_.exprs.push_back(std::move(e));
    return static_cast<int>(graph_.exprs.size()) - 1;
  }

  int level(int expr) const { return expr < 0 ? 0 : graph_.exprs[at(expr)].level; }

  /// A value that meets a wider one is read back from memory by every unit, so it has to be
  /// complete: one level later. Values computable at level 0 are computed where they are used.
  int level_seen_from(Dim dim, int expr) const {
    if (expr < 0) return 0;
    const Expr& e = graph_.exprs[at(expr)];
    return e.dim != dim && e.dim == Dim::one && e.level > 0 ? e.level + 1 : e.level;
  }

  void set_level(Expr& e) const {
    for (const int arg : {e.a, e.b, e.c}) e.level = std::max(e.level, level_seen_from(e.dim, arg));
  }

  int lower_node(int id) {
    const Node& n = node(id);
    if (sum_root_[at(id)]) return lower_sum(id);
    Expr e;
    e.dim = n.dim;
    e.name = n.name;
    e.p = n.p;
    e.q = n.q;
    switch (n.op) {
      case Op::input:
        e.kind = Kind::input;
        e.index = index_of(cell_.inputs(), id);
        break;
      case Op::state:
        e.kind = Kind::state;
        e.index = state_index(id);
        break;
      case Op::parameter:
        e.kind = Kind::parameter;
        e.index = n.parameter;
        break;
      case Op::constant:
        e.kind = Kind::constant;
        break;
      default:
        fill_element(id, e);
        break;
    }
    return push(std::move(e));
  }

  void fill_element(int id, Expr& e) const {
    const Node& n = node(id);
    const int factor = fma_factor_[at(id)];
    if (factor >= 0) {
      const int addend = factor == n.a ? n.b : n.a;
      e.kind = Kind::fma;
      e.a = value_[at(node(factor).a)];
      e.b = value_[at(node(factor).b)];
      e.c = value_[at(addend)];
    } else {
      e.kind = Kind::element;
      e.op = n.op;
      e.a = value_[at(n.a)];
      e.b = n.b >= 0 ? value_[at(n.b)] : -1;
    }
    set_level(e);
  }

  int lower_sum(int id) {
    Addends leaves;
    if (node(id).op == Op::matmul) {
      leaves.products.push_back(id);
    } else {
      collect(id, leaves);
    }
    int result = push_sum(id, leaves);
    for (const int other : leaves.others) result = push_addend(id, result, other);
    graph_.exprs[at(result)].name = node(id).name;
    return result;
  }

  int push_sum(int id, const Addends& leaves) {
    SumExpr sum;
    for (const int bias : leaves.biases) sum.biases.push_back(node(bias).parameter);
    for (const int product : leaves.products) {
      const Node& n = node(product);
      sum.products.push_back({n.parameter, value_[at(n.a)]});
    }
    Expr e;
    e.kind = Kind::sum;
    e.dim = node(id).dim;
    e.index = static_cast<int>(graph_.sums.size());
    e.level = 1;
    e.name = node(id).name;
    for (const SumProduct& p : sum.products) e.level = std::max(e.level, level(p.operand) + 1);
    const int expr = push(std::move(e));
    sum.expr = expr;
    graph_.sums.push_back(std::move(sum));
    return expr;
  }

  int push_addend(int id, int sum, int other) {
    Expr e;
    e.dim = node(id).dim;
    if (is_factor(other)) {
      e.kind = Kind::fma;
      e.a = value_[at(node(other).a)];
      e.b = value_[at(node(other).b)];
      e.c = sum;
    } else {
      e.kind = Kind::element;
      e.op = Op::add;
      e.a = sum;
      e.b = value_[at(other)];
    }
    set_level(e);
    return push(std::move(e));
  }

  static int index_of(const std::vector<int>& ids, int id) {
    return static_cast<int>(std::find(ids.begin(), ids.end(), id) - ids.begin());
  }

  int state_index(int id) const {
    const auto& states = cell_.states();
    const auto it =
        std::find_if(states.begin(), states.end(), [id](const State& s) { return s.node == id; });
    return static_cast<int>(it - states.begin());
  }

  const Cell& cell_;
  std::vector<int> uses_;
  std::vector<bool> absorbed_;
  std::vector<bool> sum_root_;
  std::vector<int> fma_factor_;
  std::vector<int> value_;
  StepGraph graph_;
};

}  // namespace

StepGraph StepGraph::build(const Cell& cell) { return Builder(cell).build(); }

}  // namespace deepcpu::lower
