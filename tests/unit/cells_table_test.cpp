// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "deepcpu/model.hpp"
#include "src/cells/cells.hpp"
#include "tests/catch.hpp"

using deepcpu::Cell;
using deepcpu::CellEntry;
using deepcpu::CellOptions;
using deepcpu::Dim;
using deepcpu::Node;
using deepcpu::Op;
using deepcpu::Parameter;

namespace {

Cell build(const char* name, const CellOptions& options = {}, bool projection = false) {
  return deepcpu::find_cell(name)->build(options, projection).value();
}

std::string failure(const char* name, const CellOptions& options, bool projection = false) {
  const deepcpu::Result<Cell> cell = deepcpu::find_cell(name)->build(options, projection);
  return cell.ok() ? "" : cell.error().message();
}

double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

/// One step of a cell whose widths are all 1: every node is a number. Only the operations that
/// the built-in cells use.
class Scalar {
 public:
  explicit Scalar(const Cell& cell) : cell_(cell) {}

  /// Block `block` of a tensor: a different number for each.
  static double weight(const std::string& tensor, int block) {
    static const std::map<std::string, double> base = {
        {"weight_ih", 0.9}, {"weight_hh", -0.7},      {"bias_ih", 0.2},
        {"bias_hh", 0.1},   {"weight_peephole", 0.6}, {"weight_hr", 1.3}};
    return base.at(tensor) + 0.37 * block;
  }

  std::map<std::string, double> values;  ///< inputs and states by name

  double output() const { return value(cell_.output()); }
  double next(std::size_t state) const { return value(cell_.states()[state].next); }

 private:
  double value(int id) const {
    const Node& n = cell_.nodes()[static_cast<std::size_t>(id)];
    const auto a = [&] { return value(n.a); };
    const auto b = [&] { return value(n.b); };
    const auto w = [&] {
      const Parameter& p = cell_.parameters()[static_cast<std::size_t>(n.parameter)];
      return weight(p.tensor, p.block);
    };
    switch (n.op) {
      case Op::input:
      case Op::state:
        return values.at(n.name);
      case Op::parameter:
        return w();
      case Op::matmul:
        return w() * a();
      case Op::add:
        return a() + b();
      case Op::sub:
        return a() - b();
      case Op::mul:
        return a() * b();
      case Op::one_minus:
        return 1.0 - a();
      case Op::sigmoid:
        return sigmoid(a());
      case Op::tanh:
        return std::tanh(a());
      case Op::relu:
        return std::max(a(), 0.0);
      case Op::clip:
        return std::clamp(a(), static_cast<double>(n.p), static_cast<double>(n.q));
      default:
        throw std::runtime_error("operation not expected in a built-in cell");
    }
  }

  const Cell& cell_;
};

constexpr double kX = 0.8;
constexpr double kH = -0.45;
constexpr double kC = 1.7;

double w(const char* tensor, int block) { return Scalar::weight(tensor, block); }

/// W x + U h + b + r of gate `block`.
double sum(int block) {
  return w("weight_ih", block) * kX + w("weight_hh", block) * kH + w("bias_ih", block) +
         w("bias_hh", block);
}

/// PyTorch's LSTM with the extensions that build_lstm documents.
void check_lstm(bool peephole, double clip, bool coupled, bool projection) {
  CellOptions options;
  if (peephole) options["peephole"] = "1";
  if (coupled) options["coupled"] = "1";
  if (clip > 0.0) options["clip"] = std::to_string(clip);
  const Cell cell = build("lstm", options, projection);
  INFO(cell.to_text());
  Scalar scalar(cell);
  scalar.values = {{"x", kX}, {"h", kH}, {"c", kC}};

  const double p = peephole ? 1.0 : 0.0;
  const auto cut = [&](double v) { return clip > 0.0 ? std::clamp(v, -clip, clip) : v; };
  const double i = sigmoid(cut(sum(0) + p * w("weight_peephole", 0) * kC));
  const double f = coupled ? 1.0 - i : sigmoid(cut(sum(1) + p * w("weight_peephole", 1) * kC));
  const double g = std::tanh(cut(sum(2)));
  const double c = f * kC + i * g;
  const double o = sigmoid(cut(sum(3) + p * w("weight_peephole", 2) * c));
  const double h = o * std::tanh(c) * (projection ? w("weight_hr", 0) : 1.0);
  CHECK(cell.states()[0].name == "h");
  CHECK(cell.states()[1].name == "c");
  CHECK(scalar.next(0) == Approx(h).epsilon(1e-6));
  CHECK(scalar.next(1) == Approx(c).epsilon(1e-6));
  CHECK(cell.output() == cell.states()[0].next);
}

int products(const Cell& cell) {
  return static_cast<int>(std::count_if(cell.nodes().begin(), cell.nodes().end(),
                                        [](const Node& n) { return n.op == Op::matmul; }));
}

}  // namespace

