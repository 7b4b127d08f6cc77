// SPDX-License-Identifier: Apache-2.0
/// The checks of CellBuilder::build(), and the canonical order of nodes.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "src/cells/draft.hpp"

namespace deepcpu {
namespace {

using Draft = CellBuilder::Draft;

constexpr std::size_t kMaxInputs = 4;
constexpr std::size_t kMaxStates = 16;
constexpr std::size_t kMaxNodes = 512;
constexpr int kMaxBlocks = 64;
constexpr std::size_t kMaxName = 64;

Error error(const std::string& message) { return Error(message); }

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_name(std::string_view text, bool dots) {
  const auto inside = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || (dots && c == '.');
  };
  return !text.empty() && text.size() <= kMaxName && is_letter(text.front()) &&
         std::all_of(text.begin(), text.end(), inside);
}

Status check_name(std::string_view what, std::string_view name, bool dots = false) {
  if (is_name(name, dots)) return {};
  return error(fmt::format(
      "{} name '{}': must be 1 to {} letters, digits{} underscores, starting with a letter", what,
      name.substr(0, kMaxName), kMaxName, dots ? ", dots and" : " and"));
}

Status check_count(std::string_view what, std::size_t count, std::size_t least, std::size_t most) {
  if (count >= least && count <= most) return {};
  return error(fmt::format("{}={}: must be between {} and {}", what, count, least, most));
}

Status check_counts(const Draft& draft) {
  if (Status s = check_count("inputs", draft.inputs.size(), 1, kMaxInputs); !s) return s;
  if (Status s = check_count("states", draft.states.size(), 1, kMaxStates); !s) return s;
  return check_count("nodes", draft.nodes.size(), 1, kMaxNodes);
}

Status check_node_names(const Draft& draft) {
  std::map<std::string_view, int> seen;
  for (int id = 0; id < static_cast<int>(draft.nodes.size()); ++id) {
    const Node& node = draft.node(id);
    const bool later = draft.is_later[static_cast<std::size_t>(id)];
    const bool must = later || node.op == Op::input || node.op == Op::state;
    if (node.name.empty() && !must) continue;
    const std::string_view what = later                  ? "later"
                                  : node.op == Op::input ? "input"
                                  : node.op == Op::state ? "state"
                                                         : "value";
    if (Status s = check_name(what, node.name); !s) return s;
    const auto [other, fresh] = seen.emplace(node.name, id);
    if (!fresh) {
      return error(fmt::format("{} and {} share a name", describe(draft, other->second),
                               describe(draft, id)));
    }
  }
  return {};
}

/// Parameters of one tensor must agree on everything but the block.
Status check_tensor(const Parameter& first, const Parameter& other) {
  if (first.blocks != other.blocks) {
    return error(fmt::format("tensor {}: cut into {} blocks by {} and into {} by {}", first.tensor,
                             first.blocks, first.name, other.blocks, other.name));
  }
  if (first.rows != other.rows || first.cols != other.cols || first.is_matrix != other.is_matrix) {
    return error(fmt::format("tensor {}: {} and {} see blocks of different shape", first.tensor,
                             first.name, other.name));
  }
  return {};
}

Status check_block(const Parameter& p) {
  if (p.blocks < 1 || p.blocks > kMaxBlocks) {
    return error(fmt::format("parameter {}, blocks={}: must be between 1 and {}", p.name, p.blocks,
                             kMaxBlocks));
  }
  if (p.block < 0 || p.block >= p.blocks) {
    return error(fmt::format("parameter {}, block={}: must be between 0 and {}", p.name, p.block,
                             p.blocks - 1));
  }
  return {};
}

Status check_parameters(const Draft& draft) {
  std::set<std::string_view> names;
  std::map<std::string_view, const Parameter*> tensors;
  std::map<std::pair<std::string_view, int>, std::string_view> blocks;
  for (const Parameter& p : draft.parameters) {
    if (Status s = check_name("parameter", p.name); !s) return s;
    if (Status s = check_name("tensor", p.tensor, true); !s) return s;
    if (Status s = check_block(p); !s) return s;
    if (!names.insert(p.name).second) {
      return error(fmt::format("two parameters are called {}", p.name));
    }
    const auto [first, fresh] = tensors.emplace(p.tensor, &p);
    if (!fresh) {
      if (Status s = check_tensor(*first->second, p); !s) return s;
    }
    const auto [holder, free] =
        blocks.emplace(std::pair(std::string_view(p.tensor), p.block), p.name);
    if (!free) {
      return error(fmt::format("tensor {}, block {}: taken by both {} and {}", p.tensor, p.block,
                               holder->second, p.name));
    }
  }
  return {};
}

Status check_states(const Draft& draft) {
  for (const State& s : draft.states) {
    if (s.next < 0) return error(fmt::format("state {}: has no next value", s.name));
    const Dim dim = draft.node(s.next).dim;
    if (dim != s.dim) {
      return error(fmt::format("state {}: its width is {}, that of its next value {}", s.name,
                               to_string(s.dim), to_string(dim)));
    }
  }
  return {};
}

Status check_definitions(const Draft& draft) {
  for (int id = 0; id < static_cast<int>(draft.nodes.size()); ++id) {
    if (draft.is_later[static_cast<std::size_t>(id)] && draft.node(id).a < 0) {
      return error(fmt::format("{}: has no definition", describe(draft, id)));
    }
  }
  return {};
}

/// Walks a draft's graph depth first; `order` gets every node after its arguments.
class Walk {
 public:
  explicit Walk(const Draft& draft) : draft_(draft), mark_(draft.nodes.size(), Mark::fresh) {}

