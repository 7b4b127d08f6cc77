// SPDX-License-Identifier: Apache-2.0
#include "src/tune/explain.hpp"

#include <set>

#include "src/machine/machine_json.hpp"
#include "src/tune/tuner.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace {

using namespace deepcpu;

MachineModel xeon() {
  const auto text =
      read_machine_file(DEEPCPU_SOURCE_DIR "/bench/machines/xeon-e5-2650v4.json").value();
  return model_from_json(text).value();
}

Explanation explain_there(const char* problem, int threads) {
  const MachineModel machine = xeon();
  ExplainOptions options;
  options.threads = threads;
  options.machine = &machine;
  return explain(ModelSpec::parse(problem).value(), options).value();
}

/// A problem's explanation with figures worked out by hand.
Explanation by_hand() {
  Explanation e;
  e.spec = ModelSpec::parse("lstm:i8h8").value();
  e.machine = xeon();
  e.isa = Isa::avx2;
  e.steps = 100;
  e.schedule.isa = Isa::avx2;
  e.schedule.layers.resize(1);
  e.predicted.us = 100.0;
  e.predicted.parts.products = 90.0;
  e.predicted.parts.exchange = 10.0;
  e.predicted.level_bytes = {0.0, 1e6, 2e6, 0.0};
  return e;
}

}  // namespace

TEST_CASE("explain: what lies behind a choice is said by what differs", "[explain]") {
  const Explanation e = by_hand();
  Alternative a{e.schedule, "", e.predicted, {}, 0.0, ""};
  CHECK(why_not(e, a) == "the cost model sees no difference");
  a.predicted.us = 132.0;
  a.predicted.parts.products = 110.0;
  a.predicted.parts.exchange = 22.0;
  a.predicted.level_bytes = {0.0, 1e6, 4.1e6, 0.0};
  CHECK(why_not(e, a) ==
        "predicted 32 us more: 20 us more products, 12 us more exchange, reads "
        "2.1 MB more from l3");
  a.predicted.us = 108.0;
  a.predicted.parts.products = 110.0;
  a.predicted.parts.exchange = 0.0;
  a.predicted.parts.gates = -2.0;
  a.predicted.level_bytes = e.predicted.level_bytes;
  CHECK(why_not(e, a) == "predicted 8 us more: 20 us more products, 10 us less exchange");
}

TEST_CASE("explain: timed differences come first", "[explain]") {
  Explanation e = by_hand();
  e.raced = {50.0, 0.01, 1.25, 9};
  Alternative a{e.schedule, "", e.predicted, {54.0, 0.01, 1.35, 9}, 54.0, ""};
  CHECK(why_not(e, a) == "timed 8.0 % slower; the cost model sees no difference");
  a.measured.ratio = 1.0;
  CHECK(why_not(e, a) == "timed 20.0 % faster; the cost model sees no difference");
  a.measured.rounds = 4;
  CHECK(why_not(e, a) == "left the race after 4 rounds; the cost model sees no difference");
  a.measured.ratio = 1.5;
  CHECK(why_not(e, a) ==
        "timed 20.0 % slower in 4 rounds, then left; the cost model sees no "
        "difference");
  a.measured.rounds = 9;
  a.measured.ratio = 1.26;
  CHECK(why_not(e, a) == "timed as fast; the cost model sees no difference");
}

TEST_CASE("explain: a schedule that promises too little for its threads says so", "[explain]") {
  const Explanation e = by_hand();
  Alternative a{e.schedule, "", e.predicted, {}, 0.0, ""};
  a.schedule.threads = 2;
  a.predicted.us = 99.0;
  a.predicted.parts.products = 85.0;
  CHECK(why_not(e, a) ==
        "predicted 1 us less: 5 us less products; further threads must gain 2 % "
        "by prediction even if exchanges take 50 % longer");
  a.predicted.us = 85.0;
  CHECK(why_not(e, a) == "predicted 15 us less: 5 us less products");
  a.predicted.journeys_us = 30.0;
  CHECK(why_not(e, a) ==
        "predicted 15 us less: 5 us less products; further threads must gain 2 % "
        "by prediction even if exchanges take 50 % longer");
}

