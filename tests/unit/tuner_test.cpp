// SPDX-License-Identifier: Apache-2.0
/// tune() on tiny problems: there is always an answer, and never a wrong one.
#include "src/tune/tuner.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "src/compile.hpp"
#include "src/machine/saved_calibration.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/trial.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

ModelSpec spec_of(const char* problem) { return ModelSpec::parse(problem).value(); }

TuneOptions options_of(Effort effort, double seconds = 0.2) {
  TuneOptions options;
  options.effort = effort;
  options.seconds = seconds;
  return options;
}

bool emits() { return host_isa() != Isa::interpreter; }

/// What holds of every answer.
void check_answer(const ModelSpec& spec, const TuneResult& r) {
  REQUIRE_FALSE(r.candidates.empty());
  CHECK(r.schedule == r.candidates.front().schedule);
  CHECK(r.candidates.front().refused.empty());
  CHECK(r.measured_us == r.candidates.front().measured.median_us);
  CHECK(r.predicted_us > 0.0);
  CHECK(r.steps == spec.steps);
  std::set<std::string> seen;
  for (std::size_t i = 1; i < r.candidates.size(); ++i) {
    seen.insert(r.candidates[i].schedule.to_json());
  }
  CHECK(seen.size() == r.candidates.size() - 1);
  // Behind the first: timed ones by time, then those without a time, then refused ones.
  const auto place = [](const Candidate& c) {
    return !c.refused.empty() ? 2 : c.measured.rounds > 0 ? 0 : 1;
  };
  for (std::size_t i = 2; i < r.candidates.size(); ++i) {
    const Candidate& a = r.candidates[i - 1];
    const Candidate& b = r.candidates[i];
    CHECK(place(a) <= place(b));
    if (place(a) == 0 && place(b) == 0) CHECK(a.measured.median_us <= b.measured.median_us);
    if (place(b) == 2) CHECK(b.measured.rounds == 0);
  }
  CompileOptions options;
  options.threads = r.schedule.threads;
  options.schedule = r.schedule;
  CHECK(compile_program(spec, options).ok());
}

TEST_CASE("tune: measuring gives a timed answer for every kind of problem") {
  for (const char* problem : {"lstm:i4h8t5", "gru:i3h20b3t7,reset=before", "rnn:i2h4t3",
                              "lstm:i3h33l2bit4", "augru:i4h5t3", "lstm:i5h20p7b2t6"}) {
    INFO(problem);
    TuneOptions options = options_of(Effort::measure);
    options.threads = 2;
    options.candidates = 6;
    const auto r = tune(spec_of(problem), options);
    REQUIRE(r.ok());
    check_answer(spec_of(problem), *r);
    CHECK(r->candidates.size() <= 6);
    CHECK(r->schedule.threads <= 2);
    CHECK(r->effort == (emits() ? Effort::measure : Effort::estimate));
    if (emits()) CHECK(r->measured_us > 0.0);
  }
}

TEST_CASE("tune: an estimate runs nothing") {
  TuneOptions options = options_of(Effort::estimate, 10.0);
  int run = 0;
  options.tamper = [&](const Schedule&, std::vector<float>&) { ++run; };
  const ModelSpec spec = spec_of("lstm:i4h8t5");
  const auto r = tune(spec, options);
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK(run == 0);
  CHECK(r->effort == Effort::estimate);
  CHECK(r->measured_us == 0.0);
  CHECK_FALSE(r->stopped);
  CHECK(r->schedule == estimate_schedule(spec, host_isa(), 1, machine_model()).value());
  for (const Candidate& c : r->candidates) CHECK(c.measured.rounds == 0);
}

TEST_CASE("tune: exhaustive times every schedule that is left") {
  if (!emits()) return;
  const ModelSpec spec = spec_of("rnn:i2h8t4");
  const auto work = ModelWork::of(spec, host_isa()).value();
  const ScheduleSpace space(work, machine_model(), 1);
  std::set<std::string> all;
  space.for_each([&](const Schedule& s) {
    all.insert(s.to_json());
    return true;
  });
  const auto r = tune(spec, options_of(Effort::exhaustive, 30.0));
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK_FALSE(r->stopped);
  std::set<std::string> timed;
  for (const Candidate& c : r->candidates) {
    CHECK(c.measured.rounds > 0);
    timed.insert(c.schedule.to_json());
  }
  CHECK(timed == all);
  CHECK(all.size() > 24);  // more than one heat
}

TEST_CASE("tune: the time limit and stop hold while schedules are ranked") {
  if (!emits()) return;
  const ModelSpec spec = spec_of("lstm:i64h64l2");
  const auto work = ModelWork::of(spec, host_isa()).value();
  const ScheduleSpace space(work, machine_model(), 1);
  std::size_t all = 0;
  space.for_each([&](const Schedule&) { return ++all > 0; });
  REQUIRE(all > 10);
  TuneOptions none = options_of(Effort::exhaustive, 1e-9);
  TuneOptions stopped = options_of(Effort::exhaustive, 100.0);
  int asked = 0;
  stopped.stop = [&] { return ++asked > 5; };
  for (const TuneOptions& options : {none, stopped}) {
    const auto r = tune(spec, options);
    REQUIRE(r.ok());
    check_answer(spec, *r);
    CHECK(r->stopped);
    CHECK(r->candidates.size() <= 6);
  }
}

