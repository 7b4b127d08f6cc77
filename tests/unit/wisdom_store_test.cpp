// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_store.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/wisdom_entries.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

using test::TempDir;
using test::wisdom_entry;
using test::wisdom_of;
using test::write_bytes;

/// No entry before and after.
class Empty {
 public:
  Empty() { wisdom::forget(); }
  ~Empty() { wisdom::forget(); }
  Empty(const Empty&) = delete;
  Empty& operator=(const Empty&) = delete;
};

Result<Model> compile(const ModelSpec& spec, const CompileOptions& options = {}) {
  const auto weights = Weights::random(spec, 1);
  return Model::compile(spec, weights.value(), options);
}

Schedule schedule_of(std::string_view problem, const CompileOptions& options = {}) {
  return compile(ModelSpec::parse(problem).value(), options).value().schedule();
}

/// Steps per block that no estimate takes.
constexpr int kOdd = 37;

int block_of(std::string_view problem, const CompileOptions& options = {}) {
  return schedule_of(problem, options).layers[0].hoist_block;
}

TEST_CASE("wisdom: a compile without a schedule uses the entry for exactly its key") {
  const Empty guard;
  REQUIRE(block_of("gru:i8h16b3") != kOdd);
  REQUIRE(wisdom::add(wisdom_entry("gru:i8h16b3", 1, kOdd)).ok());
  CHECK(wisdom::size() == 1);
  for (const char* same : {"gru:i8h16b3", "gru:i8h16b2t16", "gru:i8h16b4"}) {
    CHECK(block_of(same) == kOdd);
  }
  for (const char* other :
       {"gru:i8h16", "gru:i8h16b5", "gru:i8h16b3t15", "gru:i8h16b3t1", "gru:i8h17b3",
        "gru:i8h16b3bi", "gru:i8h16b3,reset=before", "rnn:i8h16b3"}) {
    CHECK(block_of(other) != kOdd);
  }
  CompileOptions own;
  own.schedule = wisdom_entry("gru:i8h16b3", 1, 5).schedule;
  CHECK(block_of("gru:i8h16b3", own) == 5);
  if (machine().isa != Isa::interpreter) {
    CompileOptions capped;
    capped.isa = Isa::interpreter;
    CHECK(block_of("gru:i8h16b3", capped) != kOdd);
  }
  wisdom::forget();
  CHECK(wisdom::size() == 0);
  CHECK(block_of("gru:i8h16b3") != kOdd);
}

TEST_CASE("wisdom: an entry for more threads than asked is not used") {
  if (machine().cpus.size() < 2) return;
  const Empty guard;
  WisdomEntry e = wisdom_entry("gru:i64h128", 2, kOdd);
  e.schedule.threads = 2;
  REQUIRE(wisdom::add(e).ok());
  CHECK(block_of("gru:i64h128") != kOdd);
  CompileOptions two;
  two.threads = 2;
  CHECK(schedule_of("gru:i64h128", two) == e.schedule);
}

TEST_CASE("wisdom: the name of a cell does not count, its graph does") {
  const Empty guard;
  const auto cell = [](const std::string& name, float slope) {
    CellBuilder b(name);
    const Value h = b.state("h");
    const Value sum = b.bias("b") + b.matmul("w", b.input("x")) + b.matmul("u", h);
    const Value next = b.leaky_relu(sum, slope);
    b.next(h, next);
    b.output(next);
    return b.build().value();
  };
  const ModelSpec mine =
      ModelSpec::make(cell("mine", 0.1F), {.input = 8, .hidden = {16}, .batch = 2}).value();
  const ModelSpec yours =
      ModelSpec::make(cell("yours", 0.1F), {.input = 8, .hidden = {16}, .batch = 2}).value();
  const ModelSpec other =
      ModelSpec::make(cell("mine", 0.2F), {.input = 8, .hidden = {16}, .batch = 2}).value();
  WisdomEntry e = wisdom_entry("rnn:i8h16b2", 1, kOdd);
  e.key = WisdomKey::of(mine, 1, machine().isa);
  REQUIRE(wisdom::add(e).ok());
  CHECK(compile(mine).value().schedule().layers[0].hoist_block == kOdd);
  CHECK(compile(yours).value().schedule().layers[0].hoist_block == kOdd);
  CHECK(compile(other).value().schedule().layers[0].hoist_block != kOdd);
}

TEST_CASE("wisdom: an entry of an unknown cell that cannot be lowered gives way to the estimate") {
  const Empty guard;
  CellBuilder b("stranger");
  const Value h = b.state("h");
  const Value next = b.tanh(b.bias("b") + b.matmul("w", b.input("x")) + b.matmul("u", h));
  b.next(h, next);
  b.output(next);
  const ModelSpec spec = ModelSpec::make(b.build().value(), {.input = 8, .hidden = {512}}).value();
  WisdomEntry e = wisdom_entry("rnn:i8h512", 1, kOdd);
  e.key = WisdomKey::of(spec, 1, machine().isa);
  e.schedule.layers[0].weights = Residency::registers;
  REQUIRE(wisdom::add(e).ok());
  const Model model = compile(spec).value();
  CHECK(model.schedule().layers[0].weights == Residency::streamed);
  REQUIRE(model.notes().size() == 1);
  CHECK(model.notes()[0].find(
            "wisdom: schedule.layers[0].weights=registers: needs batch 1, one p") == 0);
}

