// SPDX-License-Identifier: Apache-2.0
/// States: set, get, carried from call to call, reset, with and without threads.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

std::vector<float> get(const Session& session, const std::string& name, std::size_t size) {
  std::vector<float> values(size, -99.0F);
  session.get_state(name, values).value();
  return values;
}

std::vector<float> ramp(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0F);
  for (float& v : values) v /= 64.0F;
  return values;
}

TEST_CASE("a state that was set is what get gives back, in every layer, direction and row") {
  for (const char* problem : {"lstm:i3h5l2b3t4", "lstm:i3h5l2bib3t4", "lstm:i3h7/4b3t4"}) {
    const Sample s = Sample::make(problem);
    const Model model = compile_for(s, host_isa(), 2);
    Session session = model.session(Layout::time_major, 4).value();
    std::int64_t widths = 0;
    for (const std::int64_t h : s.spec.hidden) widths += h * s.spec.directions();
    const auto size = static_cast<std::size_t>(widths * s.spec.batch);
    const std::vector<float> zeros(size);
    CHECK(bit_difference(get(session, "h", size), zeros).empty());
    const std::vector<float> values = ramp(size);
    session.set_state("c", values).value();
    CHECK(bit_difference(get(session, "c", size), values).empty());
    CHECK(bit_difference(get(session, "h", size), zeros).empty());
    session.reset();
    CHECK(bit_difference(get(session, "c", size), zeros).empty());
  }
}

TEST_CASE("the final states of one run, set as initial ones, continue it in another session") {
  for (const int threads : {1, 2}) {
    const Sample s = Sample::make("lstm:i3h5l2b3t6");
    const Model model = compile_for(s, host_isa(), threads);
    const std::vector<float> whole = run_once(model, s);
    const std::size_t half_x = s.x.size() / 2;
    const std::size_t half_y = s.y_size(3);
    std::vector<float> y(s.y_size());
    const std::span<const float> x = s.x;
    Session first = model.session().value();
    first.run(x.first(half_x), std::span(y).first(half_y)).value();
    Session second = model.session().value();
    second.set_state("h", get(first, "h", 2 * 3 * 5)).value();
    second.set_state("c", get(first, "c", 2 * 3 * 5)).value();
    second.run(x.subspan(half_x), std::span(y).subspan(half_y)).value();
    CHECK(bit_difference(y, whole).empty());
  }
}

TEST_CASE("the state carries on in forward models; reset starts anew; others start anew anyway") {
  for (const char* problem : {"gru:i3h5b2t5", "gru:i3h5revb2t5", "gru:i3h5bib2t5"}) {
    const Sample s = Sample::make(problem);
    Session session = Model::compile(s.spec, s.weights).value().session().value();
    std::vector<float> first(s.y_size());
    std::vector<float> second(s.y_size());
    session.run(s.x, first).value();
    session.run(s.x, second).value();
    const bool carries = s.spec.direction == Direction::forward;
    CHECK(bit_difference(second, first).empty() == !carries);
    session.reset();
    session.run(s.x, second).value();
    CHECK(bit_difference(second, first).empty());
  }
}

TEST_CASE("initial states of a bidirectional model hold for one call") {
  const Sample s = Sample::make("gru:i3h5bib2t5");
  Session session = Model::compile(s.spec, s.weights).value().session().value();
  std::vector<float> from_zero(s.y_size());
  std::vector<float> from_set(s.y_size());
  std::vector<float> again(s.y_size());
  session.run(s.x, from_zero).value();
  session.set_state("h", ramp(2 * 2 * 5)).value();
  session.run(s.x, from_set).value();
  session.run(s.x, again).value();
  CHECK(!bit_difference(from_set, from_zero).empty());
  CHECK(bit_difference(again, from_zero).empty());
}

TEST_CASE("a row of length 0 gives zeros and keeps its initial state") {
  for (const int threads : {1, 2}) {
    const Sample s = Sample::make("lstm:i3h5b3t4");
    const Model model = compile_for(s, host_isa(), threads);
    Session session = model.session().value();
    const std::vector<float> initial = ramp(3 * 5);
    session.set_state("h", initial).value();
    session.set_state("c", initial).value();
    std::vector<float> y(s.y_size(), 7.0F);
    const std::vector<std::int64_t> lengths = {3, 0, 4};
    session.run(s.x, y, {}, lengths).value();
    const std::vector<float> h = get(session, "h", 15);
    const std::vector<float> c = get(session, "c", 15);
    for (std::size_t u = 0; u < 5; ++u) {
      CHECK(bits_equal(h[5 + u], initial[5 + u]));
      CHECK(bits_equal(c[5 + u], initial[5 + u]));
      for (std::size_t t = 0; t < 4; ++t) CHECK(bits_equal(y[(t * 3 + 1) * 5 + u], 0.0F));
      // Row 0 ends a step early: zeros then, and h is the output of its last valid step.
      CHECK(bits_equal(y[(3 * 3 + 0) * 5 + u], 0.0F));
      CHECK(bits_equal(h[u], y[(2 * 3 + 0) * 5 + u]));
      CHECK(bits_equal(h[10 + u], y[(3 * 3 + 2) * 5 + u]));
    }
  }
}

TEST_CASE("a session can be moved, and outlives its model") {
  const Sample s = Sample::make("lstm:i3h5b2t4");
  std::vector<float> expected;
  std::vector<Session> kept;
  {
    const Model model = compile_for(s, host_isa(), 2);
    expected = run_once(model, s);
    kept.push_back(model.session().value());
  }
  Session moved = std::move(kept.front());
  std::vector<float> y(s.y_size());
  moved.run(s.x, y).value();
  CHECK(bit_difference(y, expected).empty());
}

}  // namespace
