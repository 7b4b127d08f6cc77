// SPDX-License-Identifier: Apache-2.0
/// Which participants run which layer and direction, and that no division changes a bit.
#include "src/runtime/program.hpp"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "src/compile.hpp"
#include "src/runtime/row_order.hpp"
#include "src/runtime/runner.hpp"
#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/random.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

Program build(const std::string& problem, int threads, Parallel parallel) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  return Program::build(spec, schedule_for(spec, Isa::interpreter, threads, parallel));
}

TEST_CASE("all participants share every step of a plain program") {
  const Program p = build("lstm:i4h8l3", 2, Parallel::none);
  CHECK(p.participants == 2);
  CHECK(p.group == 2);
  CHECK(p.handover_slots == 1);
  REQUIRE(p.steps.size() == 3);
  for (const ProgramStep& s : p.steps) {
    CHECK(p.runs_on(s, 0));
    CHECK(p.runs_on(s, 1));
    CHECK(!p.runs_on(s, 2));
  }
  CHECK(p.steps[0].producers.empty());
  CHECK(p.steps[1].producers == std::vector<int>{0});
  CHECK(p.steps[1].consumers == std::vector<int>{2});
  CHECK(p.steps[2].consumers.empty());
}

TEST_CASE("each direction has a participant of its own, one more has nothing to do") {
  const Program p = build("lstm:i4h8l2bi", 3, Parallel::directions);
  CHECK(p.participants == 2);
  CHECK(p.group == 1);
  CHECK(p.whole_sequence);
  REQUIRE(p.steps.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(p.steps[i].first == static_cast<int>(i % 2));
    CHECK(p.steps[i].reversed == (i % 2 == 1));
  }
  CHECK(p.steps[2].producers == std::vector<int>{0, 1});
  CHECK(p.steps[1].consumers == std::vector<int>{2, 3});
}

TEST_CASE("a wavefront gives ranges of layers to groups of participants, two blocks in between") {
  const Program p = build("lstm:i4h8l4", 2, Parallel::wavefront);
  CHECK(p.participants == 2);
  CHECK(p.handover_slots == 2);
  REQUIRE(p.steps.size() == 4);
  CHECK(p.steps[0].first == 0);
  CHECK(p.steps[1].first == 0);
  CHECK(p.steps[2].first == 1);
  CHECK(p.steps[3].first == 1);
  const Program wide = build("lstm:i4h8l3", 8, Parallel::wavefront);
  CHECK(wide.group == 2);
  CHECK(wide.participants == 6);
  CHECK(wide.steps[2].first == 4);
  // A spec without a second layer or direction has no use for groups.
  CHECK(build("lstm:i4h8", 3, Parallel::wavefront).group == 3);
  CHECK(build("lstm:i4h8", 3, Parallel::directions).group == 3);
}

TEST_CASE("an order of rows says whether it has changed") {
  RowOrder order(2);
  const std::vector<std::int64_t> lengths = {2, 7};
  CHECK(!order.set({}, 0));  // as it is made
  CHECK(order.set({}, 9));
  CHECK(!order.set({}, 9));
  CHECK(order.set(lengths, 9));
  CHECK(order.set(lengths, 9));
  CHECK(order.set({}, 9));
  CHECK(order.set({}, 0));
}

TEST_CASE("rows are sorted by length, longest first, equal ones in their order") {
  RowOrder order(5);
  const std::vector<std::int64_t> lengths = {2, 7, 0, 7, 3};
  CHECK(order.set(lengths, 9));
  CHECK(order.ragged());
  CHECK(order.longest() == 7);
  const std::vector<std::int64_t> rows = {1, 3, 4, 0, 2};
  for (std::int64_t i = 0; i < 5; ++i) {
    CHECK(order.row(i) == rows[static_cast<std::size_t>(i)]);
    CHECK(order.length(i) == lengths[static_cast<std::size_t>(rows[static_cast<std::size_t>(i)])]);
  }
  CHECK(order.live(0) == 4);
  CHECK(order.live(2) == 3);
  CHECK(order.live(6) == 2);
  CHECK(order.live(7) == 0);
  std::vector<std::int32_t> live(6);
  order.live(2, live);
  CHECK(live == std::vector<std::int32_t>{3, 2, 2, 2, 2, 0});
  CHECK(order.set({}, 9));
  CHECK(!order.ragged());
  CHECK(order.longest() == 9);
  CHECK(order.row(4) == 4);
  CHECK(order.live(8) == 5);
  // Sorted in between, and again as it was.
  CHECK(order.set(std::vector<std::int64_t>{1, 9, 2, 9, 3}, 9));
  CHECK(order.row(0) == 1);
  CHECK(order.live(8) == 2);
  CHECK(order.set({}, 9));
  CHECK(order.row(0) == 0);
  CHECK(order.live(8) == 5);
}

