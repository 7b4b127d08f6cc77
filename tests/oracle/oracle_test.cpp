// SPDX-License-Identifier: Apache-2.0
/// The graph walker against the textbook formulas, and the walker's handling of sequences.
#include "tests/oracle/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/textbook.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace deepcpu;
namespace textbook = oracle::textbook;
using textbook::Sequence;
using textbook::Vector;

struct Problem {
  ModelSpec spec;
  Weights weights;
  oracle::Input input;
};

Vector random_doubles(test::Random& random, std::int64_t count) {
  const auto values = test::random_floats(random, static_cast<std::size_t>(count));
  return {values.begin(), values.end()};
}

Problem make_problem(const std::string& text, std::int64_t steps) {
  Problem p{ModelSpec::parse(text).value(), {}, {}};
  p.weights = Weights::random(p.spec, 3).value();
  p.input.steps = steps;
  test::Random random(7);
  p.input.x = random_doubles(random, steps * p.spec.batch * p.spec.input);
  for (std::size_t i = 1; i < p.spec.cell.inputs().size(); ++i) {
    p.input.extra.push_back(random_doubles(random, steps * p.spec.batch));
  }
  const std::int64_t rows = p.spec.batch * p.spec.directions();
  for (const State& s : p.spec.cell.states()) {
    std::int64_t width = 0;
    for (int l = 0; l < p.spec.layers(); ++l) width += oracle::width_of(p.spec, s.dim, l);
    p.input.initial[s.name] = random_doubles(random, rows * width);
  }
  return p;
}

Vector tensor(const Problem& p, const std::string& name) {
  const auto found = p.weights.tensors().find(name);
  if (found == p.weights.tensors().end()) return {};
  return {found->second.data.begin(), found->second.data.end()};
}

textbook::Matrix matrix(const Problem& p, const std::string& name) {
  const auto found = p.weights.tensors().find(name);
  if (found == p.weights.tensors().end()) return {};
  const auto& shape = found->second.shape;
  return {static_cast<std::size_t>(shape[0]), static_cast<std::size_t>(shape[1]), tensor(p, name)};
}

textbook::LayerWeights layer_weights(const Problem& p, int layer, const std::string& suffix = "") {
  const std::string end = "_l" + std::to_string(layer) + suffix;
  textbook::LayerWeights w;
  w.input = matrix(p, "weight_ih" + end);
  w.recurrent = matrix(p, "weight_hh" + end);
  w.bias = tensor(p, "bias_ih" + end);
  w.recurrent_bias = tensor(p, "bias_hh" + end);
  w.projection = matrix(p, "weight_hr" + end);
  const Vector peephole = tensor(p, "weight_peephole" + end);
  if (!peephole.empty()) {
    const auto h = static_cast<std::ptrdiff_t>(peephole.size() / 3);
    w.peephole_i.assign(peephole.begin(), peephole.begin() + h);
    w.peephole_f.assign(peephole.begin() + h, peephole.begin() + 2 * h);
    w.peephole_o.assign(peephole.begin() + 2 * h, peephole.end());
  }
  return w;
}

/// Row `row` of a state of layer `layer` (all layers of equal width).
Vector state_row(const Problem& p, const std::map<std::string, Vector>& states,
                 const std::string& name, int layer, std::int64_t row) {
  const Vector& all = states.at(name);
  const auto rows = static_cast<std::size_t>(p.spec.layers() * p.spec.directions() * p.spec.batch);
  const auto width = static_cast<std::ptrdiff_t>(all.size() / rows);
  const auto first = all.begin() + (layer * p.spec.directions() * p.spec.batch + row) * width;
  return {first, first + width};
}

Sequence x_row(const Problem& p, std::int64_t row) {
  Sequence x;
  for (std::int64_t t = 0; t < p.input.steps; ++t) {
    const auto first = p.input.x.begin() + (t * p.spec.batch + row) * p.spec.input;
    x.emplace_back(first, first + p.spec.input);
  }
  return x;
}

void check_close(const Vector& actual, const Vector& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    CHECK(std::abs(actual[i] - expected[i]) <= 1e-12);
  }
}

