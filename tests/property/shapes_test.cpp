// SPDX-License-Identifier: Apache-2.0
/// Cells of shapes that random ones rarely have: values of different width that depend on each
/// other inside one step (a narrow value must be complete before a wide one reads it, and the other
/// way round), and many sums that share a register tile.
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/oracle/oracle.hpp"
#include "tests/property/harness.hpp"
#include "tests/support/compare.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// Registers the cell once and compares every ISA with the oracle, and code with the interpreter.
void check_cell(Result<Cell> cell, const std::string& dims) {
  REQUIRE(cell.ok());
  REQUIRE(register_cell(*cell).ok());
  const Problem p = make_problem(cell->name() + ":" + dims);
  const oracle::Bounded bounded = oracle::evaluate_with_bound(p.spec, p.weights, oracle_input(p));
  const Outcome first = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : host_isas()) {
    INFO(p.text << " " << to_string(isa));
    const Outcome outcome = run(p, compile(p, isa));
    CHECK(difference(outcome, first).empty());
    CHECK(compare_with_bound(outcome.y, bounded.exact.y, bounded.y_bound).failure.empty());
    for (const auto& [name, bound] : bounded.final_bound) {
      INFO("state " << name);
      CHECK(compare_with_bound(outcome.final.at(name), bounded.exact.final.at(name), bound)
                .failure.empty());
    }
  }
}

TEST_CASE("a narrow value that no product feeds is ready for a wide one") {
  CellBuilder b("narrow_before_products");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value s = b.state("s", Dim::one);
  const Value narrow = b.sigmoid(s);
  const Value wide = h * narrow;
  b.next(h, b.tanh(b.matmul("w", x) + b.matmul("u", wide) + b.matmul("v", narrow)));
  b.next(s, b.tanh(b.matmul("down", h, Dim::one)));
  b.output(h);
  check_cell(b.build(), "i3h5b2t3");
}

TEST_CASE("a gate of one number for the whole layer") {
  CellBuilder b("scalar_gate");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value gate = b.sigmoid(b.matmul("gate_x", x, Dim::one) + b.matmul("gate_h", h, Dim::one));
  const Value n = b.tanh(b.matmul("w", x) + b.matmul("u", h));
  const Value next = h + gate * (n - h);
  b.next(h, next);
  b.output(next);
  check_cell(b.build(), "i6h20b3t5");
}

TEST_CASE("a narrow value of a wide one, and a wide value of that") {
  CellBuilder b("there_and_back");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value wide = b.tanh(b.matmul("w", x) + b.matmul("u", h));
  const Value narrow = b.sigmoid(b.matmul("down", wide, Dim::one));
  const Value next = b.tanh(b.matmul("up", narrow) + wide * narrow);
  b.next(h, next);
  b.output(next + narrow);
  check_cell(b.build(), "i6h20b3t5");
}

TEST_CASE("a projection read by a wide value in the same step") {
  CellBuilder b("projected_gate");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value p = b.tanh(b.matmul("down", h, Dim::proj) + b.matmul("in", x, Dim::proj));
  const Value next = b.tanh(b.matmul("up", p) + b.matmul("w", x)) * b.sigmoid(h);
  b.next(h, next);
  b.output(p);
  check_cell(b.build(), "i6h20p4b3t5");
}

/// `count` sums of one level, each of a product with an operand of its own, so that nothing but the
/// number of sums limits the accumulators of the tile.
Result<Cell> many_sums(int count) {
  CellBuilder b("sums" + std::to_string(count));
  const Value x = b.input("x");
  std::vector<Value> states;
  std::vector<Value> gates;
  for (int i = 0; i < count; ++i) states.push_back(b.state("s" + std::to_string(i)));
  for (int i = 0; i < count; ++i) {
    const Value sum = b.matmul("u" + std::to_string(i), states[static_cast<std::size_t>(i)]);
    gates.push_back(b.sigmoid(i == 0 ? sum + b.matmul("w", x) : sum));
  }
  Value y = gates[0];
  for (int i = 0; i < count; ++i) {
    y = y - gates[static_cast<std::size_t>(i)] * gates[static_cast<std::size_t>(count - 1 - i)];
    b.next(states[static_cast<std::size_t>(i)], b.one_minus(gates[static_cast<std::size_t>(i)]));
  }
  b.output(y);
  return b.build();
}

TEST_CASE("many sums of one level with operands of their own") {
  for (const int count : {1, 2, 3, 4, 5, 6, 8, 12, 16}) {
    DYNAMIC_SECTION(count << " sums") {
      check_cell(many_sums(count), count < 6 ? "i5h79b5t3" : "i5h79t3");
    }
  }
}

}  // namespace
