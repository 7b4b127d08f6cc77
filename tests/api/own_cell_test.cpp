// SPDX-License-Identifier: Apache-2.0
/// A cell of the user's own through the public headers alone, against its formula.
#include <cmath>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// The minimal gated unit, as the head of cell.hpp shows it.
Cell gated_unit(const std::string& name) {
  CellBuilder b(name);
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value f = b.sigmoid(b.bias("b_f") + b.matmul("w_f", x) + b.matmul("u_f", h));
  const Value n = b.tanh(b.bias("b_n") + b.matmul("w_n", x) + b.matmul("u_n", f * h));
  const Value next = h + f * (n - h);
  b.next(h, next);
  b.output(next);
  return b.build().value();
}

struct Tensors {
  std::vector<float> w_f, w_n, u_f, u_n, b_f, b_n;
};

constexpr std::size_t kInput = 3;
constexpr std::size_t kHidden = 5;

double product(const std::vector<float>& w, std::size_t row, const std::vector<double>& v) {
  double sum = 0.0;
  for (std::size_t k = 0; k < v.size(); ++k) {
    sum += static_cast<double>(w[row * v.size() + k]) * v[k];
  }
  return sum;
}

/// One step of the formula in float64.
std::vector<double> step(const Tensors& t, const std::vector<double>& x,
                         const std::vector<double>& h) {
  std::vector<double> f(kHidden);
  std::vector<double> fh(kHidden);
  for (std::size_t u = 0; u < kHidden; ++u) {
    const double sum = static_cast<double>(t.b_f[u]) + product(t.w_f, u, x) + product(t.u_f, u, h);
    f[u] = 1.0 / (1.0 + std::exp(-sum));
    fh[u] = f[u] * h[u];
  }
  std::vector<double> next(kHidden);
  for (std::size_t u = 0; u < kHidden; ++u) {
    const double sum = static_cast<double>(t.b_n[u]) + product(t.w_n, u, x) + product(t.u_n, u, fh);
    next[u] = h[u] + f[u] * (std::tanh(sum) - h[u]);
  }
  return next;
}

TEST_CASE("a cell of one's own, with one's own tensors, follows its formula") {
  Random random(11);
  Tensors t;
  for (auto* w : {&t.w_f, &t.w_n}) *w = random_floats(random, kHidden * kInput);
  for (auto* u : {&t.u_f, &t.u_n}) *u = random_floats(random, kHidden * kHidden);
  for (auto* b : {&t.b_f, &t.b_n}) *b = random_floats(random, kHidden);
  Weights weights;
  weights.add("w_f_l0", {kHidden, kInput}, t.w_f).value();
  weights.add("w_n_l0", {kHidden, kInput}, t.w_n).value();
  weights.add("u_f_l0", {kHidden, kHidden}, t.u_f).value();
  weights.add("u_n_l0", {kHidden, kHidden}, t.u_n).value();
  weights.add("b_f_l0", {kHidden}, t.b_f).value();
  weights.add("b_n_l0", {kHidden}, t.b_n).value();
  constexpr std::size_t kSteps = 20;
  const std::vector<float> x = random_floats(random, kSteps * kInput);
  const ModelSpec spec =
      ModelSpec::make(gated_unit("api_mgu"), {.input = kInput, .hidden = {kHidden}}).value();
  for (const int threads : {1, 2}) {
    CompileOptions options;
    options.threads = threads;
    options.schedule = schedule_for(spec, host_isa(), threads);
    Session session = Model::compile(spec, weights, options).value().session().value();
    std::vector<float> y(kSteps * kHidden);
    session.run(x, y).value();
    std::vector<double> h(kHidden, 0.0);
    for (std::size_t s = 0; s < kSteps; ++s) {
      h = step(t,
               {x.begin() + static_cast<std::ptrdiff_t>(s * kInput),
                x.begin() + static_cast<std::ptrdiff_t>((s + 1) * kInput)},
               h);
      for (std::size_t u = 0; u < kHidden; ++u) {
        CHECK(static_cast<double>(y[s * kHidden + u]) == Approx(h[u]).margin(1e-5));
      }
    }
  }
}

TEST_CASE("a cell that is registered is found by problem strings, once per name") {
  REQUIRE(register_cell(gated_unit("api_registered")).ok());
  CHECK(ModelSpec::parse("api_registered:i8h16/32").ok());
  CHECK(!register_cell(gated_unit("api_registered")).ok());
  CHECK(!register_cell(gated_unit("lstm")).ok());
}

TEST_CASE("the weights may be freed once the model is compiled") {
  const ModelSpec spec = ModelSpec::parse("lstm:i4h8t6").value();
  Sample s = Sample::make(spec);
  const Model model = Model::compile(spec, s.weights).value();
  const std::vector<float> expected = run_once(model, s);
  s.weights = Weights();
  std::vector<std::vector<float>> others(50, std::vector<float>(512, std::nanf("")));
  const std::vector<float> y = run_once(model, s);
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == expected[i]);
}

}  // namespace