TEST_CASE("explain: a faster schedule that unequal cores would cost more says so", "[explain]") {
  Explanation e = by_hand();
  e.schedule.threads = 2;
  e.predicted.even = true;
  Alternative a{e.schedule, "", e.predicted, {}, 0.0, ""};
  a.predicted.us -= 1.0;
  a.predicted.parts.products -= 1.0;
  CHECK(why_not(e, a) == "predicted 1 us less: 1 us less products");
  a.predicted.even = false;
  CHECK(why_not(e, a) ==
        "predicted 1 us less: 1 us less products; not chosen, as unequal cores would cost it more "
        "(3 % are allowed)");
}

TEST_CASE("explain: differences name decisions and their values", "[explain]") {
  Schedule a;
  a.layers.resize(2);
  Schedule b = a;
  CHECK(differences(a, b).empty());
  b.threads = 4;
  b.exchange = Exchange::data;
  for (LayerSchedule& l : b.layers) l.hoist_block = 16;
  b.layers[0].hoist_rows = b.layers[1].hoist_rows = 4;
  CHECK(differences(a, b) == "threads 4, exchange data, hoist_block 16, hoist_rows 4");
  b = a;
  b.layers[1].sweep = Sweep::forward;
  CHECK(differences(a, b) == "layers[1].sweep forward");
}

TEST_CASE("explain: schedules in words", "[explain]") {
  const ModelSpec spec = ModelSpec::parse("lstm:i8h8l3b4").value();
  Schedule s;
  s.layers.resize(3);
  s.layers[2].hoist_block = 32;
  const std::string words = in_words(s, spec);
  CHECK(words.find("one thread does everything\n") == 0);
  CHECK(words.find("\nlayers 0 to 1: x*W stays inside the time loop") != std::string::npos);
  CHECK(words.find("\nlayer 2: x*W is hoisted: computed for up to 32 steps") != std::string::npos);
  s.threads = 6;
  s.parallel = Parallel::wavefront;
  CHECK(in_words(s, spec).find("6 threads in 3 groups") == 0);
  s.parallel = Parallel::none;
  CHECK(in_words(s, spec).find("Xi*Xj*Xk = 1*6*1") != std::string::npos);
  s.split_rows = 2;
  CHECK(in_words(s, spec).find("Xi*Xj*Xk = 2*3*1") != std::string::npos);
  s.split_rows = 6;
  CHECK(in_words(s, spec).find("6 threads divide the batch rows (Xi*Xj*Xk = 6*1*1); each of 6") ==
        0);
  s.parallel = Parallel::wavefront;
  s.split_rows = 2;
  CHECK(in_words(s, spec).find("6 threads in 3 groups") == 0);
  CHECK(in_words(s, spec).find("each of 2 parts of the batch rows") != std::string::npos);
  CHECK(in_words(s, spec).find("flag") == std::string::npos);  // nobody shares units
  Schedule whole = s;
  whole.split_rows = 1;
  CHECK(differences(s, whole) == "split_rows 1");
}

TEST_CASE("explain: for a described machine nothing is run", "[explain]") {
  const Explanation e = explain_there("lstm:i64h64t100", 12);
  CHECK(e.isa == Isa::avx2);
  CHECK(e.schedule.isa == Isa::avx2);
  CHECK_FALSE(e.measured);
  CHECK_FALSE(e.not_measured.empty());
  CHECK(e.fraction() == Approx(e.limit.us / e.predicted.us));
  CHECK(e.fraction() < 1.0);
  CHECK(e.limit.us <= e.over_threads.front().limit_us);
  for (const ThreadPoint& p : e.over_threads) {
    CHECK(p.measured_us == 0.0);
    CHECK(p.predicted_us >= p.limit_us);
  }
}