  Status visit(int id) {
    Mark& mark = mark_[static_cast<std::size_t>(id)];
    if (mark == Mark::done) return {};
    path_.push_back(id);
    if (mark == Mark::open) return cycle();
    mark = Mark::open;
    for (const int argument : {draft_.node(id).a, draft_.node(id).b}) {
      if (argument < 0) continue;
      if (Status s = visit(argument); !s) return s;
    }
    mark = Mark::done;
    path_.pop_back();
    order.push_back(id);
    return {};
  }

  bool seen(int id) const { return mark_[static_cast<std::size_t>(id)] == Mark::done; }

  std::vector<int> order;

 private:
  enum class Mark : std::uint8_t { fresh, open, done };

  /// The path ends in a cycle; it holds a later() value, since all other nodes are older than
  /// their users.
  Status cycle() const {
    auto at = path_.rbegin();
    while (!draft_.is_later[static_cast<std::size_t>(*at)]) ++at;
    return error(fmt::format("{} depends on itself inside one step", describe(draft_, *at)));
  }

  const Draft& draft_;
  std::vector<Mark> mark_;
  std::vector<int> path_;
};

/// Names the end of an unused chain: a node that nobody has as an argument.
Error unused(const Draft& draft, const std::vector<bool>& used) {
  std::vector<bool> argument(draft.nodes.size(), false);
  for (const Node& node : draft.nodes) {
    if (node.a >= 0) argument[static_cast<std::size_t>(node.a)] = true;
    if (node.b >= 0) argument[static_cast<std::size_t>(node.b)] = true;
  }
  int id = 0;
  while (used[static_cast<std::size_t>(id)] || argument[static_cast<std::size_t>(id)]) ++id;
  const bool state = draft.node(id).op == Op::state;
  return error(fmt::format("{} is never {}", describe(draft, id), state ? "read" : "used"));
}

/// A later() value gives its name to the node that defines it, if that one has none.
void hand_down_name(Draft& draft, int id) {
  const std::string name = draft.node(id).name;
  while (draft.is_later[static_cast<std::size_t>(id)]) id = draft.node(id).a;
  if (draft.node(id).name.empty()) draft.node(id).name = name;
}

/// The draft with nodes and parameters in the order of `order`.
void renumber(Draft& draft, const std::vector<int>& order) {
  std::vector<Node> nodes;
  std::vector<Parameter> parameters;
  std::vector<int> place(draft.nodes.size(), -1);
  for (const int old : order) {
    Node& from = draft.node(old);
    if (draft.is_later[static_cast<std::size_t>(old)]) {
      place[static_cast<std::size_t>(old)] = place[static_cast<std::size_t>(from.a)];
      continue;
    }
    place[static_cast<std::size_t>(old)] = static_cast<int>(nodes.size());
    Node node = from;
    if (node.a >= 0) node.a = place[static_cast<std::size_t>(node.a)];
    if (node.b >= 0) node.b = place[static_cast<std::size_t>(node.b)];
    if (node.parameter >= 0) {
      parameters.push_back(draft.parameters[static_cast<std::size_t>(node.parameter)]);
      node.parameter = static_cast<int>(parameters.size()) - 1;
    }
    nodes.push_back(std::move(node));
  }
  for (int& id : draft.inputs) id = place[static_cast<std::size_t>(id)];
  for (State& s : draft.states) {
    s.node = place[static_cast<std::size_t>(s.node)];
    s.next = place[static_cast<std::size_t>(s.next)];
  }
  draft.output = place[static_cast<std::size_t>(draft.output)];
  draft.nodes = std::move(nodes);
  draft.parameters = std::move(parameters);
}

}  // namespace

std::string describe(const Draft& draft, int id) {
  const Node& node = draft.node(id);
  if (draft.is_later[static_cast<std::size_t>(id)]) return fmt::format("later {}", node.name);
  if (node.op == Op::input || node.op == Op::state) {
    return fmt::format("{} {}", to_string(node.op), node.name);
  }
  if (!node.name.empty()) return fmt::format("value {} ({})", node.name, to_string(node.op));
  if (node.parameter >= 0) {
    return fmt::format("{} {}", to_string(node.op),
                       draft.parameters[static_cast<std::size_t>(node.parameter)].name);
  }
  return fmt::format("node {} ({})", id, to_string(node.op));
}

Status check_parts(const Draft& draft) {
  if (Status s = check_name("cell", draft.name); !s) return s;
  if (Status s = check_counts(draft); !s) return s;
  if (Status s = check_node_names(draft); !s) return s;
  if (Status s = check_parameters(draft); !s) return s;
  if (draft.output < 0) return error("output: missing; a cell has exactly one");
  if (Status s = check_states(draft); !s) return s;
  return check_definitions(draft);
}

Status sort_nodes(Draft& draft) {
  const int count = static_cast<int>(draft.nodes.size());
  Walk walk(draft);
  for (const State& s : draft.states) {
    if (Status status = walk.visit(s.next); !status) return status;
  }
  if (Status status = walk.visit(draft.output); !status) return status;
  std::vector<bool> used;
  for (int id = 0; id < count; ++id) used.push_back(walk.seen(id));
  for (int id = 0; id < count; ++id) {  // a cycle among unused nodes is still a cycle
    if (Status status = walk.visit(id); !status) return status;
  }
  if (std::find(used.begin(), used.end(), false) != used.end()) return unused(draft, used);
  for (int id = 0; id < count; ++id) hand_down_name(draft, id);

  std::vector<int> order = draft.inputs;
  for (const State& s : draft.states) order.push_back(s.node);
  for (const int id : walk.order) {
    const Op op = draft.node(id).op;
    if (op != Op::input && op != Op::state) order.push_back(id);
  }
  renumber(draft, order);
  return {};
}

}  // namespace deepcpu
