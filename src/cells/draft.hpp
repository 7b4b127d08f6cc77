// SPDX-License-Identifier: Apache-2.0
/// What a CellBuilder has collected, and the checks that turn it into a Cell.
#pragma once

#include <string>
#include <vector>

#include "deepcpu/cell.hpp"

namespace deepcpu {

struct CellBuilder::Draft {
  std::string name;
  std::vector<Node> nodes;     ///< in the order of the calls; a later() value has its target as `a`
  std::vector<bool> is_later;  ///< one per node
  std::vector<Parameter> parameters;
  std::vector<State> states;
  std::vector<int> inputs;
  int output = -1;
  bool built = false;
  bool no_memory = false;  ///< ran out during some call: build() says so
  std::string error;       ///< the first mistake, empty if none

  /// Keeps `message` unless an earlier mistake is kept already.
  void fail(const std::string& message) {
    if (error.empty()) error = message;
  }
  const Node& node(int id) const { return nodes[static_cast<std::size_t>(id)]; }
  Node& node(int id) { return nodes[static_cast<std::size_t>(id)]; }
};

/// A node in words, for sentences: "input x", "state h", "parameter bias", "later c",
/// "value gate (sigmoid)", "node 7 (add)".
std::string describe(const CellBuilder::Draft& draft, int id);

/// Number of inputs, states and nodes; names; parameters and their blocks; states' next values;
/// definitions of later() values. Everything but what needs a walk through the graph.
Status check_parts(const CellBuilder::Draft& draft);

/// Brings nodes and parameters into the canonical order (see Cell), replaces later() values by
/// their definitions. Errors: a cycle inside a step, a node that nothing uses.
Status sort_nodes(CellBuilder::Draft& draft);

}  // namespace deepcpu
