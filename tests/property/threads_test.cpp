// SPDX-License-Identifier: Apache-2.0
/// Threads change no bit: random cells, sizes, lengths and schedules with 1 to 22 threads, also
/// many more than there are processors, against the interpreter on one thread.
#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "src/lower/lower.hpp"
#include "src/lower/work.hpp"
#include "src/runtime/program.hpp"
#include "src/schedule/check.hpp"
#include "src/tune/wisdom_check.hpp"
#include "tests/catch.hpp"
#include "tests/property/harness.hpp"
#include "tests/support/random_cells.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// Threads that wait for each other share processors when there are too few of them: then every
/// exchange takes a turn of the scheduler, and long sequences take long.
constexpr std::int64_t kMostSteps = 20;

/// A random schedule with threads. One that does not fit into registers is streamed instead; a
/// kernel that is too large for the code size is refused, and its exception ends the problem.
Model compile_threaded(const Problem& p, Random& random, Isa isa, int threads = 0) {
  Schedule schedule = random_schedule(random, p.spec, isa);
  random_threads(random, p.spec, schedule);
  if (threads > 0) schedule.threads = threads;
  if (!check_schedule(schedule) || !check_division(p.spec, schedule)) schedule.split_rows = 1;
  CompileOptions options;
  options.isa = isa;
  options.threads = schedule.threads;
  options.schedule = schedule;
  if (!Model::compile(p.spec, p.weights, options).ok()) {
    for (LayerSchedule& layer : schedule.layers) layer.weights = Residency::streamed;
  }
  const bool hoists = lower::hoists(lower::StepGraph::build(p.spec.cell));
  if (!hoists && schedule.parallel == Parallel::hoist) {
    schedule.parallel = Parallel::none;
  }
  return compile(p, isa, schedule);
}

/// Runs `check` on random problems of at most kMostSteps steps and reports every failure.
template <class Check>
void for_short_problems(int count, std::uint64_t first_seed, const Check& check) {
  int checked = 0;
  const std::vector<std::string> all = problems(count, first_seed);
  for (const std::string& text : all) {
    std::string failure;
    try {
      const Problem p = make_problem(text);
      if (p.steps > kMostSteps) continue;
      failure = check(p);
      ++checked;
    } catch (const CodeTooLarge&) {
    } catch (const std::exception& e) {
      failure = e.what();
    }
    INFO("repeat with DEEPCPU_PROBLEM='" << text << "'\n" << failure);
    CHECK(failure.empty());
  }
  if (all.size() > 10) CHECK(checked * 2 > static_cast<int>(all.size()));
}

std::string with_schedule(const std::string& failure, const Model& model) {
  return failure.empty() ? failure : failure + "\nschedule " + model.schedule().to_json();
}

TEST_CASE("no number of threads changes a bit") {
  for_short_problems(120, 9000, [](const Problem& p) -> std::string {
    Random random(hash_of(p.text) + 6);
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      for (int i = 0; i < 2; ++i) {
        const Model model = compile_threaded(p, random, isa);
        const std::string failure = difference(run(p, model), expected);
        if (!failure.empty()) return with_schedule(failure, model);
      }
    }
    return {};
  });
}

/// Whether the panels of so many threads are none of those that one thread can have.
bool cuts(const ModelSpec& spec, Isa isa, int threads, Panel panel) {
  const ModelWork work = ModelWork::of(spec, isa, threads).value();
  const auto& stages = work.layers[0].step[1][1].stages;
  return std::any_of(stages.begin(), stages.end(), [&](const StageWork& s) {
    const std::uint32_t units = s.panel_units(threads, panel);
    return units != s.panel_units(1, Panel::narrow) && units != s.panel_units(1, Panel::wide);
  });
}

