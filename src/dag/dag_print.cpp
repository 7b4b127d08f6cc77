// SPDX-License-Identifier: Apache-2.0
/// The MM-DAG as text and for Graphviz.
#include <fmt/format.h>

#include <iterator>

#include "jit/index.hpp"
#include "src/dag/matmul_dag.hpp"

namespace deepcpu {
namespace {

std::string plural(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : noun.back() == 's' ? "es" : "s");
}

std::string_view direction_name(Direction direction, int d) {
  return direction == Direction::reverse || d == 1 ? "reverse" : "forward";
}

std::string step_name(int step) { return step == 0 ? "t" : fmt::format("t{:+}", step); }

class Printer {
 public:
  Printer(const MatmulDag& dag, const ModelSpec& spec)
      : dag_(dag), spec_(spec), sources_(direct_sources(dag.cell())) {}

  std::string text();
  std::string dot();

 private:
  std::string value_name(int node) const {
    const std::string& name = dag_.cell().nodes()[at(node)].name;
    return name.empty() ? fmt::format("%{}", node) : name;
  }
  const std::string& product_name(int product) const {
    return dag_.cell().parameters()[at(dag_.nodes()[at(product)].parameter)].name;
  }
  /// "1024x256": all rows of a class by the width of its operand.
  std::string size(const MatmulClass& c, int layer) const {
    const auto rows = static_cast<std::int64_t>(c.products.size()) * spec_.width(c.rows, layer);
    return fmt::format("{}x{}", rows, spec_.width(dag_.cell().nodes()[at(c.operand)].dim, layer));
  }

  void text_products();
  void text_classes();
  void text_edges();
  void text_stack();
  void dot_cell(int layer, int direction);
  void dot_class(int id, int layer, const std::string& prefix);
  void dot_sources(const DirectSources& from, const std::string& prefix, const std::string& to);

