// SPDX-License-Identifier: Apache-2.0
/// Three cells that are not shipped, through the same door as the built-in ones.
#include "tests/oracle/user_cells.hpp"

#include <cmath>
#include <limits>
#include <random>

#include "deepcpu/model.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/oracle.hpp"
#include "tests/support/compare.hpp"

namespace deepcpu {
namespace {

std::vector<Isa> code_isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa <= host_isa()) out.push_back(isa);
  }
  return out;
}

std::vector<float> random_input(std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = uniform(generator);
  return x;
}

std::vector<float> run(const ModelSpec& spec, const Weights& weights, const std::vector<float>& x,
                       std::int64_t steps, const CompileOptions& options) {
  const Model model = Model::compile(spec, weights, options).value();
  CHECK(model.notes().empty());
  Session session = model.session().value();
  std::vector<float> y(static_cast<std::size_t>(steps * spec.batch * spec.output_width()));
  session.run(x, y).value();
  return y;
}

void check_cell(const Cell& cell, std::int64_t input, std::vector<std::int64_t> hidden,
                std::int64_t batch) {
  const std::int64_t steps = 11;
  const ModelSpec spec =
      ModelSpec::make(cell, {.input = input, .hidden = std::move(hidden), .batch = batch}).value();
  const Weights weights = Weights::random(spec, 3).value();
  const std::vector<float> x = random_input(steps * batch * input, 5);
  INFO(spec.str());
  CompileOptions options;
  options.isa = Isa::interpreter;
  const std::vector<float> expected = run(spec, weights, x, steps, options);
  oracle::Input exact;
  exact.steps = steps;
  exact.x.assign(x.begin(), x.end());
  const oracle::Bounded bounded = oracle::evaluate_with_bound(spec, weights, exact);
  CHECK(test::compare_with_bound(expected, bounded.exact.y, bounded.y_bound).failure.empty());
  Schedule schedule = Model::compile(spec, weights, options).value().schedule();
  for (const Isa isa : code_isas()) {
    for (const int hoist : {0, 4}) {
      for (const bool fuse : {true, false}) {
        INFO(to_string(isa) << " hoist_block=" << hoist << " fuse_gates=" << fuse);
        schedule.isa = isa;
        for (LayerSchedule& layer : schedule.layers) {
          layer.hoist_block = hoist;
          layer.fuse_gates = fuse;
        }
        CompileOptions own;
        own.schedule = schedule;
        CHECK(test::bit_difference(run(spec, weights, x, steps, own), expected).empty());
      }
    }
  }
}

TEST_CASE("a minimal gated unit runs at every ISA") {
  const Cell cell = oracle::mgu().value();
  check_cell(cell, 7, {19}, 1);
  check_cell(cell, 33, {64, 40}, 5);
}

TEST_CASE("an SRU-like cell, whose output is not its state, runs at every ISA") {
  const Cell cell = oracle::sru().value();
  check_cell(cell, 21, {21}, 1);
  check_cell(cell, 48, {48, 48}, 3);
}

TEST_CASE("a cell with two dependent products and a skip runs at every ISA") {
  const Cell cell = oracle::skip().value();
  check_cell(cell, 9, {35}, 1);
  check_cell(cell, 16, {32, 17}, 7);
}

TEST_CASE("inputs with NaN or infinity give what float64 gives") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* problem : {"lstm:i5h19t6b2", "gru:i5h19t6b2", "gru:i5h19t6b2,reset=before",
                              "rnn:i5h19t6b2,act=relu"}) {
    for (const float special : {inf, -inf, nan, 3e38F}) {
      const ModelSpec spec = ModelSpec::parse(problem).value();
      const Weights weights = Weights::random(spec, 3).value();
      std::vector<float> x = random_input(spec.steps * spec.batch * spec.input, 5);
      x[13] = special;  // step 1, row 0, so that row 1 stays as it is
      INFO(problem << " with " << special);
      oracle::Input exact;
      exact.steps = spec.steps;
      exact.x.assign(x.begin(), x.end());
      const std::vector<double> expected = oracle::evaluate(spec, weights, exact).y;
      for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
        if (isa > host_isa()) continue;
        CompileOptions options;
        options.isa = isa;
        const std::vector<float> y = run(spec, weights, x, spec.steps, options);
        for (std::size_t i = 0; i < y.size(); ++i) {
          INFO(to_string(isa) << " element " << i << ": " << y[i] << " for " << expected[i]);
          REQUIRE(std::isnan(y[i]) == std::isnan(expected[i]));
          if (std::isfinite(expected[i]) && std::abs(expected[i]) < 1e30) {
            REQUIRE(std::abs(static_cast<double>(y[i]) - expected[i]) < 1e-5);
          }
        }
      }
    }
  }
}

TEST_CASE("a state that decays to nothing becomes zero and stays fast") {
  // h' = h / 2: after 200 steps float32 would hold denormals.
  CellBuilder b("halve");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value next = b.add(b.mul(h, b.constant(0.5F)), b.mul(x, b.constant(0.0F)));
  b.next(h, next);
  b.output(next);
  const ModelSpec spec = ModelSpec::make(b.build().value(), {.input = 20, .hidden = {20}}).value();
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    CompileOptions options;
    options.isa = isa;
    const Model model = Model::compile(spec, Weights(), options).value();
    Session session = model.session().value();
    const std::vector<float> ones(20, 1.0F);
    REQUIRE(session.set_state("h", ones).ok());
    const std::vector<float> zeros(140 * 20);
    std::vector<float> y(zeros.size());
    REQUIRE(session.run(zeros, y).ok());
    CHECK(y[125 * 20] == std::ldexp(1.0F, -126));
    CHECK(y[126 * 20] == 0.0F);
  }
}

}  // namespace
}  // namespace deepcpu