/// Runs a stack by hand, layer on layer, row by row; `layer` is one textbook layer.
template <class Layer>
void check_stack(const std::string& text, const Layer& layer) {
  INFO(text);
  const Problem p = make_problem(text, 5);
  const oracle::Output out = oracle::evaluate(p.spec, p.weights, p.input);
  const bool has_c = p.input.initial.contains("c");
  for (std::int64_t row = 0; row < p.spec.batch; ++row) {
    Sequence values = x_row(p, row);
    for (int l = 0; l < p.spec.layers(); ++l) {
      Vector h = state_row(p, p.input.initial, "h", l, row);
      Vector c = has_c ? state_row(p, p.input.initial, "c", l, row) : Vector();
      values = layer(layer_weights(p, l), values, h, c);
      check_close(state_row(p, out.final, "h", l, row), h);
      if (has_c) check_close(state_row(p, out.final, "c", l, row), c);
    }
    const auto width = static_cast<std::ptrdiff_t>(values[0].size());
    for (std::int64_t t = 0; t < p.input.steps; ++t) {
      const auto first = out.y.begin() + (t * p.spec.batch + row) * width;
      check_close(Vector(first, first + width), values[static_cast<std::size_t>(t)]);
    }
  }
}

void check_lstm(const std::string& text, const textbook::LstmOptions& options) {
  check_stack(text, [&](const auto& w, const Sequence& x, Vector& h, Vector& c) {
    return textbook::lstm(w, x, h, c, options);
  });
}

TEST_CASE("the built-in LSTM is the textbook's") {
  check_lstm("lstm:i5h7b3", {});
  check_lstm("lstm:i3h6l3b2", {});
  check_lstm("lstm:i5h9p4l2b2", {});
  check_lstm("lstm:i5h7b2,peephole=1", {});
  check_lstm("lstm:i5h7b2,clip=0.25", {.clip = 0.25});
  check_lstm("lstm:i5h7b2,coupled=1", {.coupled = true});
  check_lstm("lstm:i5h7p3l2b2,clip=0.25,coupled=1,peephole=1", {.clip = 0.25, .coupled = true});
}

TEST_CASE("the built-in GRU is the textbook's") {
  for (const bool after : {true, false}) {
    const std::string option = after ? "" : ",reset=before";
    for (const std::string dims : {"i5h7b3", "i3h6l3b2"}) {
      check_stack("gru:" + dims + option, [&](const auto& w, const Sequence& x, Vector& h,
                                              Vector&) { return textbook::gru(w, x, h, after); });
    }
  }
}

TEST_CASE("the built-in RNN is the textbook's") {
  using textbook::Act;
  const std::vector<std::pair<std::string, Act>> acts = {
      {"", Act::tanh}, {",act=relu", Act::relu}, {",act=sigmoid", Act::sigmoid}};
  for (const auto& option : acts) {
    const Act act = option.second;
    check_stack("rnn:i4h9l2b2" + option.first,
                [&](const auto& w, const Sequence& x, Vector& h, Vector&) {
                  return textbook::rnn(w, x, h, act);
                });
  }
}

TEST_CASE("AUGRU with no attention is a GRU, with full attention it follows n alone") {
  Problem p = make_problem("augru:i5h7b2", 4);
  Problem gru = make_problem("gru:i5h7b2,reset=before", 4);
  p.weights = gru.weights;
  p.input.initial = gru.input.initial;
  p.input.x = gru.input.x;
  p.input.extra = {Vector(8, 0.0)};
  check_close(oracle::evaluate(p.spec, p.weights, p.input).y,
              oracle::evaluate(gru.spec, gru.weights, gru.input).y);
  p.input.extra = {Vector(8, 1.0)};
  p.input.steps = 1;
  p.input.x.resize(10);
  p.input.extra[0].resize(2);
  const oracle::Output out = oracle::evaluate(p.spec, p.weights, p.input);
  const textbook::LayerWeights w = layer_weights(p, 0);
  for (std::int64_t row = 0; row < 2; ++row) {
    const Vector h = state_row(p, p.input.initial, "h", 0, row);
    const Vector x = x_row(p, row)[0];
    for (std::size_t j = 0; j < 7; ++j) {
      double sum = w.bias[14 + j] + w.recurrent_bias[14 + j];
      for (std::size_t k = 0; k < 5; ++k) sum += w.input.data[(14 + j) * 5 + k] * x[k];
      for (std::size_t k = 0; k < 7; ++k) {
        double reset = w.bias[k] + w.recurrent_bias[k];
        for (std::size_t i = 0; i < 5; ++i) reset += w.input.data[k * 5 + i] * x[i];
        for (std::size_t i = 0; i < 7; ++i) reset += w.recurrent.data[k * 7 + i] * h[i];
        sum += w.recurrent.data[(14 + j) * 7 + k] * h[k] / (1.0 + std::exp(-reset));
      }
      CHECK(std::abs(out.y[static_cast<std::size_t>(row) * 7 + j] - std::tanh(sum)) <= 1e-12);
    }
  }
}