TEST_CASE("panels that are cut for the number of threads change no bit") {
  for (const Isa isa : host_isas()) {
    int cut = 0;
    for (const char* text :
         {"gru:i7h96t9", "gru:i7h90t9,reset=before", "gru:i5h160t5", "rnn:i5h150t9", "gru:i7h32t9",
          "augru:i9h96t7", "lstm:i9h100p96t7", "rnn:i9h72t9", "rnn:i9h144t5"}) {
      const Problem p = make_problem(text);
      Random random(hash_of(p.text));
      const Outcome expected = run(p, compile(p, Isa::interpreter));
      for (const int threads : {2, 3, 4, 6}) {
        for (const Panel panel : {Panel::narrow, Panel::wide}) {
          Schedule schedule = random_schedule(random, p.spec, isa);
          schedule.threads = threads;
          schedule.exchange = random.chance(0.5) ? Exchange::flag : Exchange::data;
          LayerSchedule& layer = schedule.layers.front();
          layer.panel = panel;
          layer.weights = Residency::streamed;
          if (!check_lowering(p.spec, schedule)) layer.hoist_ahead = false;
          INFO(text << " " << schedule.to_json());
          CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
          cut += cuts(p.spec, isa, threads, panel) ? 1 : 0;
        }
      }
    }
    INFO(to_string(isa));
    CHECK(cut >= 6);
  }
}

/// Every row of the batch ends at a step of its own.
Problem ragged(const Problem& from, Random& random) {
  Problem p = from;
  p.lengths.clear();
  for (std::int64_t b = 0; b < p.spec.batch; ++b) p.lengths.push_back(random.range(0, p.steps));
  return p;
}

TEST_CASE("ragged lengths with threads give the bits of one thread") {
  for_short_problems(80, 9500, [](const Problem& drawn) -> std::string {
    Random random(hash_of(drawn.text) + 7);
    const Problem p = ragged(drawn, random);
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      const Model model = compile_threaded(p, random, isa, random.integer(2, 3));
      RunOptions options;
      options.layout = random.chance(0.5) ? Layout::time_major : Layout::batch_major;
      const std::string failure = difference(run(p, model, options), expected);
      if (!failure.empty()) return with_schedule(failure, model);
    }
    return {};
  });
}

/// The problem with its direction replaced; its numbers follow from the new string.
Problem turned(const std::string& text, const std::string& direction) {
  ModelSpec spec = parse_problem(text).value();
  spec.direction = direction == "bi" ? Direction::bidirectional : Direction::reverse;
  return make_problem(problem_of(spec));
}

TEST_CASE("reverse and bidirectional models with threads give the bits of one thread") {
  for_short_problems(60, 9800, [](const Problem& drawn) -> std::string {
    Random random(hash_of(drawn.text) + 8);
    const Problem p = turned(drawn.text, random.chance(0.7) ? "bi" : "rev");
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      const Model model = compile_threaded(p, random, isa, random.integer(2, 4));
      const std::string failure = difference(run(p, model), expected);
      if (!failure.empty()) return p.text + ": " + with_schedule(failure, model);
    }
    return {};
  });
}

/// Calls of one step are where counters, slots and blocks carry on from run to run.
TEST_CASE("a sequence in parts with threads gives the bits of the whole on one thread") {
  for_short_problems(60, 9900, [](const Problem& drawn) -> std::string {
    if (drawn.spec.direction != Direction::forward) return {};  // the others start anew
    Problem p = drawn;
    p.lengths.clear();
    Random random(hash_of(p.text) + 9);
    const Outcome expected = run(p, compile(p, Isa::interpreter));
    for (const Isa isa : host_isas()) {
      const Model model = compile_threaded(p, random, isa, random.integer(2, 3));
      RunOptions options;
      for (std::int64_t left = p.steps; left > 0; left -= options.parts.back()) {
        options.parts.push_back(random.chance(0.5) ? 1 : random.range(1, left));
      }
      options.parts.push_back(0);
      const std::string failure = difference(run(p, model, options), expected);
      if (!failure.empty()) return with_schedule(failure, model);
    }
    return {};
  });
}

}  // namespace
