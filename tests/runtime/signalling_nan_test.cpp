// SPDX-License-Identifier: Apache-2.0
/// exchange=data takes one signalling NaN as the sign of a number that is not written yet. A caller
/// may pass the same bits in: as an input that a cell copies, as a parameter, as a state.
#include <bit>
#include <string>
#include <vector>

#include "jit/kernel_plan.hpp"
#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

constexpr std::uint32_t kSign = 0x80000000U;

/// States that are copies, and operations that hand a signalling NaN on unchanged; every state and
/// one value of the step's beginning are operands of products.
Cell copies() {
  CellBuilder b("copies");
  const Value x = b.input("x");
  const Value e = b.input("e", Dim::hidden);
  const Value copied = b.state("copied");
  const Value negated = b.state("negated");
  const Value parameter = b.state("parameter");
  const Value larger = b.state("larger");
  const Value clipped = b.state("clipped");
  b.next(copied, e);
  b.next(negated, b.neg(e));
  b.next(parameter, b.bias("p"));
  b.next(larger, b.max(copied, e));
  b.next(clipped, b.relu(b.clip(b.min(larger, e), -2.0F, 2.0F)));
  Value sum = b.matmul("w", x) + b.matmul("u_e", b.neg(e));
  int n = 0;
  for (const Value v : {copied, negated, parameter, larger, clipped}) {
    sum = sum + b.matmul("u" + std::to_string(n++), v);
  }
  b.output(b.tanh(sum));
  return b.build().value();
}

/// Some numbers become the sign itself, its negative, other NaNs, and denormals, which must come
/// through as they are.
void poison(std::vector<float>& numbers, Random& random) {
  for (float& v : numbers) {
    switch (random.integer(0, 60)) {
      case 0:
        v = std::bit_cast<float>(jit::kUnwritten);
        break;
      case 1:
        v = std::bit_cast<float>(jit::kUnwritten | kSign);
        break;
      case 2:
        v = std::bit_cast<float>(0x7F800001U);
        break;
      case 3:
        v = std::bit_cast<float>(0x00000123U);
        break;
      default:
        break;
    }
  }
}

struct Outcome {
  std::vector<float> y;
  std::vector<std::vector<float>> states;
};

constexpr std::int64_t kSteps = 9;
constexpr std::int64_t kHidden = 37;

Outcome run_with(const Sample& s, Isa isa, int threads, Exchange exchange) {
  CompileOptions options;
  options.isa = isa;
  options.threads = threads;
  options.schedule = schedule_for(s.spec, isa, threads);
  options.schedule->exchange = exchange;
  Session session = Model::compile(s.spec, s.weights, options).value().session().value();
  Random random(5);
  const std::vector<std::string> names = {"copied", "negated", "parameter", "larger", "clipped"};
  for (const std::string& name : names) {
    std::vector<float> initial =
        random_floats(random, static_cast<std::size_t>(s.spec.batch * kHidden));
    poison(initial, random);
    session.set_state(name, initial).value();
  }
  Outcome out;
  for (int call = 0; call < 2; ++call) {
    std::vector<float> y(s.y_size());
    session.run(s.x, y, s.extra_views()).value();
    out.y.insert(out.y.end(), y.begin(), y.end());
  }
  for (const std::string& name : names) {
    out.states.emplace_back(static_cast<std::size_t>(s.spec.batch * kHidden));
    session.get_state(name, out.states.back()).value();
  }
  return out;
}

TEST_CASE("a signalling NaN from the caller is not taken for a number that is missing") {
  for (const std::int64_t batch : {1, 3}) {
    ModelSpec spec = ModelSpec::make(copies(), {.input = 6, .hidden = {kHidden}}).value();
    spec.batch = batch;
    spec.steps = kSteps;
    Sample s = Sample::make(spec);
    Random random(17);
    poison(s.extra.front(), random);
    std::vector<float> p(static_cast<std::size_t>(kHidden), 0.5F);
    p[3] = std::bit_cast<float>(jit::kUnwritten);
    Weights weights;
    std::vector<std::vector<float>> tensors;  // looked at until the model is compiled
    for (const Parameter& parameter : s.spec.cell.parameters()) {
      const std::int64_t cols = parameter.cols == Dim::one ? 1 : s.spec.width(parameter.cols, 0);
      tensors.push_back(random_floats(random, static_cast<std::size_t>(kHidden * cols), -0.2, 0.2));
      if (parameter.cols == Dim::one) {
        weights.add(parameter.name + "_l0", {kHidden}, p).value();
      } else {
        weights.add(parameter.name + "_l0", {kHidden, cols}, tensors.back()).value();
      }
    }
    s.weights = weights;
    const Outcome expected = run_with(s, Isa::interpreter, 1, Exchange::flag);
    for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
      if (isa > host_isa()) continue;
      for (const int threads : {2, 3}) {
        INFO(to_string(isa) << " threads " << threads << " batch " << batch);
        const Outcome actual = run_with(s, isa, threads, Exchange::data);
        CHECK(bit_difference(actual.y, expected.y).empty());
        for (std::size_t i = 0; i < expected.states.size(); ++i) {
          CHECK(bit_difference(actual.states[i], expected.states[i]).empty());
        }
      }
    }
  }
}

}  // namespace
