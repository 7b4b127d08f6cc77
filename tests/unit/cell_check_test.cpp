// SPDX-License-Identifier: Apache-2.0
/// What CellBuilder::build() refuses, and in which words.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "deepcpu/cell.hpp"
#include "tests/catch.hpp"

using deepcpu::Cell;
using deepcpu::CellBuilder;
using deepcpu::Dim;
using deepcpu::TensorBlock;
using deepcpu::Value;

namespace {

/// A builder with what every legal cell needs: h' = tanh(W x + U h), y = h'.
struct Legal {
  explicit Legal(std::string name = "c") : b(std::move(name)) {}
  CellBuilder b;
  Value x = b.input("x");
  Value h = b.state("h");

  /// Finishes the cell with `extra` added into the sum and returns the error, "" if there is none.
  std::string finish(Value extra) {
    const Value next = b.tanh(b.matmul("w", x) + b.matmul("u", h) + extra);
    b.next(h, next);
    b.output(next);
    return error();
  }
  std::string finish() { return finish(b.bias("bias")); }
  std::string error() {
    const deepcpu::Result<Cell> cell = b.build();
    return cell.ok() ? "" : cell.error().message();
  }
};

struct Mistake {
  const char* sentence;
  std::function<std::string()> make;  ///< builds a cell with one mistake, returns the error
};

void check_all(const std::vector<Mistake>& mistakes) {
  for (const Mistake& mistake : mistakes) CHECK(mistake.make() == mistake.sentence);
}

}  // namespace

