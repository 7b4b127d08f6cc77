// SPDX-License-Identifier: Apache-2.0
#include "deepcpu/cell.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace deepcpu {
namespace {

constexpr std::array<std::string_view, 20> kOpNames = {
    "input", "state",      "parameter",    "constant", "matmul",    "add",     "sub",
    "mul",   "neg",        "min",          "max",      "one_minus", "sigmoid", "tanh",
    "relu",  "leaky_relu", "hard_sigmoid", "softsign", "exp",       "clip"};
static_assert(kOpNames.size() == static_cast<std::size_t>(Op::clip) + 1);

constexpr std::array<std::string_view, 4> kDimNames = {"one", "input", "hidden", "proj"};

/// The numbers of a node, each after a blank: only those that its operation has.
std::string numbers(const Node& node) {
  switch (node.op) {
    case Op::constant:
    case Op::leaky_relu:
      return fmt::format(" {}", node.p);
    case Op::hard_sigmoid:
    case Op::clip:
      return fmt::format(" {} {}", node.p, node.q);
    default:
      return "";
  }
}

std::string shape(const Parameter& parameter) {
  if (!parameter.is_matrix) return fmt::format("[{}]", to_string(parameter.rows));
  return fmt::format("[{}, {}]", to_string(parameter.rows), to_string(parameter.cols));
}

}  // namespace

std::string_view to_string(Op op) noexcept {
  const auto i = static_cast<std::size_t>(op);
  return i < kOpNames.size() ? kOpNames[i] : "?";
}

std::string_view to_string(Dim dim) noexcept {
  const auto i = static_cast<std::size_t>(dim);
  return i < kDimNames.size() ? kDimNames[i] : "?";
}

bool Cell::uses(Dim dim) const noexcept {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.dim == dim; }) ||
         std::any_of(parameters_.begin(), parameters_.end(), [&](const Parameter& p) {
           return p.rows == dim || (p.is_matrix && p.cols == dim);
         });
}

std::string Cell::to_text() const {
  std::string text = fmt::format("cell {}\n", name_);
  auto out = std::back_inserter(text);
  for (const Parameter& p : parameters_) {
    fmt::format_to(out, "parameter {} {} = tensor {} block {} of {}\n", p.name, shape(p), p.tensor,
                   p.block, p.blocks);
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    fmt::format_to(out, "%{} {} = {}", i, to_string(node.dim), to_string(node.op));
    if (node.op == Op::input || node.op == Op::state) fmt::format_to(out, " {}", node.name);
    if (node.parameter >= 0) {
      fmt::format_to(out, " {}", parameters_[static_cast<std::size_t>(node.parameter)].name);
    }
    if (node.a >= 0) fmt::format_to(out, " %{}", node.a);
    if (node.b >= 0) fmt::format_to(out, " %{}", node.b);
    text += numbers(node);
    if (node.op != Op::input && node.op != Op::state && !node.name.empty()) {
      fmt::format_to(out, " ; {}", node.name);
    }
    text += '\n';
  }
  for (const State& s : states_) fmt::format_to(out, "next {} = %{}\n", s.name, s.next);
  fmt::format_to(out, "output = %{}\n", output_);
  return text;
}

}  // namespace deepcpu
