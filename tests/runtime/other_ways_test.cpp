// SPDX-License-Identifier: Apache-2.0
/// A model on several threads that goes on alone, or whose threads share only hoisted products:
/// when there are such programs, and that states go from one to the other bit by bit.
#include "src/other_ways.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "src/runtime/runner.hpp"
#include "src/runtime/team_choice.hpp"
#include "src/tune/estimate.hpp"
#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/round_machine.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

std::int64_t longest(const std::string& problem, const MachineModel& machine) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  const Schedule chosen = estimate_schedule(spec, Isa::avx512, 2, machine).value();
  REQUIRE(chosen.threads == 2);
  const Schedule alone = estimate_schedule(spec, Isa::avx512, 1, machine).value();
  return longest_alone(spec, chosen, alone, machine).value();
}

TEST_CASE(
    "alone: where cache lines that travel slowly or parked helpers cost more than threads "
    "gain") {
  MachineModel machine = round_machine();
  machine.wake_us = 0.0;
  CHECK(longest("lstm:i32h32t100", machine) >= 16);
  CHECK(longest("gru:i64h64t100", machine) >= 100);
  CHECK(longest("lstm:i128h128t100", machine) == 0);
  CHECK(longest("lstm:i512h512t100", machine) == 0);
  CHECK(longest("lstm:i256h256t1", machine) == 0);
  machine.wake_us = 50.0;
  const std::int64_t short_runs = longest("lstm:i256h256t100", machine);
  CHECK(short_runs >= 1);
  CHECK(short_runs < 100);
  CHECK(longest("lstm:i1024h1024t100", machine) == 0);
}

HoistChoice hoist_of(const std::string& problem, const MachineModel& machine) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  const Schedule chosen = estimate_schedule(spec, Isa::avx512, 2, machine).value();
  REQUIRE(chosen.threads == 2);
  const Schedule alone = estimate_schedule(spec, Isa::avx512, 1, machine).value();
  return choose_hoist(spec, chosen, alone, machine).value();
}

TEST_CASE("hoist: where lines that travel slowly cost more than sharing the time loop gains") {
  const MachineModel machine = round_machine();
  const HoistChoice small = hoist_of("gru:i64h64t100", machine);
  CHECK(small.schedule.parallel == Parallel::hoist);
  CHECK(small.schedule.threads == 2);
  CHECK(small.least_steps > 1);
  CHECK(small.least_steps <= 100);
  CHECK(hoist_of("lstm:i64h64t100", machine).least_steps > 0);
  // Most of the work is in the loop; there is a single step; the threads share nothing else anyway.
  CHECK(hoist_of("lstm:i512h512t100", machine).least_steps == 0);
  CHECK(hoist_of("lstm:i128h128t1", machine).least_steps == 0);
  const ModelSpec spec = ModelSpec::parse("lstm:i200h32t100").value();
  Schedule hoist = schedule_for(spec, Isa::avx512, 2, Parallel::hoist);
  const Schedule one = schedule_for(spec, Isa::avx512, 1);
  CHECK(choose_hoist(spec, hoist, one, machine).value().least_steps == 0);
  CHECK(choose_hoist(spec, one, one, machine).value().least_steps == 0);
}

TEST_CASE("other ways: only where the schedule was ours to choose") {
  const ModelSpec spec = ModelSpec::parse("lstm:i16h32t100").value();
  CompileOptions options;
  options.threads = 2;
  options.schedule = schedule_for(spec, Isa::interpreter, 2);
  const auto given = compile_program(spec, options).value();
  const OtherWays none = compile_other_ways(given, options);
  CHECK(none.alone == nullptr);
  CHECK(none.hoist == nullptr);
  CHECK(none.microseconds == 0.0);
  options.schedule.reset();
  const OtherWays others = compile_other_ways(given, options);
  REQUIRE(others.most_alone > 0);
  CHECK(others.alone->program.participants == 1);
  CHECK(others.microseconds > 0.0);
  options.threads = 1;
  const auto one = compile_program(spec, options).value();
  CHECK(compile_other_ways(one, options).alone == nullptr);
}

/// Parts of a sequence on one runner or on two in turns.
class Relay {
 public:
  Relay(const Sample& sample, const std::vector<Schedule>& schedules) : sample_(sample) {
    for (const Schedule& s : schedules) {
      CompileOptions options;
      options.threads = s.threads;
      options.schedule = s;
      auto model = std::make_shared<CompiledModel>();
      model->compiled = compile_program(sample.spec, options).value();
      model->packed = pack_weights(model->compiled, sample.weights).value();
      const auto team = runners_.empty() ? nullptr : runners_.front()->team();
      runners_.push_back(
          std::make_unique<Runner>(model, Layout::time_major, sample.spec.steps, team));
    }
  }

  /// y of all parts, then all states.
  std::vector<float> run(const std::vector<std::int64_t>& parts) {
    const ModelSpec& spec = sample_.spec;
    std::vector<float> y(sample_.y_size());
    std::int64_t done = 0;
    std::size_t now = 0;
    for (const std::int64_t steps : parts) {
      RunInput in;
      in.x = sample_.x.data() + done * spec.batch * spec.input;
      in.y = y.data() + done * spec.batch * spec.output_width();
      in.steps = steps;
      runners_[now]->run(in);
      done += steps;
      const std::size_t next = (now + 1) % runners_.size();
      if (next != now) runners_[next]->take_states(*runners_[now]);
      now = next;
    }
    const Compilation& c = runners_[now]->model().compiled;
    for (std::size_t step = 0; step < c.program.steps.size(); ++step) {
      for (std::size_t state = 0; state < spec.cell.states().size(); ++state) {
        const Dim dim = spec.cell.states()[state].dim;
        const std::int64_t width = spec.width(dim, c.program.steps[step].layer) * spec.batch;
        y.resize(y.size() + static_cast<std::size_t>(width));
        runners_[now]->load_state(step, static_cast<int>(state), &*y.end() - width);
      }
    }
    return y;
  }

