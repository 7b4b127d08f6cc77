// SPDX-License-Identifier: Apache-2.0
/// Properties of random cells, sizes and schedules, through the public interface only.
///
/// A failure prints its problem string; everything random follows from it, so
///     DEEPCPU_PROBLEM='random.17:i3h9b2t5' property_tests
/// repeats exactly that problem in every test case.
#include <algorithm>
#include <cmath>
#include <exception>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/property/harness.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random_cells.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// Checks every problem and reports each failure, so that one does not hide the next. A kernel
/// whose code would be too large is a legal answer, as long as it stays an exception.
template <class Check>
void for_problems(int count, std::uint64_t first_seed, const Check& check) {
  const std::vector<std::string> all = problems(count, first_seed);
  std::size_t too_large = 0;
  for (const std::string& text : all) {
    std::string failure;
    try {
      failure = check(make_problem(text));
    } catch (const CodeTooLarge&) {
      ++too_large;
    } catch (const std::exception& e) {
      failure = e.what();
    }
    INFO("repeat with DEEPCPU_PROBLEM='" << text << "'\n" << failure);
    CHECK(failure.empty());
  }
  INFO(too_large << " of " << all.size() << " problems were refused for the size of their code");
  CHECK(too_large * 10 <= all.size());
}

std::string with_schedule(const std::string& failure, const Model& model) {
  return failure.empty() ? failure : failure + "\nschedule " + model.schedule().to_json();
}

/// Compares y and all final states with the oracle's bounds.
std::string oracle_failure(const Problem& p, const Outcome& outcome,
                           const oracle::Bounded& bounded) {
  const ErrorReport y = compare_with_bound(outcome.y, bounded.exact.y, bounded.y_bound);
  if (!y.failure.empty()) return "y: " + y.failure;
  for (const State& s : p.spec.cell.states()) {
    const ErrorReport state = compare_with_bound(
        outcome.final.at(s.name), bounded.exact.final.at(s.name), bounded.final_bound.at(s.name));
    if (!state.failure.empty()) return "state " + s.name + ": " + state.failure;
  }
  return {};
}

/// Compiles with a random schedule; one that does not fit into registers is streamed instead.
Model compile_random(const Problem& p, Random& random, Isa isa) {
  Schedule schedule = random_schedule(random, p.spec, isa);
  CompileOptions options;
  options.isa = isa;
  options.schedule = schedule;
  if (!Model::compile(p.spec, p.weights, options).ok()) {
    for (LayerSchedule& layer : schedule.layers) layer.weights = Residency::streamed;
  }
  return compile(p, isa, schedule);
}

TEST_CASE("the interpreter is within the bound of the float64 oracle") {
  std::size_t sharp = 0;
  std::size_t all = 0;
  for_problems(150, 1000, [&](const Problem& p) {
    const Model model = compile(p, Isa::interpreter);
    const oracle::Bounded bounded = oracle::evaluate_with_bound(p.spec, p.weights, oracle_input(p));
    all += bounded.y_bound.size();
    sharp += static_cast<std::size_t>(std::count_if(bounded.y_bound.begin(), bounded.y_bound.end(),
                                                    [](double b) { return b < 1e-3; }));
    return oracle_failure(p, run(p, model), bounded);
  });
  // A bound that is wide everywhere would prove nothing.
  if (all > 1000) CHECK(sharp > all / 100 * 95);
}

TEST_CASE("code gives the interpreter's bits") {
  for_problems(150, 2000, [](const Problem& p) -> std::string {
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      if (isa == Isa::interpreter) continue;
      const Model model = compile(p, isa);
      const std::string failure = difference(run(p, model), expected);
      if (!failure.empty()) return with_schedule(failure, model);
    }
    return {};
  });
}

TEST_CASE("no schedule changes a bit") {
  for_problems(120, 3000, [](const Problem& p) -> std::string {
    Random random(hash_of(p.text) + 1);
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      for (int i = 0; i < 3; ++i) {
        const Model model = compile_random(p, random, isa);
        const std::string failure = difference(run(p, model), expected);
        if (!failure.empty()) return with_schedule(failure, model);
      }
    }
    return {};
  });
}