TEST_CASE("ranking: the best ones of any number, in order, and an end when it is told to") {
  const MachineModel machine = test::round_machine();
  const ModelSpec spec = spec_of("gru:i64h96b3t20");
  const auto work = ModelWork::of(spec, Isa::avx512, 4).value();
  const CostModel model(machine, Isa::avx512);
  const ScheduleSpace space(work, machine, 4);
  std::vector<std::pair<double, std::string>> expected;
  space.for_each([&](const Schedule& s) {
    expected.emplace_back(model.predict(work, s, 20.0).us, s.to_json());
    return true;
  });
  const auto visited = expected;
  const auto first = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::stable_sort(expected.begin(), expected.end(), first);
  const std::size_t count = expected.size();
  REQUIRE(count > 50);
  for (const std::size_t most :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, count, 2 * count}) {
    const auto ranked = rank_schedules(space, work, model, 20.0, most);
    REQUIRE(ranked.size() == std::min(most, count));
    for (std::size_t i = 0; i < ranked.size(); ++i) {
      CHECK(ranked[i].schedule.to_json() == expected[i].second);
      CHECK(ranked[i].predicted.us == expected[i].first);
    }
  }
  std::size_t asked = 0;
  const auto some = rank_schedules(space, work, model, 20.0, count, [&] { return ++asked > 10; });
  REQUIRE(some.size() == 10);
  CHECK(asked == 11);
  expected.assign(visited.begin(), visited.begin() + 10);
  std::stable_sort(expected.begin(), expected.end(), first);
  for (std::size_t i = 0; i < some.size(); ++i) {
    CHECK(some[i].schedule.to_json() == expected[i].second);
  }
}

TEST_CASE("tune: inputs and outputs that no memory holds are an error before they are made") {
  if (!emits()) return;
  const auto r = tune(spec_of("rnn:i1h1b1024t2147483647"), options_of(Effort::measure));
  REQUIRE_FALSE(r.ok());
  CHECK(r.error().kind() == ErrorKind::memory);
  // x, and three times y.
  CHECK(r.error().message().find("steps=2147483647, batch=1024: inputs and outputs take "
                                 "35184372072448 bytes, ") == 0);
  const auto both = TrialData::make(spec_of("augru:i3h2b1024t2147483647"), 1);
  REQUIRE_FALSE(both.ok());
  CHECK(both.error().message().find(" take 87960930181120 bytes, ") != std::string::npos);
}

TEST_CASE("tune: a candidate with wrong bits is refused and never ranked") {
  if (!emits()) return;
  const ModelSpec spec = spec_of("lstm:i4h8t5");
  // The last bit of one number of every candidate with a hoisted block.
  TuneOptions options = options_of(Effort::exhaustive);
  options.tamper = [](const Schedule& s, std::vector<float>& result) {
    if (s.layers[0].hoist_block > 0) result.back() = std::nextafter(result.back(), 9.0F);
  };
  const auto r = tune(spec, options);
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK(r->schedule.layers[0].hoist_block == 0);
  std::size_t refused = 0;
  for (const Candidate& c : r->candidates) {
    const bool wrong = c.schedule.layers[0].hoist_block > 0;
    if (c.refused.empty()) {
      CHECK((!wrong || c.measured.rounds == 0));
      continue;
    }
    ++refused;
    CHECK(wrong);
    CHECK(c.refused == "its result differs from that of the simplest schedule");
    CHECK(c.measured.rounds == 0);
  }
  CHECK(refused > 0);
}

TEST_CASE("tune: if all candidates are wrong the reference is the answer") {
  if (!emits()) return;
  const ModelSpec spec = spec_of("lstm:i4h8t5");
  TuneOptions options = options_of(Effort::measure, 5.0);
  options.tamper = [](const Schedule&, std::vector<float>& result) { result.pop_back(); };
  const auto r = tune(spec, options);
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK(r->measured_us == 0.0);
  CHECK(r->schedule.threads == 1);
  CHECK(r->schedule.layers[0].hoist_block == 0);
  for (std::size_t i = 1; i < r->candidates.size(); ++i) {
    CHECK_FALSE(r->candidates[i].refused.empty());
  }
}

TEST_CASE("tune: what is compared is y and all final states") {
  if (!emits()) return;
  TuneOptions options = options_of(Effort::measure);
  options.candidates = 2;
  int run = 0;
  options.tamper = [&](const Schedule&, std::vector<float>& result) {
    ++run;
    CHECK(result.size() == 5 * 8 + 2 * 8);  // y, h, c
  };
  REQUIRE(tune(spec_of("lstm:i4h8t5"), options).ok());
  CHECK(run == 2);
}