TEST_CASE("reverse is forward on the sequence turned round, bidirectional is both") {
  const Problem forward = make_problem("gru:i4h5b2", 6);
  Problem reverse = make_problem("gru:i4h5revb2", 6);
  const std::size_t step = 2 * 4;
  for (std::size_t t = 0; t < 6; ++t) {
    std::copy_n(forward.input.x.begin() + static_cast<std::ptrdiff_t>(t * step), step,
                reverse.input.x.begin() + static_cast<std::ptrdiff_t>((5 - t) * step));
  }
  const oracle::Output a = oracle::evaluate(forward.spec, forward.weights, forward.input);
  const oracle::Output b = oracle::evaluate(reverse.spec, reverse.weights, reverse.input);
  CHECK(a.final == b.final);
  for (std::size_t t = 0; t < 6; ++t) {
    for (std::size_t i = 0; i < 10; ++i) CHECK(a.y[t * 10 + i] == b.y[(5 - t) * 10 + i]);
  }
  const Problem both = make_problem("gru:i4h5bib2", 6);
  const oracle::Output c = oracle::evaluate(both.spec, both.weights, both.input);
  REQUIRE(c.y.size() == 6 * 2 * 10);
  Problem alone = make_problem("gru:i4h5b2", 6);
  alone.input.x = both.input.x;
  alone.input.initial["h"].assign(both.input.initial.at("h").begin(),
                                  both.input.initial.at("h").begin() + 10);
  const oracle::Output d = oracle::evaluate(alone.spec, alone.weights, alone.input);
  for (std::size_t r = 0; r < 12; ++r) {
    for (std::size_t i = 0; i < 5; ++i) CHECK(c.y[r * 10 + i] == d.y[r * 5 + i]);
  }
}

TEST_CASE("ragged rows are the short sequences, zero past their end") {
  for (const std::string direction : {"", "rev", "bi"}) {
    Problem p = make_problem("lstm:i3h4" + direction + "b3", 5);
    p.input.lengths = {5, 2, 0};
    const oracle::Output out = oracle::evaluate(p.spec, p.weights, p.input);
    Problem shorter = p;
    shorter.input.steps = 2;
    shorter.input.lengths = {2, 2, 0};
    shorter.input.x.resize(2 * 3 * 3);
    const oracle::Output two = oracle::evaluate(shorter.spec, shorter.weights, shorter.input);
    const auto width = static_cast<std::size_t>(oracle::output_width(p.spec));
    for (std::size_t t = 0; t < 5; ++t) {
      for (std::size_t i = 0; i < width; ++i) {
        CHECK(out.y[(t * 3 + 1) * width + i] == (t < 2 ? two.y[(t * 3 + 1) * width + i] : 0.0));
        CHECK(out.y[(t * 3 + 2) * width + i] == 0.0);
      }
    }
    for (int d = 0; d < p.spec.directions(); ++d) {
      const std::int64_t row = 3 * d;
      CHECK(state_row(p, out.final, "c", 0, row + 1) == state_row(p, two.final, "c", 0, row + 1));
      CHECK(state_row(p, out.final, "h", 0, row + 2) ==
            state_row(p, p.input.initial, "h", 0, row + 2));
    }
  }
}

TEST_CASE("the bound is tight enough to see an error of 1e-5 and wide enough for float32") {
  const Problem p = make_problem("lstm:i30h40l2b2", 20);
  const oracle::Bounded bounded = oracle::evaluate_with_bound(p.spec, p.weights, p.input);
  for (const double b : bounded.y_bound) {
    CHECK(b < 1e-5);
    CHECK(b > 6e-8 * 0.05);
  }
  const oracle::Noise other{99};  // a draw that did not take part
  const oracle::Output draw = oracle::evaluate(p.spec, p.weights, p.input, &other);
  double largest = 0.0;
  for (std::size_t i = 0; i < draw.y.size(); ++i) {
    largest = std::max(largest, std::abs(draw.y[i] - bounded.exact.y[i]) / bounded.y_bound[i]);
  }
  CHECK(largest < 1.0);
  CHECK(largest > 0.01);
}

}  // namespace