TEST_CASE("lstm computes what its header says") {
  for (const bool peephole : {false, true}) {
    for (const double clip : {0.0, 0.5}) {
      for (const bool coupled : {false, true}) {
        for (const bool projection : {false, true}) {
          check_lstm(peephole, clip, coupled, projection);
        }
      }
    }
  }
}

TEST_CASE("lstm's tensors") {
  const Cell plain = build("lstm");
  CHECK(products(plain) == 8);
  std::map<std::string, std::set<int>> blocks;
  for (const Parameter& p : plain.parameters()) {
    CHECK(p.blocks == 4);
    blocks[p.tensor].insert(p.block);
  }
  CHECK(blocks.size() == 4);
  for (const auto& [tensor, seen] : blocks) CHECK(seen == std::set<int>{0, 1, 2, 3});
  CHECK_FALSE(plain.uses(Dim::proj));

  const Cell projected = build("lstm", {}, true);
  CHECK(products(projected) == 9);
  CHECK(projected.output_dim() == Dim::proj);
  for (const Parameter& p : projected.parameters()) {
    if (p.tensor == "weight_hr") CHECK((p.rows == Dim::proj && p.cols == Dim::hidden));
    if (p.tensor == "weight_hh") CHECK((p.rows == Dim::hidden && p.cols == Dim::proj));
  }

  const Cell coupled = build("lstm", {{"coupled", "1"}, {"peephole", "1"}});
  CHECK(products(coupled) == 6);
  for (const Parameter& p : coupled.parameters()) {
    CHECK(p.block != 1);
    CHECK(p.blocks == (p.tensor == "weight_peephole" ? 3 : 4));
  }
}

TEST_CASE("gru and augru compute what their header says") {
  for (const bool attention : {false, true}) {
    for (const bool after : {false, true}) {
      const Cell cell = build(attention ? "augru" : "gru", {{"reset", after ? "after" : "before"}});
      INFO(cell.to_text());
      CHECK(products(cell) == 6);
      Scalar scalar(cell);
      scalar.values = {{"x", kX}, {"h", kH}, {"attention", 0.3}};
      const double r = sigmoid(sum(0));
      const double z = (attention ? 0.7 : 1.0) * sigmoid(sum(1));
      const double from_x = w("weight_ih", 2) * kX + w("bias_ih", 2);
      const double from_h = after ? r * (w("weight_hh", 2) * kH + w("bias_hh", 2))
                                  : w("weight_hh", 2) * (r * kH) + w("bias_hh", 2);
      const double h = (1.0 - z) * std::tanh(from_x + from_h) + z * kH;
      CHECK(scalar.next(0) == Approx(h));
      CHECK(cell.output() == cell.states()[0].next);
    }
  }
  CHECK(build("gru").to_text() == build("gru", {{"reset", "after"}}).to_text());
  CHECK(build("augru").to_text() == build("augru", {{"reset", "before"}}).to_text());
  const Cell augru = build("augru");
  const Node& attention = augru.nodes()[static_cast<std::size_t>(augru.inputs().at(1))];
  CHECK(attention.name == "attention");
  CHECK(attention.dim == Dim::one);
}