TEST_CASE("tune: stop at once still answers") {
  const ModelSpec spec = spec_of("lstm:i64h64");
  TuneOptions options = options_of(Effort::exhaustive, 100.0);
  options.stop = [] { return true; };
  const auto r = tune(spec, options);
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK(r->stopped == emits());
}

TEST_CASE("tune: stop during a race keeps what was found") {
  if (!emits()) return;
  const ModelSpec spec = spec_of("lstm:i64h64");
  TuneOptions options = options_of(Effort::exhaustive, 100.0);
  int rounds = 0;
  TuneProgress last;
  options.progress = [&](const TuneProgress& p) {
    last = p;
    ++rounds;
  };
  options.stop = [&] { return rounds >= 2; };
  const auto r = tune(spec, options);
  REQUIRE(r.ok());
  check_answer(spec, *r);
  CHECK(r->stopped);
  CHECK(rounds == 2);
  CHECK(r->measured_us > 0.0);
  CHECK(last.candidates == r->candidates.size());
  CHECK(last.rounds == 2);
  CHECK(last.best_us > 0.0);
  CHECK(last.left == static_cast<int>(last.candidates));
  CHECK(last.done >= 0.0);
  CHECK(last.done < 1.0);
}

TEST_CASE("tune: hardly any time still answers") {
  for (const Effort effort : {Effort::estimate, Effort::measure, Effort::exhaustive}) {
    const ModelSpec spec = spec_of("lstm:i64h64l2");
    const auto r = tune(spec, options_of(effort, 0.01));
    REQUIRE(r.ok());
    check_answer(spec, *r);
  }
}

TEST_CASE("tune: no steps, cold runs, the interpreter") {
  const ModelSpec none = spec_of("lstm:i4h8t0");
  const auto without = tune(none, options_of(Effort::measure, 0.05));
  REQUIRE(without.ok());
  check_answer(none, *without);

  const ModelSpec spec = spec_of("gru:i4h8b2t5");
  TuneOptions cold = options_of(Effort::measure);
  cold.cold = true;
  const auto evicted = tune(spec, cold);
  REQUIRE(evicted.ok());
  check_answer(spec, *evicted);
  if (emits()) CHECK(evicted->measured_us > 0.0);

  TuneOptions slow = options_of(Effort::measure);
  slow.isa = Isa::interpreter;
  const auto interpreted = tune(spec, slow);
  REQUIRE(interpreted.ok());
  check_answer(spec, *interpreted);
  CHECK(interpreted->schedule.isa == Isa::interpreter);
  CHECK(interpreted->effort == Effort::estimate);
  CHECK(interpreted->measured_us == 0.0);
}

TEST_CASE("tune: no more threads than processors, whatever the cap") {
  TuneOptions options = options_of(Effort::measure);
  options.threads = 1024;
  const auto r = tune(spec_of("lstm:i4h40t5"), options);
  REQUIRE(r.ok());
  const auto processors = static_cast<int>(machine().cpus.size());
  for (const Candidate& c : r->candidates) CHECK(c.schedule.threads <= processors);
}

TEST_CASE("tune: an estimate for another machine has its ISA and cores") {
  const MachineModel xeon = MachineModel::from(
      load_calibration(DEEPCPU_SOURCE_DIR "/bench/machines/xeon-e5-2650v4.json").value());
  TuneOptions options = options_of(Effort::estimate);
  options.machine = &xeon;
  options.threads = 64;
  const auto r = tune(spec_of("lstm:i1024h1024"), options);
  REQUIRE(r.ok());
  CHECK(r->schedule.isa == Isa::avx2);
  CHECK(r->schedule.threads > 1);
  CHECK(r->schedule.threads <= xeon.cores);
  const MachineModel round = test::round_machine();
  options.machine = &round;
  CHECK(tune(spec_of("lstm:i64h64"), options)->schedule.isa == Isa::avx512);
}

TEST_CASE("tune: bad options and specs are named") {
  const auto error = [](const ModelSpec& spec, const TuneOptions& options) {
    const auto r = tune(spec, options);
    return r.ok() ? std::string("no error") : r.error().message();
  };
  TuneOptions options = options_of(Effort::measure);
  options.threads = 0;
  CHECK(error(spec_of("lstm:i4h8"), options) == "threads=0: must be at least 1");
  options = options_of(Effort::measure, 0.0);
  CHECK(error(spec_of("lstm:i4h8"), options) == "seconds=0: must be above 0");
  options = options_of(Effort::measure, std::nan(""));
  CHECK(error(spec_of("lstm:i4h8"), options) == "seconds=nan: must be above 0");
  ModelSpec bad = spec_of("lstm:i4h8");
  bad.hidden[0] = -1;
  CHECK(error(bad, options_of(Effort::measure)) != "no error");
  CHECK(parse_effort("measure").value() == Effort::measure);
  CHECK(parse_effort("much").error().message() ==
        "effort=much: must be estimate, measure or exhaustive");
  CHECK(to_string(Effort::exhaustive) == "exhaustive");
}

}  // namespace
}  // namespace deepcpu