TEST_CASE("explain: parts, bytes and FLOPs add up", "[explain]") {
  for (const char* problem : {"lstm:i64h256", "gru:i64h64b3,reset=before", "lstm:i32h64l3bi",
                              "lstm:i64h41", "lstm:i33h36b3"}) {
    CAPTURE(problem);
    const Explanation e = explain_there(problem, 12);
    CHECK(e.predicted.us == Approx(e.predicted.parts.total()));
    const Prediction& p = e.predicted;
    for (std::size_t l = 0; l < p.level_bytes.size(); ++l) {
      CHECK(p.level_bytes[l] == Approx(p.hoisted.level_bytes[l] + p.in_loop.level_bytes[l]));
    }
    CHECK(p.flops >= p.hoisted.flops + p.in_loop.flops);
    double busiest = 0.0;
    for (const CostParts& group : e.groups) busiest = std::max(busiest, group.total());
    CHECK(busiest <= e.predicted.us);
    CHECK(busiest > 0.0);
  }
}

TEST_CASE("explain: FLOPs and bytes of the busiest thread belong together", "[explain]") {
  // 32 panels over 12 threads: the busiest has 3 of them. One row: two operations per weight.
  const Explanation e = explain_there("lstm:i64h256t100", 12);
  REQUIRE(e.schedule.threads == 12);
  double bytes = 0.0;
  for (const double b : e.predicted.in_loop.level_bytes) bytes += b;
  CHECK(bytes == Approx(100.0 * 3 * 8 * 4 * 256 * 4));
  CHECK(e.predicted.in_loop.flops == Approx(bytes / 4 * 2));
  CHECK(e.predicted.flops == Approx(100.0 * 2 * 4 * 256 * (256 + 64)));
}

TEST_CASE("explain: alternatives differ from the schedule and from each other", "[explain]") {
  const Explanation e = explain_there("lstm:i64h256b2", 12);
  std::set<std::string> seen = {e.schedule.to_json()};
  bool other_threads = false;
  for (const Alternative& a : e.alternatives) {
    CHECK(seen.insert(a.schedule.to_json()).second);
    CHECK_FALSE(a.differs.empty());
    CHECK_FALSE(a.why.empty());
    other_threads = other_threads || a.schedule.threads != e.schedule.threads;
  }
  CHECK(other_threads);
  CHECK(e.alternatives.size() > 5);
}

TEST_CASE("explain: no thread is without a share", "[explain]") {
  const MachineModel machine = xeon();
  // 64 units are 8 vectors; of an LSTM each can be owned by a thread of its own.
  const ModelSpec spec = ModelSpec::parse("lstm:i64h64").value();
  const ModelWork work = ModelWork::of(spec, Isa::avx2).value();
  REQUIRE(work.layers[0].shares(8) == 8);
  std::set<int> counts;
  ScheduleSpace(work, machine, 12).for_each([&](const Schedule& s) {
    if (s.parallel != Parallel::hoist) counts.insert(s.threads);
    return true;
  });
  CHECK(counts == std::set<int>{1, 2, 4, 8});
  // 40 units are 5 shares.
  const ModelSpec five = ModelSpec::parse("lstm:i64h40").value();
  const ModelWork its = ModelWork::of(five, Isa::avx2).value();
  counts.clear();
  ScheduleSpace(its, machine, 12).for_each([&](const Schedule& s) {
    if (s.parallel != Parallel::hoist) counts.insert(s.threads);
    return true;
  });
  CHECK(counts == std::set<int>{1, 2, 4, 5});
}

TEST_CASE("explain: a given schedule is explained, an illegal one refused", "[explain]") {
  const MachineModel machine = xeon();
  const ModelSpec spec = ModelSpec::parse("lstm:i64h64").value();
  ExplainOptions options;
  options.machine = &machine;
  options.threads = 4;
  options.schedule = Schedule{};
  options.schedule->isa = Isa::avx2;
  options.schedule->layers.resize(1);
  const Explanation e = explain(spec, options).value();
  CHECK(e.schedule == *options.schedule);
  CHECK(e.chosen_by == "given");
  options.schedule->threads = 8;
  CHECK(explain(spec, options).error().message().find("schedule.threads=8: ") == 0);
  options.schedule->threads = 1;
  options.schedule->isa = Isa::avx512;
  CHECK(explain(spec, options).error().message().find("schedule.isa=avx512: ") == 0);
  options.schedule->isa = Isa::avx2;
  options.schedule->layers[0].weights = Residency::registers;
  CHECK_FALSE(explain(spec, options));
  options.schedule->layers.clear();
  CHECK_FALSE(explain(spec, options));
  options.schedule.reset();
  options.threads = 0;
  CHECK(explain(spec, options).error().message() == "threads=0: must be at least 1");
}