TEST_CASE("rnn computes what its header says") {
  const std::map<std::string, double> expected = {
      {"tanh", std::tanh(sum(0))}, {"relu", std::max(sum(0), 0.0)}, {"sigmoid", sigmoid(sum(0))}};
  for (const auto& [act, h] : expected) {
    const Cell cell = build("rnn", {{"act", act}});
    Scalar scalar(cell);
    scalar.values = {{"x", kX}, {"h", kH}};
    CHECK(scalar.output() == Approx(h));
  }
  CHECK(build("rnn").to_text() == build("rnn", {{"act", "tanh"}}).to_text());
}

TEST_CASE("the sum under a gate starts at the biases, then x, then h") {
  const Cell cell = build("rnn");
  CHECK(cell.to_text() ==
        "cell rnn\n"
        "parameter bias_ih [hidden] = tensor bias_ih block 0 of 1\n"
        "parameter bias_hh [hidden] = tensor bias_hh block 0 of 1\n"
        "parameter weight_ih [hidden, input] = tensor weight_ih block 0 of 1\n"
        "parameter weight_hh [hidden, hidden] = tensor weight_hh block 0 of 1\n"
        "%0 input = input x\n"
        "%1 hidden = state h\n"
        "%2 hidden = parameter bias_ih\n"
        "%3 hidden = parameter bias_hh\n"
        "%4 hidden = add %2 %3\n"
        "%5 hidden = matmul weight_ih %0\n"
        "%6 hidden = add %4 %5\n"
        "%7 hidden = matmul weight_hh %1\n"
        "%8 hidden = add %6 %7\n"
        "%9 hidden = tanh %8 ; next_h\n"
        "next h = %9\n"
        "output = %9\n");
}

TEST_CASE("wrong options are one sentence") {
  CHECK(failure("gru", {{"reset", "never"}}) == "reset=never: must be after or before");
  CHECK(failure("rnn", {{"act", "exp"}}) == "act=exp: must be tanh or relu or sigmoid");
  CHECK(failure("rnn", {{"reset", "after"}}) == "reset=after: cell rnn has no option reset");
  CHECK(failure("lstm", {{"peephole", "2"}}) == "peephole=2: must be 0 or 1");
  for (const char* bad : {"-1", "nan", "inf", "", "5x", "1e99"}) {
    CHECK(failure("lstm", {{"clip", bad}}) ==
          std::string("clip=") + bad + ": must be a real number, at least 0");
  }
  for (const char* name : {"gru", "rnn", "augru"}) {
    const auto spec = deepcpu::ModelSpec::parse(std::string(name) + ":i4h8p4");
    CHECK(spec.error().message() ==
          std::string("projection=4: cell ") + name + " has no projection");
  }
}

TEST_CASE("the table is complete") {
  std::set<std::string_view> names;
  for (const CellEntry& entry : deepcpu::cell_table()) {
    names.insert(entry.name);
    CHECK_FALSE(entry.summary.empty());
    CHECK(deepcpu::find_cell(entry.name) == &entry);
    CHECK(entry.build({}, false).value().name() == entry.name);
    for (const deepcpu::CellOption& option : entry.options) {
      CHECK(deepcpu::normal_value(option, option.fallback).value() == option.fallback);
      for (const std::string_view value : option.values) {
        CHECK(entry.build({{std::string(option.key), std::string(value)}}, false).ok());
      }
    }
  }
  CHECK(names == std::set<std::string_view>{"lstm", "gru", "rnn", "augru"});
  CHECK(deepcpu::find_cell("mgu") == nullptr);
}

TEST_CASE("option values have one spelling") {
  const deepcpu::CellOption& clip = deepcpu::find_cell("lstm")->options[1];
  REQUIRE(clip.key == "clip");
  CHECK(deepcpu::normal_value(clip, "5.0").value() == "5");
  CHECK(deepcpu::normal_value(clip, "2.5e-1").value() == "0.25");
  CHECK(deepcpu::normal_value(clip, "-0").value() == "0");
  CHECK(build("lstm", {{"clip", "3"}}).to_text() == build("lstm", {{"clip", "3.00"}}).to_text());
}