TEST_CASE("the order of many rows is that of a stable sort, and every step counts its rows") {
  Random random(17);
  for (int round = 0; round < 50; ++round) {
    const std::int64_t batch = random.range(1, 1024);
    const std::int64_t steps = random.range(0, 40);
    std::vector<std::int64_t> lengths;
    for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(random.range(0, steps));
    RowOrder order(batch);
    REQUIRE(order.set(lengths, steps));
    std::vector<std::int64_t> expected(lengths.size());
    std::iota(expected.begin(), expected.end(), 0);
    const auto of = [&](std::int64_t row) { return lengths[static_cast<std::size_t>(row)]; };
    std::stable_sort(expected.begin(), expected.end(),
                     [&](std::int64_t a, std::int64_t b) { return of(a) > of(b); });
    for (std::int64_t i = 0; i < batch; ++i) {
      REQUIRE(order.row(i) == expected[static_cast<std::size_t>(i)]);
      REQUIRE(order.length(i) == of(order.row(i)));
    }
    std::vector<std::int32_t> live(static_cast<std::size_t>(steps));
    order.live(0, live);
    for (std::int64_t t = 0; t < steps; ++t) {
      const auto longer = std::count_if(lengths.begin(), lengths.end(),
                                        [&](std::int64_t length) { return length > t; });
      REQUIRE(live[static_cast<std::size_t>(t)] == longer);
      REQUIRE(order.live(t) == longer);
    }
  }
}

TEST_CASE("a run is divided evenly into as few blocks as there can be") {
  for (std::int64_t steps = 0; steps <= 300; ++steps) {
    for (std::int64_t most = 1; most <= 32; ++most) {
      const Blocks blocks = Blocks::even(steps, most);
      REQUIRE(blocks.count() == (steps + most - 1) / most);
      REQUIRE(blocks.begin(0) == 0);
      REQUIRE(blocks.begin(blocks.count()) == steps);
      REQUIRE(blocks.longest() >= 1);
      for (std::int64_t b = 0; b < blocks.count(); ++b) {
        REQUIRE(blocks.size(b) <= std::min(most, blocks.longest()));
        REQUIRE(2 * blocks.size(b) >= blocks.longest());
        REQUIRE(blocks.size(b) >= 1);
      }
    }
  }
}

TEST_CASE("products ahead need full blocks") {
  const ModelSpec spec = ModelSpec::parse("lstm:i8h8").value();
  Schedule schedule = schedule_for(spec, Isa::interpreter, 1, Parallel::none);
  schedule.layers[0].hoist_block = 8;
  const Blocks even = Program::build(spec, schedule).blocks_of(25);
  CHECK(even.size(0) == 7);
  CHECK(even.size(3) == 4);
  schedule.layers[0].hoist_ahead = true;
  const Blocks full = Program::build(spec, schedule).blocks_of(25);
  CHECK(full.size(0) == 8);
  CHECK(full.size(3) == 1);
}

