// SPDX-License-Identifier: Apache-2.0
#include "deepcpu/cell.hpp"

#include <set>
#include <string>

#include "tests/catch.hpp"
#include "tests/oracle/user_cells.hpp"

using deepcpu::Cell;
using deepcpu::CellBuilder;
using deepcpu::Dim;
using deepcpu::Node;
using deepcpu::Op;
using deepcpu::TensorBlock;
using deepcpu::Value;

namespace {

void check_order(const Cell& cell) {
  const auto& nodes = cell.nodes();
  for (int i = 0; i < static_cast<int>(nodes.size()); ++i) {
    CHECK(nodes[static_cast<std::size_t>(i)].a < i);
    CHECK(nodes[static_cast<std::size_t>(i)].b < i);
  }
}

}  // namespace

TEST_CASE("a cell prints one node per line") {
  CellBuilder b("demo");
  const Value x = b.input("x");
  const Value a = b.input("a", Dim::one);
  const Value h = b.state("h");
  const Value w = b.matmul("w", x, TensorBlock{"weights", 1, 2});
  const Value sum = b.named("sum", w + b.bias("bias"));
  const Value next = b.clip(b.hard_sigmoid(sum) * (h - b.constant(0.5F)) * a, -1.0F, 2.5F);
  b.next(h, next);
  b.output(b.leaky_relu(next));
  const Cell cell = b.build().value();
  CHECK(cell.to_text() ==
        "cell demo\n"
        "parameter w [hidden, input] = tensor weights block 1 of 2\n"
        "parameter bias [hidden] = tensor bias block 0 of 1\n"
        "%0 input = input x\n"
        "%1 one = input a\n"
        "%2 hidden = state h\n"
        "%3 hidden = matmul w %0\n"
        "%4 hidden = parameter bias\n"
        "%5 hidden = add %3 %4 ; sum\n"
        "%6 hidden = hard_sigmoid %5 0.2 0.5\n"
        "%7 one = constant 0.5\n"
        "%8 hidden = sub %2 %7\n"
        "%9 hidden = mul %6 %8\n"
        "%10 hidden = mul %9 %1\n"
        "%11 hidden = clip %10 -1 2.5\n"
        "%12 hidden = leaky_relu %11 0.01\n"
        "next h = %11\n"
        "output = %12\n");
  CHECK(cell.name() == "demo");
  CHECK(cell.inputs() == std::vector<int>{0, 1});
  CHECK(cell.states().front().node == 2);
  CHECK(cell.output_dim() == Dim::hidden);
  CHECK(cell.uses(Dim::one));
  CHECK_FALSE(cell.uses(Dim::proj));
}

TEST_CASE("nodes come in one order, whatever the order of the calls") {
  const auto build = [](bool turned) {
    CellBuilder b("c");
    const Value x = b.input("x");
    const Value h = b.state("h");
    const auto first = [&] { return b.matmul("w", x); };
    const auto second = [&] { return b.matmul("u", h); };
    const auto sum = [&] {
      if (!turned) {
        const Value left = first();
        return left + second();
      }
      const Value right = second();
      return first() + right;
    }();
    b.output(sum);
    b.next(h, sum);
    return b.build().value().to_text();
  };
  CHECK(build(false) == build(true));
}

TEST_CASE("later() values are replaced by their definitions") {
  CellBuilder b("c");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value next = b.later("next");
  b.next(h, next);
  b.output(b.relu(next));
  const Value again = b.later("again");
  b.define(next, again);
  b.define(again, b.matmul("w", x) + h);
  const Cell cell = b.build().value();
  check_order(cell);
  CHECK(cell.to_text() ==
        "cell c\n"
        "parameter w [hidden, input] = tensor w block 0 of 1\n"
        "%0 input = input x\n"
        "%1 hidden = state h\n"
        "%2 hidden = matmul w %0\n"
        "%3 hidden = add %2 %1 ; next\n"
        "%4 hidden = relu %3\n"
        "next h = %3\n"
        "output = %4\n");
}

TEST_CASE("widths join: one broadcasts, hidden meets input and proj") {
  CellBuilder b("c");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value p = b.state("p", Dim::proj);
  const Value o = b.input("o", Dim::one);
  const Value mixed = x + h;
  b.next(p, b.matmul("w", o * o, Dim::proj) + o * p);
  b.next(h, (p - mixed) * o);
  b.output(o * x);
  const Cell cell = b.build().value();
  CHECK(cell.output_dim() == Dim::input);
  CHECK(cell.uses(Dim::proj));
  for (const Node& node : cell.nodes()) {
    if (node.op == Op::sub) CHECK(node.dim == Dim::hidden);
  }
  CHECK(cell.parameters().front().is_matrix);
  CHECK(cell.parameters().front().cols == Dim::one);
}

TEST_CASE("states may be passed on, and an input may be the next value") {
  CellBuilder b("delay");
  const Value x = b.input("x");
  const Value first = b.state("first", Dim::input);
  const Value second = b.state("second", Dim::input);
  b.next(first, x);
  b.next(second, first);
  b.output(second);
  const Cell cell = b.build().value();
  CHECK(cell.nodes().size() == 3);
  CHECK(cell.states()[1].next == cell.states()[0].node);
  CHECK(cell.output() == cell.states()[1].node);
}

TEST_CASE("operations and widths have names of their own") {
  std::set<std::string_view> names;
  for (int op = 0; op <= static_cast<int>(Op::clip); ++op) {
    names.insert(deepcpu::to_string(static_cast<Op>(op)));
  }
  CHECK(names.size() == static_cast<std::size_t>(Op::clip) + 1);
  CHECK(deepcpu::to_string(Op::input) == "input");
  CHECK(deepcpu::to_string(Op::one_minus) == "one_minus");
  CHECK(deepcpu::to_string(Op::clip) == "clip");
  CHECK(deepcpu::to_string(Dim::one) == "one");
  CHECK(deepcpu::to_string(Dim::proj) == "proj");
}

TEST_CASE("the cells of a user build") {
  using namespace deepcpu::oracle;
  for (const auto& make : {mgu, sru, skip}) {
    const Cell cell = make().value();
    check_order(cell);
    CHECK(cell.to_text() == make().value().to_text());
  }
  CHECK(mgu().value().parameters().size() == 6);
  CHECK(sru().value().output() != sru().value().states().front().next);
}