/// Steps cut at random places; a part of length 0 is legal.
std::vector<std::int64_t> random_parts(Random& random, std::int64_t steps) {
  std::vector<std::int64_t> parts;
  while (steps > 0) {
    const std::int64_t part = random.chance(0.3) ? 1 : random.range(0, steps);
    parts.push_back(part);
    steps -= part;
  }
  parts.push_back(0);
  return parts;
}

TEST_CASE("a sequence in parts gives the bits of the whole") {
  for_problems(120, 4000, [](const Problem& drawn) -> std::string {
    if (drawn.spec.direction != Direction::forward) return {};  // the others start anew
    Problem p = drawn;
    p.lengths.clear();
    Random random(hash_of(p.text) + 2);
    for (const Isa isa : host_isas()) {
      const Model model = compile_random(p, random, isa);
      const Outcome expected = run(p, model);
      RunOptions options;
      options.parts = random_parts(random, p.steps);
      const std::string failure = difference(run(p, model, options), expected);
      if (!failure.empty()) return with_schedule(failure, model);
    }
    return {};
  });
}

TEST_CASE("a row of a batch has the bits of the row alone") {
  for_problems(120, 5000, [](const Problem& p) -> std::string {
    Random random(hash_of(p.text) + 3);
    for (const Isa isa : host_isas()) {
      const Model model = compile_random(p, random, isa);
      const Outcome all = run(p, model);
      for (std::int64_t row = 0; row < p.spec.batch; ++row) {
        const Problem alone = one_row(p, row);
        const Model small = compile(alone, isa);
        const std::string failure = difference(row_of(p, all, row), run(alone, small));
        if (failure.empty()) continue;
        return with_schedule("row " + std::to_string(row) + ": " + failure, model);
      }
    }
    return {};
  });
}

TEST_CASE("a row of NaN leaves the other rows alone") {
  for_problems(60, 6000, [](const Problem& drawn) -> std::string {
    Random random(hash_of(drawn.text) + 4);
    const std::int64_t bad = random.range(0, drawn.spec.batch - 1);
    Problem p = drawn;
    const auto width = static_cast<std::size_t>(p.spec.input);
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i / width) % p.spec.batch;
      if (row == bad) p.x[i] = std::nanf("");
    }
    for (const Isa isa : host_isas()) {
      const Model model = compile_random(p, random, isa);
      const Outcome expected = run(drawn, model);
      const Outcome actual = run(p, model);
      for (std::int64_t row = 0; row < p.spec.batch; ++row) {
        if (row == bad) continue;
        const std::string failure = difference(row_of(p, actual, row), row_of(p, expected, row));
        if (failure.empty()) continue;
        return with_schedule("row " + std::to_string(row) + ": " + failure, model);
      }
    }
    return {};
  });
}

TEST_CASE("both layouts give the same bits") {
  for_problems(80, 7000, [](const Problem& p) -> std::string {
    Random random(hash_of(p.text) + 5);
    for (const Isa isa : host_isas()) {
      const Model model = compile_random(p, random, isa);
      RunOptions options;
      options.layout = Layout::batch_major;
      const std::string failure = difference(run(p, model, options), run(p, model));
      if (!failure.empty()) return with_schedule(failure, model);
    }
    return {};
  });
}

TEST_CASE("two sessions of one model do not disturb each other") {
  for_problems(40, 8000, [](const Problem& p) -> std::string {
    const Model model = compile(p, host_isa());
    Problem one = p;
    one.lengths.clear();  // they may be longer than the parts
    Problem other = one;
    for (float& v : other.x) v = -v;
    RunOptions steps;
    steps.parts.assign(static_cast<std::size_t>(p.steps), 1);
    const auto [mine, others] = run_in_turns(one, other, model, steps);
    std::string failure = difference(mine, run(one, model, steps));
    if (failure.empty()) failure = difference(others, run(other, model, steps));
    return with_schedule(failure, model);
  });
}

}  // namespace