TEST_CASE("pieces: every panel stands in one part, and no cache line of sums in two") {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const char* problem :
         {"lstm:i8h100", "gru:i8h48,reset=before", "rnn:i8h64", "lstm:i8h8"}) {
      const ModelSpec spec = ModelSpec::parse(problem).value();
      CompileOptions options;
      options.threads = 2;
      options.schedule = schedule_for(spec, isa, 2, Parallel::hoist);
      const auto c = compile_program(spec, options);
      REQUIRE(c.ok());
      const jit::KernelPlan& plan = c->layers[0].hoist->bound.plan;
      const PanelOrders& pieces = *c->layers[0].shared_panels.pieces;
      INFO(problem << " " << pieces.parts());
      for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        const jit::Stage& stage = plan.stages[s];
        std::uint32_t next = 0;
        for (int part = 0; part < pieces.parts(); ++part) {
          const jit::PanelRange& range = pieces.of(part)[s];
          CHECK(next * stage.units_per_panel * plan.lanes % 16 == 0);
          for (std::uint64_t i = 0; i < range.count; ++i) CHECK(range.order[0][i] == next++);
          if (plan.stages.size() == 1) CHECK(range.count > 0);
        }
        CHECK(next == plan.panels(stage));
      }
    }
  }
}

TEST_CASE("one participant runs the time loop, the others hoisted products only") {
  const Program p = build("lstm:i4h8", 3, Parallel::hoist);  // blocks of 4 steps
  CHECK(p.participants == 3);
  CHECK(p.hoisters == 2);
  CHECK(p.group == 1);
  CHECK(p.panel_parts(100) == 6);  // two pieces per participant and block
  CHECK(p.panel_parts(4) == 4);
  CHECK(p.panel_parts(0) == 1);
  CHECK(p.piece_steps(4, 6) == 4);  // panels are enough, so each piece has all steps
  CHECK(p.piece_steps(4, 4) == 2);  // 4 parts of the panels and 2 of the steps
  CHECK(p.piece_steps(4, 1) == 1);
  CHECK(p.piece_steps(3, 6) == 3);
  CHECK(p.piece_steps(1, 1) == 1);
  REQUIRE(p.steps.size() == 1);
  CHECK(p.runs_on(p.steps[0], 0));
  CHECK(!p.runs_on(p.steps[0], 1));
  CHECK(p.sharing(Exchange::flag).hoisters);
  CHECK(!build("lstm:i4h8", 3, Parallel::none).sharing(Exchange::flag).hoisters);
}

Schedule split(const ModelSpec& spec, int threads, int parts, Parallel parallel = Parallel::none) {
  Schedule s = schedule_for(spec, Isa::interpreter, threads, parallel);
  s.split_rows = parts;
  return s;
}

TEST_CASE("parts of the batch rows run on groups of participants of their own") {
  const ModelSpec spec = ModelSpec::parse("lstm:i4h8l2b7").value();
  const Program p = Program::build(spec, split(spec, 6, 3));
  CHECK(p.participants == 6);
  CHECK(p.group == 2);
  CHECK(p.row_parts == 3);
  CHECK(p.part_rows(7) == 3);
  CHECK(p.rows_of_part(1, 7) == 2);
  CHECK(p.rows_of_part(2, 7) == 2);
  CHECK(p.rows_of_part(2, 2) == 0);
  CHECK(p.rows_of_part(1, 0) == 0);
  REQUIRE(p.steps.size() == 2);
  CHECK(p.steps[1].first == 0);
  CHECK(p.runs_on(p.steps[0], 5));
  CHECK(!p.runs_on(p.steps[0], 6));
  CHECK(p.sharing(Exchange::flag).participants == 2);
  const ModelSpec both = ModelSpec::parse("lstm:i4h8bib4").value();
  const Program ways = Program::build(both, split(both, 4, 2, Parallel::directions));
  CHECK(ways.group == 1);
  CHECK(ways.steps[1].first == 2);
  // One thread runs all parts.
  Schedule serial = split(spec, 1, 3);
  CHECK(Program::build(spec, serial).participants == 1);
  CHECK(Program::build(spec, serial).row_parts == 3);
}