TEST_CASE("explain: a given schedule may have more threads than the machine has cores",
          "[explain]") {
  MachineModel machine = test::round_machine();
  machine.cores = 2;
  ExplainOptions options;
  options.machine = &machine;
  options.threads = 4;
  options.schedule = Schedule{};
  options.schedule->isa = Isa::avx512;
  options.schedule->threads = 4;
  options.schedule->layers.resize(1);
  options.schedule->layers[0].hoist_block = 16;
  options.schedule->layers[0].hoist_ahead = true;  // with the panels of four
  const auto e = explain(ModelSpec::parse("gru:i96h96").value(), options);
  INFO((e.ok() ? "" : e.error().message()));
  CHECK(e.ok());
}

TEST_CASE("explain: tuning for a described machine takes its instruction set", "[explain]") {
  const MachineModel machine = xeon();
  TuneOptions options;
  options.effort = Effort::estimate;
  options.machine = &machine;
  const auto tuned = tune(ModelSpec::parse("lstm:i64h64").value(), options).value();
  CHECK(tuned.schedule.isa == Isa::avx2);
}

TEST_CASE("explain: what is left of a run", "[explain]") {
  PartTimes t;
  t.run.median_us = 100.0;
  t.calls_us = 2.0;
  t.participants = {{10.0, 60.0, 5.0}, {12.0, 66.0, 6.0}};
  CHECK(t.busiest() == 1);
  CHECK(t.rest_us() == Approx(20.0));
}

TEST_CASE("explain: parts of every way to share a run are measured", "[explain]") {
  if (host_isa() == Isa::interpreter) return;
  struct Case {
    const char* problem;
    int threads;
    Parallel parallel;
    int hoist_block;
  };
  const Case cases[] = {{"lstm:i40h40t20", 1, Parallel::none, 8},
                        {"gru:i24h72b2t9,reset=before", 2, Parallel::none, 4},
                        // Two that share it cut its panels narrower than one would.
                        {"gru:i24h64t9,reset=before", 2, Parallel::none, 4},
                        {"lstm:i16h32bit9", 2, Parallel::directions, 0},
                        {"gru:i16h32l3t9", 2, Parallel::wavefront, 4},
                        {"lstm:i16h32t9", 2, Parallel::hoist, 4}};
  for (const Case& c : cases) {
    CAPTURE(c.problem);
    const ModelSpec spec = ModelSpec::parse(c.problem).value();
    Schedule s;
    s.isa = host_isa();
    s.threads = c.threads;
    s.parallel = c.parallel;
    s.layers.resize(static_cast<std::size_t>(spec.layers()));
    for (LayerSchedule& l : s.layers) l.hoist_block = c.hoist_block;
    const TrialData data = TrialData::make(spec, 1).value();
    const PartTimes t = measure_parts(data, s, 0.01).value();
    CHECK(t.participants.size() == static_cast<std::size_t>(c.threads));
    CHECK(t.run.rounds > 0);
    CHECK(t.run.median_us > 0.0);
    for (const OwnTimes& own : t.participants) {
      const bool hoister = c.parallel == Parallel::hoist && &own != &t.participants.front();
      // A difference of measured times: under load that of a short loop can come out as zero.
      CHECK((hoister ? own.loop_us == 0.0 : own.loop_us >= 0.0));
      CHECK((own.hoist_us == 0.0 || c.hoist_block > 0));
    }
  }
}