 private:
  const Sample& sample_;
  std::vector<std::unique_ptr<Runner>> runners_;
};

TEST_CASE("other ways: states go from one runner to the other") {
  for (const std::string problem :
       {"lstm:i9h20t30", "lstm:i9h20l2b3t30", "gru:i9h37b2t30", "lstm:i9h24p12t30,peephole=1"}) {
    const Sample sample = Sample::make(problem);
    for (const Isa isa : {Isa::interpreter, host_isa()}) {
      const Schedule one = schedule_for(sample.spec, isa, 1);
      Schedule data = schedule_for(sample.spec, isa, 2);
      data.exchange = Exchange::data;
      INFO(problem << " " << to_string(isa));
      const std::vector<float> expected = Relay(sample, {one}).run({30});
      std::vector<Schedule> others = {schedule_for(sample.spec, isa, 2), data};
      if (sample.spec.layers() == 1) {
        others.push_back(schedule_for(sample.spec, isa, 2, Parallel::hoist));
      } else {
        others.push_back(schedule_for(sample.spec, isa, 2, Parallel::wavefront));
      }
      if (sample.spec.batch > 1) {
        others.push_back(others.front());
        others.back().split_rows = 2;
      }
      for (const Schedule& other : others) {
        INFO(other.to_json());
        for (const auto& ways : {std::vector{other, one}, {other, others.back(), one}}) {
          Relay relay(sample, ways);
          CHECK(bit_difference(relay.run({1, 2, 5, 1, 1, 7, 13}), expected).empty());
        }
      }
    }
  }
}

TEST_CASE("other ways: runners of as many threads have the same helpers") {
  const Sample sample = Sample::make("lstm:i9h40t30");
  const auto runner = [&](int threads, Parallel parallel, std::shared_ptr<ThreadTeam> team) {
    CompileOptions options;
    options.threads = threads;
    options.schedule = schedule_for(sample.spec, Isa::interpreter, threads, parallel);
    auto model = std::make_shared<CompiledModel>();
    model->compiled = compile_program(sample.spec, options).value();
    model->packed = pack_weights(model->compiled, sample.weights).value();
    return std::make_unique<Runner>(model, Layout::time_major, sample.spec.steps, std::move(team));
  };
  const auto two = runner(2, Parallel::none, nullptr);
  if (!two->team()) return;  // the process may use one processor only
  CHECK(runner(2, Parallel::hoist, two->team())->team() == two->team());
  const auto three = runner(3, Parallel::none, two->team());
  CHECK(three->team() != two->team());
  if (three->team()) CHECK(three->team()->helpers() == 2);
  CHECK(runner(1, Parallel::none, two->team())->team() == nullptr);
}

using Ways = std::set<std::pair<int, Parallel>>;

/// Threads, and what they share, of so many runs whose trials all come to the same.
Ways ways_of(const Model& model, const ModelSpec& spec, const CompileOptions& options, int runs) {
  const auto compiled = compile_program(spec, options).value();
  const OtherWays others = compile_other_ways(compiled, options);
  TeamChoice choice({others.alone ? others.most_alone : 0, others.hoist ? others.least_hoist : 0});
  Ways ways;
  for (int run = 0; run < runs; ++run) {
    const Schedule& s = model.schedule();
    switch (choice.next(spec.steps, false)) {
      case TeamChoice::Way::team:
        ways.emplace(s.threads, s.parallel);
        break;
      case TeamChoice::Way::hoist:
        ways.emplace(s.threads, Parallel::hoist);
        break;
      case TeamChoice::Way::alone:
        ways.emplace(1, Parallel::none);
        break;
    }
    choice.took(1.0);
  }
  return ways;
}

TEST_CASE("other ways: a session goes each of them, with the same bits") {
  constexpr int kRuns = 40;  // some of them are trials
  // The second is one whose threads may share hoisted products only.
  const Sample sample = Sample::make(GENERATE("lstm:i80h80t7", "lstm:i64h64t100"));
  const auto outcome = [&](int threads) {
    CompileOptions options;
    options.threads = threads;
    const Model model = Model::compile(sample.spec, sample.weights, options).value();
    Session session = model.session().value();
    std::vector<float> all;
    std::vector<float> y(sample.y_size());
    std::vector<float> h(static_cast<std::size_t>(sample.spec.hidden.front()));
    Ways ways;
    CHECK(session.threads() == 0);
    CHECK(session.parallel() == Parallel::none);
    for (int run = 0; run < kRuns; ++run) {
      REQUIRE(session.run(sample.x, y).ok());
      ways.emplace(session.threads(), session.parallel());
      all.insert(all.end(), y.begin(), y.end());
      REQUIRE(session.get_state("h", h).ok());
      all.insert(all.end(), h.begin(), h.end());
      if (run % 9 == 8) REQUIRE(session.set_state("h", std::span(y).first(h.size())).ok());
      if (run % 13 == 12) session.reset();
    }
    if (session.notes().empty()) CHECK(ways == ways_of(model, sample.spec, options, kRuns));
    return all;
  };
  CHECK(bit_difference(outcome(2), outcome(1)).empty());
}

}  // namespace
