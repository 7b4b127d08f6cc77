// SPDX-License-Identifier: Apache-2.0
/// by_waves(): the order in which several columns of an epilogue are emitted.
#include "jit/epilogue_order.hpp"

#include <string>
#include <vector>

#include "tests/catch.hpp"

namespace deepcpu::jit {
namespace {

Instr sum(std::uint32_t gate) {
  Instr i;
  i.action = Action::sum;
  i.gate = gate;
  return i;
}

Instr element(Op op, std::int32_t a, std::int32_t b = -1) {
  Instr i;
  i.action = Action::element;
  i.op = op;
  i.a = a;
  i.b = b;
  return i;
}

Instr store(std::int32_t a, std::uint16_t buffer) {
  Instr i;
  i.action = Action::store;
  i.a = a;
  i.ref.buffer = buffer;
  return i;
}

/// One letter per instruction, a capital for column 1: s sigmoid, t tanh, m mul, a b sums, l a
/// load, x y stores.
std::string letters(const std::vector<EpilogueStep>& steps) {
  std::string out;
  for (const EpilogueStep& s : steps) {
    char c = '?';
    if (s.instr.action == Action::sum) c = static_cast<char>('a' + s.instr.gate);
    if (s.instr.action == Action::load) c = 'l';
    if (s.instr.action == Action::store) c = static_cast<char>('x' + s.instr.ref.buffer);
    if (s.instr.op == Op::sigmoid && s.instr.action == Action::element) c = 's';
    if (s.instr.op == Op::tanh) c = 't';
    if (s.instr.op == Op::mul) c = 'm';
    out += s.column == 0 ? c : static_cast<char>(c - 'a' + 'A');
  }
  return out;
}

/// tanh(sigmoid(a) * tanh(b)) * sigmoid(a)
std::vector<Instr> example() {
  return {sum(0),
          element(Op::sigmoid, 0),
          sum(1),
          element(Op::tanh, 2),
          element(Op::mul, 1, 3),
          element(Op::tanh, 4),
          element(Op::mul, 1, 5),
          store(6, 0)};
}

TEST_CASE("epilogue order: functions that wait for others come behind those of all columns") {
  CHECK(letters(by_waves(example(), 1)) == "asbtmtmx");
  CHECK(letters(by_waves(example(), 2)) == "asbtmASBTMtmxTMX");
}

TEST_CASE("epilogue order: every operand is the one of its own column, and stands before") {
  const std::vector<Instr> epilogue = example();
  const auto steps = by_waves(epilogue, 3);
  REQUIRE(steps.size() == 3 * epilogue.size());
  for (int n = 0; n < static_cast<int>(steps.size()); ++n) {
    const EpilogueStep& step = steps[static_cast<std::size_t>(n)];
    for (const int o : {step.instr.a, step.instr.b}) {
      REQUIRE(o < n);
      if (o >= 0) CHECK(steps[static_cast<std::size_t>(o)].column == step.column);
    }
    if (step.instr.action != Action::store) continue;
    // x = m(s, t): the factor that is older is sigmoid.
    const Instr& product = steps[static_cast<std::size_t>(step.instr.a)].instr;
    CHECK(steps[static_cast<std::size_t>(product.a)].instr.op == Op::sigmoid);
    CHECK(steps[static_cast<std::size_t>(product.b)].instr.op == Op::tanh);
  }
}

TEST_CASE("epilogue order: a column stores in the order of the plan") {
  // A store that depends on a function, then one that does not.
  const std::vector<Instr> epilogue{sum(0), element(Op::sigmoid, 0), store(1, 0), store(0, 1)};
  CHECK(letters(by_waves(epilogue, 1)) == "asxy");
  CHECK(letters(by_waves(epilogue, 2)) == "asxyASXY");
}

TEST_CASE("epilogue order: a state is read before it is overwritten") {
  Instr load;
  load.action = Action::load;
  load.ref.buffer = 1;
  // sigmoid(a) replaces what buffer 1 held, which sigmoid(sigmoid(a)) is multiplied by.
  const std::vector<Instr> epilogue{sum(0),      element(Op::sigmoid, 0), load,
                                    store(1, 1), element(Op::sigmoid, 1), element(Op::mul, 4, 2),
                                    store(5, 0)};
  CHECK(letters(by_waves(epilogue, 1)) == "aslysmx");
}

TEST_CASE("epilogue order: what no further function waits for comes behind what one waits for") {
  // sigmoid(a) * tanh(tanh(b)), as an LSTM's output gate: its sigmoid has time.
  const std::vector<Instr> epilogue{sum(0),
                                    element(Op::sigmoid, 0),
                                    sum(1),
                                    element(Op::tanh, 2),
                                    element(Op::tanh, 3),
                                    element(Op::mul, 1, 4),
                                    store(5, 0)};
  CHECK(letters(by_waves(epilogue, 1)) == "btastmx");
  CHECK(letters(by_waves(epilogue, 2)) == "btBTasAStmxTMX");
}

TEST_CASE("epilogue order: nothing gives nothing") { CHECK(by_waves({}, 2).empty()); }

}  // namespace
}  // namespace deepcpu::jit
