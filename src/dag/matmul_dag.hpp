// SPDX-License-Identifier: Apache-2.0
/// The MM-DAG: a cell's matrix products and what each must wait for. The graph is periodic in time,
/// so it is kept as one step with loop-carried edges.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepcpu/cell.hpp"
#include "deepcpu/model.hpp"

namespace deepcpu {

struct MatmulNode {
  int node = -1;           ///< node id in the cell
  int parameter = -1;      ///< index into Cell::parameters()
  int operand = -1;        ///< node id of what the matrix is multiplied with
  bool recurrent = false;  ///< the operand depends on a state: the product is time-dependent
  int level = 0;           ///< most products of the same kind on a path before it, inside one step
  int matmul_class = -1;   ///< index into MatmulDag::classes()
};

/// Products with the same operand become ready at the same moment; those with the same number of
/// rows too form a class and can be one larger product.
struct MatmulClass {
  int operand = -1;
  bool recurrent = false;
  int level = 0;
  Dim rows = Dim::hidden;
  std::vector<int> products;  ///< indices into MatmulDag::nodes(), by tensor name and block
};

/// `to` at step t needs `from` at step t - lag. Lag 0 is inside a step; only direct dependences are
/// listed, those through element-wise operations alone.
struct MatmulEdge {
  int from = -1;
  int to = -1;
  int lag = 0;
  auto operator<=>(const MatmulEdge&) const = default;
};

/// One layer in one direction of a stack needs another: `to` at step t needs `from` at step
/// t + step. Direction 0 is the first one (forward, or reverse alone), 1 the reverse one of a
/// bidirectional stack.
struct StackEdge {
  int from_layer = 0;
  int from_direction = 0;
  int to_layer = 0;
  int to_direction = 0;
  int step = 0;
  auto operator<=>(const StackEdge&) const = default;
};

/// (l, t) needs (l, t-1), or (l, t+1) in the reverse direction, and (l-1, t) in every direction.
std::vector<StackEdge> stack_edges(int layers, Direction direction);

/// Immutable.
class MatmulDag {
 public:
  static MatmulDag build(const Cell& cell);

  const Cell& cell() const noexcept { return cell_; }
  /// In the order of the cell's nodes.
  const std::vector<MatmulNode>& nodes() const noexcept { return nodes_; }
  /// Time-independent ones first, then by level. A class needs earlier classes only.
  const std::vector<MatmulClass>& classes() const noexcept { return classes_; }
  /// Between products: indices into nodes(); sorted. Of several loop-carried dependences between
  /// two products only the one with the smallest lag is listed.
  const std::vector<MatmulEdge>& edges() const noexcept { return edges_; }
  /// The same between classes: indices into classes(); sorted, each once.
  std::vector<MatmulEdge> class_edges() const;
  /// Dependent products in a row in every step: how often a step must wait for a product before
  /// the next one can start. 0 if no product is time-dependent.
  int recurrent_levels() const noexcept;
  /// One flag per node of the cell: its value depends on a state.
  const std::vector<bool>& time_dependent() const noexcept { return time_dependent_; }
  bool time_dependent(int node) const { return time_dependent_[static_cast<std::size_t>(node)]; }

  /// Products, classes with their sizes per layer, edges and the stack. `spec` must be valid and
  /// hold this cell.
  std::string to_text(const ModelSpec& spec) const;
  /// The same for Graphviz: one cluster per layer and direction; loop-carried edges are dashed.
  std::string to_dot(const ModelSpec& spec) const;

 private:
  void find_nodes();
  void find_classes();
  void find_edges();

  Cell cell_;
  std::vector<MatmulNode> nodes_;
  std::vector<MatmulClass> classes_;
  std::vector<MatmulEdge> edges_;
  std::vector<bool> time_dependent_;
};

/// What a value inside one step is made of directly, that is through element-wise operations
/// alone: indices of products, states and inputs.
struct DirectSources {
  std::vector<int> products;  ///< indices into MatmulDag::nodes()
  std::vector<int> states;    ///< indices into Cell::states()
  std::vector<int> inputs;    ///< indices into Cell::inputs()
};
/// One entry per node of the cell. A product's own entry is the product alone.
std::vector<DirectSources> direct_sources(const Cell& cell);

}  // namespace deepcpu