TEST_CASE("parts of the batch rows are refused by name where they cannot be") {
  const auto refusal = [](const std::string& problem, const Schedule& schedule) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    CompileOptions options;
    options.threads = schedule.threads;
    options.schedule = schedule;
    const auto compiled = compile_program(spec, options);
    return compiled ? std::string() : compiled.error().message();
  };
  const ModelSpec one = ModelSpec::parse("lstm:i4h8b4").value();
  const ModelSpec both = ModelSpec::parse("lstm:i4h8bib4").value();
  CHECK(refusal("lstm:i4h8b4", split(one, 2, 2)).empty());
  CHECK(refusal("lstm:i4h8b1", split(one, 2, 2)).empty());
  CHECK(refusal("lstm:i4h8b4", split(one, 2, 2, Parallel::hoist)) ==
        "schedule.split_rows=2: needs another value of parallel than hoist");
  CHECK(refusal("lstm:i4h8bib4", split(both, 3, 2, Parallel::directions)) ==
        "schedule.split_rows=2: needs a thread for each part of each direction or range of layers");
  Schedule ahead = split(one, 2, 2);
  ahead.layers[0].hoist_block = 8;
  ahead.layers[0].hoist_ahead = true;
  CHECK(refusal("lstm:i4h8b1", ahead) == "schedule.split_rows=2: needs hoist_ahead=false");
}

TEST_CASE("parts of the batch rows: on one thread, too, a model gives the same bits") {
  for (const std::string problem : {"lstm:i9h20l2b5t7", "gru:i9h20bib4t7", "rnn:i9h20l2bib3t7"}) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    const Weights weights = Weights::random(spec, 3).value();
    const auto run = [&](const Schedule& schedule, bool serial) {
      CompileOptions options;
      options.threads = schedule.threads;
      options.schedule = schedule;
      auto model = std::make_shared<CompiledModel>();
      model->compiled = compile_program(spec, options).value();
      if (serial) model->compiled.program = model->compiled.serial_program;
      if (serial) {
        for (LayerCode& l : model->compiled.layers) l.shared_panels = std::move(l.serial_panels);
      }
      model->packed = pack_weights(model->compiled, weights).value();
      Runner runner(model, Layout::time_major, 7);
      std::vector<float> x(static_cast<std::size_t>(7 * spec.batch * spec.input));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) * 0.1F;
      std::vector<float> y(static_cast<std::size_t>(7 * spec.batch * spec.output_width()));
      RunInput in;
      in.x = x.data();
      in.y = y.data();
      in.steps = 7;
      runner.run(in);
      return y;
    };
    const Schedule plain = schedule_for(spec, Isa::interpreter, 1, Parallel::none);
    const std::vector<float> expected = run(plain, false);
    INFO(problem);
    CHECK(run(split(spec, 2, 2), false) == expected);
    CHECK(run(split(spec, 3, 3), false) == expected);
    CHECK(run(split(spec, 2, 2), true) == expected);
  }
}

TEST_CASE("parallel=hoist is refused by name where it cannot be") {
  const auto refusal = [](const std::string& problem, int threads, auto edit) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    CompileOptions options;
    options.threads = threads;
    options.schedule = schedule_for(spec, Isa::interpreter, threads, Parallel::hoist);
    edit(options.schedule->layers[0]);
    const auto compiled = compile_program(spec, options);
    return compiled ? std::string() : compiled.error().message();
  };
  const auto as_it_is = [](LayerSchedule&) {};
  CHECK(refusal("lstm:i4h8", 2, as_it_is).empty());
  const std::string one = "schedule.parallel=hoist: needs one layer and one direction";
  CHECK(refusal("lstm:i4h8l2", 2, as_it_is) == one);
  CHECK(refusal("lstm:i4h8bi", 2, as_it_is) == one);
  CHECK(refusal("lstm:i4h8rev", 2, as_it_is).empty());
  CHECK(refusal("lstm:i4h8", 1, as_it_is) == "schedule.parallel=hoist: needs threads > 1");
  CHECK(refusal("lstm:i4h8", 2, [](LayerSchedule& l) { l.hoist_block = 0; }) ==
        "schedule.parallel=hoist: needs hoist_block > 0");
  CHECK(refusal("lstm:i4h8", 2, [](LayerSchedule& l) {
          l.hoist_block = 8;
          l.hoist_ahead = true;
        }) == "schedule.parallel=hoist: needs hoist_ahead=false");
}