TEST_CASE("wisdom: load takes what is legal here and reports the rest") {
  const Empty guard;
  const TempDir dir;
  const std::string path = dir.file("w.json");
  WisdomEntry other = wisdom_entry("lstm:i8h8");
  other.key.machine = "v1:somewhere";
  const WisdomEntry good = wisdom_entry("gru:i8h16b3", 1, kOdd);
  const WisdomItem illegal{
      test::replaced(to_item(wisdom_entry("rnn:i8h8")).text, "\"group\":1", "\"group\":-1"),
      {},
      {},
      {},
      false};
  const WisdomItem odd{"[7]", {}, {}, {}, false};
  write_bytes(path, wisdom_text({to_item(other), illegal, to_item(good), odd, to_item(good)}));
  const auto report = wisdom::load(path);
  REQUIRE(report.ok());
  CHECK(report->taken == 1);
  CHECK(report->kept == 0);
  REQUIRE(report->refused.size() == 4);
  CHECK(report->refused[0].index == 0);
  CHECK(report->refused[0].other_machine);
  CHECK(report->refused[0].reason == "key.machine=v1:somewhere: is another machine");
  CHECK(report->refused[1].index == 1);
  CHECK_FALSE(report->refused[1].other_machine);
  CHECK(report->refused[1].reason.find("schedule.layers[0].group=-1: must be") == 0);
  CHECK(report->refused[2].reason == "entry: must be an object");
  CHECK(report->refused[3].index == 4);
  CHECK(report->refused[3].reason == "key: is that of entry 2");
  CHECK(wisdom::size() == 1);
  CHECK(block_of("gru:i8h16b3") == kOdd);
}

TEST_CASE("wisdom: a file that cannot be read changes nothing") {
  const Empty guard;
  const TempDir dir;
  REQUIRE(wisdom::add(wisdom_entry("gru:i8h16b3", 1, kOdd)).ok());
  const std::string good = wisdom_of({wisdom_entry("lstm:i8h8"), wisdom_entry("rnn:i8h8")});
  for (std::size_t length = 0; length < good.size() - 1; length += 13) {
    write_bytes(dir.file("w.json"), good.substr(0, length));
    CHECK_FALSE(wisdom::load(dir.file("w.json")).ok());
  }
  CHECK_FALSE(wisdom::load(dir.file("none")).ok());
  CHECK(wisdom::size() == 1);
  CHECK(block_of("gru:i8h16b3") == kOdd);
}

TEST_CASE("wisdom: better evidence stays, equal evidence gives way to what is loaded later") {
  const Empty guard;
  const TempDir dir;
  const auto load = [&](const WisdomEntry& e) {
    write_bytes(dir.file("w.json"), wisdom_of({e}));
    return wisdom::load(dir.file("w.json")).value();
  };
  WisdomEntry hand = wisdom_entry("gru:i8h16b3", 1, 41);
  hand.effort.reset();
  hand.measured_us = hand.spread = 0;
  CHECK(load(hand).taken == 1);
  CHECK(block_of("gru:i8h16b3") == 41);
  CHECK(load(wisdom_entry("gru:i8h16b3", 1, kOdd)).taken == 1);
  CHECK(load(hand).kept == 1);
  CHECK(block_of("gru:i8h16b3") == kOdd);
  CHECK(load(wisdom_entry("gru:i8h16b3", 1, kOdd + 1)).taken == 1);
  CHECK(block_of("gru:i8h16b3") == kOdd + 1);
}

TEST_CASE("wisdom: saved by one process, loaded by another") {
  const Empty guard;
  const TempDir dir;
  const std::string path = dir.file("w.json");
  REQUIRE(wisdom::save(path).ok());
  CHECK(wisdom::load(path).value().taken == 0);
  REQUIRE(wisdom::add(wisdom_entry("lstm:i8h8")).ok());
  REQUIRE(wisdom::add(wisdom_entry("gru:i8h16b3", 1, kOdd)).ok());
  REQUIRE(wisdom::save(path).ok());
  CHECK(test::run_forked([&] {
          wisdom::forget();
          const auto report = wisdom::load(path);
          return report.ok() && report->taken == 2 && block_of("gru:i8h16b3") == kOdd ? 0 : 1;
        }).status == 0);
  CHECK_FALSE(wisdom::save(dir.file("no/where")).ok());
  CHECK_FALSE(wisdom::save("/dev/full").ok());
}

TEST_CASE("wisdom: add refuses what load would refuse") {
  const Empty guard;
  WisdomEntry e = wisdom_entry("lstm:i8h8");
  e.schedule.threads = 2;
  CHECK(wisdom::add(e).error().message() == "schedule.threads=2: must be at most key.threads=1");
  e = wisdom_entry("lstm:i8h8");
  e.key.machine = "moon";
  CHECK(wisdom::add(e).error().message() == "key.machine=moon: is another machine");
  CHECK(wisdom::size() == 0);
}

TEST_CASE("wisdom: threads may load, save, compile and forget at the same time") {
  const Empty guard;
  const TempDir dir;
  const std::string path = dir.file("w.json");
  write_bytes(path, wisdom_of({wisdom_entry("gru:i8h16b3", 1, kOdd)}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        if (t == 0 && !wisdom::load(path).ok()) std::abort();
        if (t == 1 && i % 4 == 0 && !wisdom::save(path).ok()) std::abort();
        if (t == 2) wisdom::forget();
        if (t == 3 && !compile(ModelSpec::parse("gru:i8h16b3").value()).ok()) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wisdom::load(path).value().refused.empty());
}

}  // namespace
}  // namespace deepcpu