  const MatmulDag& dag_;
  const ModelSpec& spec_;
  std::vector<DirectSources> sources_;
  std::string text_;
  std::back_insert_iterator<std::string> out_{text_};
};

void Printer::text_products() {
  text_ += "products\n";
  for (std::size_t i = 0; i < dag_.nodes().size(); ++i) {
    const MatmulNode& n = dag_.nodes()[i];
    fmt::format_to(out_, "  %{} {} * {}: {}, level {}, class {}\n", n.node,
                   product_name(static_cast<int>(i)), value_name(n.operand),
                   n.recurrent ? "time-dependent" : "time-independent", n.level, n.matmul_class);
  }
}

void Printer::text_classes() {
  text_ += "classes\n";
  for (std::size_t i = 0; i < dag_.classes().size(); ++i) {
    const MatmulClass& c = dag_.classes()[i];
    fmt::format_to(out_, "  class {}: {} with {}, {}, level {}; by layer", i,
                   plural(c.products.size(), "product"), value_name(c.operand),
                   c.recurrent ? "time-dependent" : "time-independent", c.level);
    for (int layer = 0; layer < spec_.layers(); ++layer) {
      fmt::format_to(out_, " {}", size(c, layer));
    }
    text_ += '\n';
  }
}

void Printer::text_edges() {
  text_ += "edges between classes\n";
  for (const MatmulEdge& e : dag_.class_edges()) {
    fmt::format_to(out_, "  class {} at {} -> class {} at t\n", e.from, step_name(-e.lag), e.to);
  }
}

void Printer::text_stack() {
  text_ += "stack\n";
  for (const StackEdge& e : stack_edges(spec_.layers(), spec_.direction)) {
    fmt::format_to(out_, "  layer {} {} at {} -> layer {} {} at t\n", e.from_layer,
                   direction_name(spec_.direction, e.from_direction), step_name(e.step), e.to_layer,
                   direction_name(spec_.direction, e.to_direction));
  }
}

std::string Printer::text() {
  text_ = fmt::format("MM-DAG of {}: {} a step, {}, {} of time-dependent products\n",
                      dag_.cell().name(), plural(dag_.nodes().size(), "product"),
                      plural(dag_.classes().size(), "class"),
                      plural(at(dag_.recurrent_levels()), "dependent level"));
  text_products();
  text_classes();
  text_edges();
  text_stack();
  return std::move(text_);
}

/// Edges from what a value is made of: solid from products and inputs, dashed from states, which
/// hold what the step before left in them.
void Printer::dot_sources(const DirectSources& from, const std::string& prefix,
                          const std::string& to) {
  for (const int i : from.products) fmt::format_to(out_, "    {}_p{} -> {};\n", prefix, i, to);
  for (const int i : from.inputs) fmt::format_to(out_, "    {}_x{} -> {};\n", prefix, i, to);
  for (const int i : from.states) {
    fmt::format_to(out_, "    {}_s{} -> {} [style=dashed, label=\"{}\"];\n", prefix, i, to,
                   step_name(prefix.front() == 'r' ? 1 : -1));
  }
}

void Printer::dot_class(int id, int layer, const std::string& prefix) {
  const MatmulClass& c = dag_.classes()[at(id)];
  fmt::format_to(out_, "    subgraph cluster_{}_c{} {{\n", prefix, id);
  fmt::format_to(out_, "      label=\"class {}: {} {}\"; color={};\n", id, size(c, layer),
                 value_name(c.operand), c.recurrent ? "red" : "blue");
  for (const int i : c.products) {
    fmt::format_to(out_, "      {}_p{} [label=\"{}\"];\n", prefix, i, product_name(i));
  }
  text_ += "    }\n";
}

void Printer::dot_cell(int layer, int direction) {
  const Cell& cell = dag_.cell();
  const std::string_view way = direction_name(spec_.direction, direction);
  const std::string prefix = fmt::format("{}{}", way.front(), layer);
  fmt::format_to(out_, "  subgraph cluster_{} {{\n    label=\"layer {} {}\";\n", prefix, layer,
                 way);
  for (std::size_t i = 0; i < cell.inputs().size(); ++i) {
    fmt::format_to(out_, "    {}_x{} [shape=plaintext, label=\"{}\"];\n", prefix, i,
                   value_name(cell.inputs()[i]));
  }
  for (std::size_t i = 0; i < cell.states().size(); ++i) {
    fmt::format_to(out_, "    {}_s{} [shape=ellipse, label=\"{}\"];\n", prefix, i,
                   cell.states()[i].name);
  }
  fmt::format_to(out_, "    {}_y [shape=plaintext, label=\"y\"];\n", prefix);
  for (int i = 0; i < static_cast<int>(dag_.classes().size()); ++i) dot_class(i, layer, prefix);
  for (std::size_t i = 0; i < dag_.nodes().size(); ++i) {
    dot_sources(sources_[at(dag_.nodes()[i].operand)], prefix, fmt::format("{}_p{}", prefix, i));
  }
  for (std::size_t i = 0; i < cell.states().size(); ++i) {
    dot_sources(sources_[at(cell.states()[i].next)], prefix, fmt::format("{}_s{}", prefix, i));
  }
  dot_sources(sources_[at(cell.output())], prefix, prefix + "_y");
  text_ += "  }\n";
}

std::string Printer::dot() {
  text_ = "digraph mm_dag {\n  rankdir=LR;\n  node [shape=box];\n";
  for (int layer = 0; layer < spec_.layers(); ++layer) {
    for (int d = 0; d < spec_.directions(); ++d) dot_cell(layer, d);
  }
  for (const StackEdge& e : stack_edges(spec_.layers(), spec_.direction)) {
    if (e.from_layer == e.to_layer) continue;  // the states' dashed edges say it
    fmt::format_to(out_, "  {}{}_y -> {}{}_x0;\n",
                   direction_name(spec_.direction, e.from_direction).front(), e.from_layer,
                   direction_name(spec_.direction, e.to_direction).front(), e.to_layer);
  }
  text_ += "}\n";
  return std::move(text_);
}

}  // namespace

std::string MatmulDag::to_text(const ModelSpec& spec) const { return Printer(*this, spec).text(); }

std::string MatmulDag::to_dot(const ModelSpec& spec) const { return Printer(*this, spec).dot(); }

}  // namespace deepcpu