TEST_CASE("parallel=hoist: dense runs and runs with lengths follow each other in one session") {
  const Sample s = Sample::make("lstm:i5h18b2t19");
  const std::vector<std::int64_t> lengths = {19, 11};
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    const Model alone = compile_for(s, isa, 1);
    const Model shared = compile_for(s, isa, 2, Parallel::hoist);
    Session a = alone.session().value();
    Session b = shared.session().value();
    for (int i = 0; i < 60; ++i) {
      std::vector<float> expected(s.y_size());
      std::vector<float> actual(s.y_size());
      const auto of = std::span<const std::int64_t>(lengths).first(i % 2 == 1 ? 2 : 0);
      a.run(s.x, expected, {}, of).value();
      b.run(s.x, actual, {}, of).value();
      INFO(to_string(isa) << " run " << i);
      REQUIRE(bit_difference(actual, expected).empty());
    }
  }
}

struct Case {
  const char* problem;
  int threads;
  Parallel parallel;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> table = {
      {"lstm:i5h40b2t19", 2, Parallel::none},
      {"gru:i5h40l2t19,reset=before", 3, Parallel::none},
      {"lstm:i5h18bib2t13", 2, Parallel::directions},
      {"gru:i5h18l2bib2t13", 2, Parallel::directions},
      {"rnn:i5h18l3b2t29", 2, Parallel::wavefront},
      {"lstm:i5h33l2t29", 4, Parallel::wavefront},
      {"lstm:i5h40t19", 2, Parallel::hoist},
      {"gru:i5h40t41", 3, Parallel::hoist},
      {"gru:i5h18b3t17,reset=before", 2, Parallel::hoist},
      {"lstm:i5h18revb2t3", 2, Parallel::hoist},
  };
  return table;
}

/// First difference of a number of runs with threads from the same runs on one.
std::string compare(const Case& c, Isa isa, int runs) {
  const Sample s = Sample::make(c.problem);
  const Model alone = compile_for(s, isa, 1);
  const Model shared = compile_for(s, isa, c.threads, c.parallel);
  Session a = alone.session(Layout::time_major, s.spec.steps).value();
  Session b = shared.session(Layout::time_major, s.spec.steps).value();
  if (!b.notes().empty()) return b.notes().front();
  for (int i = 0; i < runs; ++i) {
    std::vector<float> expected(s.y_size());
    std::vector<float> actual(s.y_size());
    a.run(s.x, expected).value();
    b.run(s.x, actual).value();
    const std::string difference = bit_difference(actual, expected);
    if (!difference.empty()) return "run " + std::to_string(i) + ": " + difference;
  }
  return {};
}

TEST_CASE("every division of a program gives the bits of one thread, run after run") {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Case& c : cases()) {
      INFO(c.problem << " " << to_string(isa) << " threads " << c.threads);
      CHECK(compare(c, isa, isa == Isa::interpreter ? 3 : 20).empty());
    }
  }
}

TEST_CASE("sessions of one model on several threads at once do not disturb each other") {
  const Sample s = Sample::make("lstm:i5h40l2b2t12");
  const Model model = compile_for(s, host_isa(), 2);
  const std::vector<float> expected = run_once(model, s);
  std::atomic<int> wrong{0};
  std::vector<std::thread> users;
  for (int u = 0; u < 3; ++u) {
    users.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        if (!bit_difference(run_once(model, s), expected).empty()) ++wrong;
      }
    });
  }
  for (std::thread& u : users) u.join();
  CHECK(wrong == 0);
}

TEST_CASE("two processes with two threads each on the same processors make progress", "[fork]") {
  const auto body = [] {
    return compare({"lstm:i5h40l2b2t200", 2, Parallel::none}, host_isa(), 5).empty() ? 0 : 1;
  };
  const pid_t first = start_child(body);
  const pid_t second = start_child(body);
  CHECK(wait_for(first).status == 0);
  CHECK(wait_for(second).status == 0);
}

TEST_CASE("threads that are interrupted all the time give the bits of one") {
  std::atomic<bool> over{false};
  std::vector<std::thread> hogs;
  for (int i = 0; i < 2; ++i) {
    hogs.emplace_back([&] {
      while (!over.load(std::memory_order_relaxed)) {
      }
    });
  }
  std::string failure;
  for (const Case& c : cases()) {
    if (failure.empty()) failure = compare(c, host_isa(), 1);
  }
  over = true;
  for (std::thread& hog : hogs) hog.join();
  CHECK(failure.empty());
}

}  // namespace