TEST_CASE("a mistake in a cell is one sentence: counts and names") {
  check_all({
      {"cell 9c: cell name '9c': must be 1 to 64 letters, digits and underscores, starting with a "
       "letter",
       [] { return Legal("9c").finish(); }},
      {"cell c: inputs=5: must be between 1 and 4",
       [] {
         Legal c;
         Value sum = c.b.input("a1", Dim::one);
         for (const char* name : {"a2", "a3", "a4"}) sum = sum + c.b.input(name, Dim::one);
         return c.finish(sum);
       }},
      {"cell c: states=17: must be between 1 and 16",
       [] {
         Legal c;
         Value sum = c.h;
         for (int i = 0; i < 16; ++i) {
           const Value s = c.b.state("s" + std::to_string(i));
           c.b.next(s, s);
           sum = sum + s;
         }
         return c.finish(sum);
       }},
      {"cell c: nodes=513: must be between 1 and 512",
       [] {
         Legal c;
         Value sum = c.h;
         while (sum.id() < 507) sum = c.b.neg(sum);
         return c.finish(sum);  // five more
       }},
      {"cell c: input a: the first input is the sequence, its width is input, not one",
       [] {
         CellBuilder b("c");
         (void)b.input("a", Dim::one);
         return b.build().error().message();
       }},
      {"cell c: input x and state x share a name",
       [] {
         Legal c;
         return c.finish(c.b.state("x"));
       }},
      {"cell c: state name 'a b': must be 1 to 64 letters, digits and underscores, starting with a "
       "letter",
       [] {
         Legal c;
         return c.finish(c.b.state("a b"));
       }},
      {"cell c: named(): the name must not be empty",
       [] {
         Legal c;
         return c.finish(c.b.named("", c.b.neg(c.h)));
       }},
      {"cell c: named y: input x has a name already",
       [] {
         Legal c;
         return c.finish(c.b.named("y", c.x));
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: parameters") {
  check_all({
      {"cell c: two parameters are called w",
       [] {
         Legal c;
         return c.finish(c.b.bias("w", TensorBlock{"t", 0, 1}));
       }},
      {"cell c: parameter name '': must be 1 to 64 letters, digits and underscores, starting with "
       "a "
       "letter",
       [] {
         Legal c;
         return c.finish(c.b.bias(""));
       }},
      {"cell c: tensor name 'a/b': must be 1 to 64 letters, digits, dots and underscores, starting "
       "with a letter",
       [] {
         Legal c;
         return c.finish(c.b.bias("bias", TensorBlock{"a/b", 0, 1}));
       }},
      {"cell c: tensor t: cut into 2 blocks by p and into 3 by q",
       [] {
         Legal c;
         const Value p = c.b.bias("p", TensorBlock{"t", 0, 2});
         return c.finish(p + c.b.bias("q", TensorBlock{"t", 1, 3}));
       }},
      {"cell c: tensor t: p and q see blocks of different shape",
       [] {
         Legal c;
         const Value p = c.b.bias("p", TensorBlock{"t", 0, 2});
         return c.finish(p + c.b.matmul("q", c.h, TensorBlock{"t", 1, 2}));
       }},
      {"cell c: tensor t, block 1: taken by both p and q",
       [] {
         Legal c;
         const Value p = c.b.bias("p", TensorBlock{"t", 1, 2});
         return c.finish(p + c.b.bias("q", TensorBlock{"t", 1, 2}));
       }},
      {"cell c: parameter p, block=2: must be between 0 and 1",
       [] {
         Legal c;
         return c.finish(c.b.bias("p", TensorBlock{"t", 2, 2}));
       }},
      {"cell c: parameter p, block=-1: must be between 0 and 1",
       [] {
         Legal c;
         return c.finish(c.b.bias("p", TensorBlock{"t", -1, 2}));
       }},
      {"cell c: parameter p, blocks=0: must be between 1 and 64",
       [] {
         Legal c;
         return c.finish(c.b.bias("p", TensorBlock{"t", 0, 0}));
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: states and the output") {
  check_all({
      {"cell c: inputs=0: must be between 1 and 4",
       [] {
         CellBuilder b("c");
         const Value h = b.state("h");
         b.next(h, h);
         b.output(h);
         return b.build().error().message();
       }},
      {"cell c: states=0: must be between 1 and 16",
       [] {
         CellBuilder b("c");
         b.output(b.matmul("w", b.input("x")));
         return b.build().error().message();
       }},
      {"cell c: output: missing; a cell has exactly one",
       [] {
         Legal c;
         c.b.next(c.h, c.b.tanh(c.b.matmul("w", c.x) + c.h));
         return c.error();
       }},
      {"cell c: output() was called twice: a cell has one output",
       [] {
         Legal c;
         c.b.output(c.h);
         return c.finish();
       }},
      {"cell c: state s: has no next value",
       [] {
         Legal c;
         return c.finish(c.b.state("s"));
       }},
      {"cell c: state h: next() was called twice",
       [] {
         Legal c;
         c.b.next(c.h, c.h);
         return c.finish();
       }},
      {"cell c: next(): input x is not a state",
       [] {
         Legal c;
         c.b.next(c.x, c.h);
         return c.finish();
       }},
      {"cell c: state s: its width is hidden, that of its next value input",
       [] {
         Legal c;
         const Value s = c.b.state("s");
         c.b.next(s, c.x);
         return c.finish(s);
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: later values") {
  check_all({
      {"cell c: later s: has no definition",
       [] {
         Legal c;
         return c.finish(c.b.later("s"));
       }},
      {"cell c: later s is never used",
       [] {
         Legal c;
         c.b.define(c.b.later("s"), c.h);
         return c.finish();
       }},
      {"cell c: later s: define() was called twice",
       [] {
         Legal c;
         const Value s = c.b.later("s");
         c.b.define(s, c.h);
         c.b.define(s, c.h);
         return c.finish(s);
       }},
      {"cell c: later s: declared with width hidden but defined with width input",
       [] {
         Legal c;
         const Value s = c.b.later("s");
         c.b.define(s, c.x);
         return c.finish(s);
       }},
      {"cell c: define(): state h does not come from later()",
       [] {
         Legal c;
         c.b.define(c.h, c.h);
         return c.finish();
       }},
      {"cell c: later s depends on itself inside one step",
       [] {
         Legal c;
         const Value s = c.b.later("s");
         c.b.define(s, c.b.tanh(c.b.matmul("v", s) + c.h));
         return c.finish(s);
       }},
      {"cell c: later s depends on itself inside one step",  // unused as well
       [] {
         Legal c;
         const Value s = c.b.later("s");
         c.b.define(s, s);
         return c.finish();
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: unused parts") {
  check_all({
      {"cell c: state s is never read",
       [] {
         Legal c;
         c.b.next(c.b.state("s"), c.h);
         return c.finish();
       }},
      {"cell c: input a is never used",
       [] {
         Legal c;
         (void)c.b.input("a");
         return c.finish();
       }},
      {"cell c: parameter p is never used",
       [] {
         Legal c;
         (void)c.b.bias("p");
         return c.finish();
       }},
      {"cell c: value gate (sigmoid) is never used",
       [] {
         Legal c;
         (void)c.b.named("gate", c.b.sigmoid(c.b.matmul("v", c.x) + c.b.bias("p")));
         return c.finish();
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: widths and numbers") {
  check_all({
      {"cell c: add of input x and state p: widths input and proj never agree",
       [] {
         Legal c;
         return c.finish(c.x + c.b.state("p", Dim::proj));
       }},
      {"cell c: clip: low=2 must not exceed high=1",
       [] {
         Legal c;
         return c.finish(c.b.clip(c.h, 2.0F, 1.0F));
       }},
      {"cell c: clip: inf must be a finite number",
       [] {
         Legal c;
         return c.finish(c.b.clip(c.h, 2.0F, std::numeric_limits<float>::infinity()));
       }},
      {"cell c: constant: nan must be a finite number",
       [] {
         Legal c;
         return c.finish(c.b.constant(std::numeric_limits<float>::quiet_NaN()));
       }},
  });
}

TEST_CASE("a mistake in a cell is one sentence: other builders") {
  check_all({
      {"cell c: add: an argument belongs to another builder",
       [] {
         Legal other;
         Legal c;
         return c.finish(other.h);
       }},
      {"cell c: matmul: an argument belongs to another builder",
       [] {
         Legal other;
         Legal c;
         return c.finish(c.b.matmul("v", other.h));
       }},
      {"cell c: output(): the value belongs to another builder",
       [] {
         Legal other;
         Legal c;
         c.b.output(other.h);
         return c.finish();
       }},
      {"cell c: named n: the value belongs to another builder",
       [] {
         Legal other;
         Legal c;
         return c.finish(c.b.named("n", other.h));
       }},
      {"cell c: build() was called already",
       [] {
         Legal c;
         c.finish();
         return c.error();
       }},
  });
}

TEST_CASE("a builder that has built its cell takes further calls and does nothing") {
  Legal c;
  CHECK(c.finish().empty());
  CellBuilder& b = c.b;
  const Value late = b.tanh(c.h) + b.matmul("late", c.h, Dim::hidden) * b.named("late", c.h);
  b.next(c.h, late);
  b.define(b.later("later"), late);
  b.output(b.max(b.input("late") - b.state("late"), b.constant(1.0F) + b.bias("late")));
  CHECK(b.build().error().message() == "cell c: build() was called already");
}

TEST_CASE("the cell that the mistakes are made in is legal") { CHECK(Legal().finish().empty()); }

TEST_CASE("the largest cell has 512 nodes") {
  Legal c;
  Value sum = c.h;
  while (sum.id() < 506) sum = c.b.neg(sum);
  CHECK(c.finish(sum).empty());  // finish adds ids 507 to 511
}
