// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "deepcpu/schedule.hpp"
#include "src/schedule/check.hpp"
#include "tests/catch.hpp"
#include "tests/support/random.hpp"

namespace deepcpu {
namespace {

std::string error_of(std::string_view text) {
  const auto schedule = Schedule::from_json(text);
  return schedule.ok() ? "no error" : schedule.error().message();
}

/// A schedule with one layer that has the fields `layer`.
std::string with_layer(const std::string& layer) {
  return R"({"isa":"avx2","layers":[{)" + layer + "}]}";
}

std::string with_field(const std::string& field) {
  return R"({"isa":"avx2","layers":[{}],)" + field + "}";
}

TEST_CASE("schedule JSON: the text is canonical and in the order of the fields") {
  Schedule schedule;
  schedule.isa = Isa::avx512;
  schedule.layers.push_back({true, 32, 1, 6, Sweep::alternating, 1, Residency::streamed});
  CHECK(schedule.to_json() ==
        R"({"isa":"avx512","threads":1,"parallel":"none","exchange":"flag","order":"exact",)"
        R"("start":"zero","split_rows":1,"split_k":1,)"
        R"("layers":[{"fuse_gates":true,"hoist_block":32,"hoist_ahead":false,"tile_rows":1,)"
        R"("hoist_rows":6,"panel":"narrow","sweep":"alternating","group":1,"fetch_lines":5,)"
        R"("cut_panels":true,"weights":"streamed","phases":"levels"}]})");
}

TEST_CASE("schedule JSON: random schedules come back as they were written") {
  test::Random random(5);
  for (int round = 0; round < 500; ++round) {
    Schedule schedule;
    schedule.isa = static_cast<Isa>(random.integer(0, 2));
    schedule.threads = random.integer(1, 1024);
    schedule.parallel = static_cast<Parallel>(random.integer(0, 2));
    schedule.layers.resize(static_cast<std::size_t>(random.integer(1, 5)));
    for (auto& layer : schedule.layers) {
      layer.fuse_gates = random.chance(0.5);
      layer.hoist_block = random.integer(0, 1 << 20);
      layer.tile_rows = random.integer(1, 6);
      layer.hoist_rows = random.integer(1, 6);
      layer.sweep = static_cast<Sweep>(random.integer(0, 1));
      layer.group = random.integer(1, 1 << 20);
      layer.weights = static_cast<Residency>(random.integer(0, 1));
      layer.hoist_ahead = random.chance(0.5);
      layer.panel = static_cast<Panel>(random.integer(0, 1));
      layer.fetch_lines = random.integer(0, 16);
      layer.cut_panels = random.chance(0.5);
    }
    const auto back = Schedule::from_json(schedule.to_json());
    REQUIRE(back.ok());
    CHECK(*back == schedule);
    CHECK(back->to_json() == schedule.to_json());
  }
}

TEST_CASE("schedule JSON: a person may leave out all but isa and layers, and add space") {
  const auto schedule = Schedule::from_json(R"(
    { "layers": [ {}, {"group": 2} ],
      "isa": "interpreter" }
  )");
  REQUIRE(schedule.ok());
  Schedule expected;
  expected.layers.resize(2);
  expected.layers[1].group = 2;
  CHECK(*schedule == expected);
}

TEST_CASE("schedule JSON: what is missing or unknown is named") {
  CHECK(error_of("") == "schedule: JSON is not valid at byte 1");
  CHECK(error_of("[]") == "schedule: must be a JSON object");
  CHECK(error_of("{}") == "schedule: isa is missing");
  CHECK(error_of(R"({"isa":"avx2"})") == "schedule: layers is missing");
  CHECK(error_of(with_field(R"("thread":1)")) == "thread: is unknown");
  CHECK(error_of(with_layer(R"("tile":1)")) == "layers[0].tile: is unknown");
  CHECK(error_of(R"({"isa":"avx2","isa":"avx512","layers":[{}]})") ==
        "schedule: isa: is given twice");
  CHECK(error_of(with_layer(R"("group":1,"group":1)")) == "schedule: group: is given twice");
}

TEST_CASE("schedule JSON: a value of the wrong type is named") {
  CHECK(error_of(R"({"isa":2,"layers":[{}]})") ==
        R"(isa=2: must be one of "interpreter", "avx2", "avx512")");
  CHECK(error_of(R"({"isa":"AVX2","layers":[{}]})") ==
        R"(isa="AVX2": must be one of "interpreter", "avx2", "avx512")");
  CHECK(error_of(R"({"isa":"avx2","layers":{}})") == "layers={}: must be an array of objects");
  CHECK(error_of(R"({"isa":"avx2","layers":[1]})") == "layers[0]=1: must be an object");
  CHECK(error_of(with_field(R"("threads":"1")")) == R"(threads="1": must be a whole number)");
  CHECK(error_of(with_field(R"("threads":1.0)")) == "threads=1.0: must be a whole number");
  CHECK(error_of(with_field(R"("threads":null)")) == "threads=null: must be a whole number");
  CHECK(error_of(with_layer(R"("fuse_gates":1)")) ==
        "layers[0].fuse_gates=1: must be true or false");
  CHECK(error_of(with_layer(R"("sweep":"zigzag")")) ==
        R"(layers[0].sweep="zigzag": must be one of "forward", "alternating")");
  CHECK(error_of(with_layer(R"("panel":8)")) ==
        R"(layers[0].panel=8: must be one of "narrow", "wide")");
  CHECK(error_of(with_layer(R"("weights":true)")) ==
        R"(layers[0].weights=true: must be one of "streamed", "registers")");
}

TEST_CASE("schedule JSON: numbers out of range are named") {
  CHECK(error_of(with_field(R"("threads":0)")) == "threads=0: must be between 1 and 1024");
  CHECK(error_of(with_field(R"("threads":-1)")) == "threads=-1: must be between 1 and 1024");
  CHECK(error_of(with_field(R"("threads":4294967297)")) == "threads=4294967297: is out of range");
  CHECK(error_of(with_field(R"("threads":-99999999999)")) ==
        "threads=-99999999999: is out of range");
  CHECK(error_of(with_field(R"("threads":18446744073709551615)")) ==
        "threads=18446744073709551615: is out of range");
  CHECK(error_of(with_field(R"("threads":99999999999999999999)")) ==
        "threads=1e+20: must be a whole number");
  CHECK(error_of(with_field(R"("threads":1e999)")) ==
        "schedule: JSON holds a number that is too large");
  CHECK(error_of(with_layer(R"("hoist_block":-1)")) ==
        "layers[0].hoist_block=-1: must be between 0 and 1048576");
  CHECK(error_of(with_layer(R"("tile_rows":7)")) ==
        "layers[0].tile_rows=7: must be between 1 and 6");
  CHECK(error_of(with_layer(R"("hoist_rows":0)")) ==
        "layers[0].hoist_rows=0: must be between 1 and 6");
  CHECK(error_of(with_layer(R"("group":0)")) == "layers[0].group=0: must be between 1 and 1048576");
  CHECK(error_of(R"({"isa":"avx2","layers":[]})") ==
        "layers: has 0 entries: must have between 1 and 1024");
}

TEST_CASE("schedule JSON: decisions without code are refused by name") {
  CHECK(Schedule::from_json(with_field(R"("exchange":"data")")).value().exchange == Exchange::data);
  CHECK(error_of(with_field(R"("order":"free")")) == "order=free: is not emitted yet");
  CHECK(error_of(with_field(R"("parallel":"gates")")) == "parallel=gates: is not emitted yet");
  CHECK(error_of(with_field(R"("start":"own")")) == "start=own: is not emitted yet");
  CHECK(Schedule::from_json(with_field(R"("threads":2,"split_rows":2)")).value().split_rows == 2);
  CHECK(error_of(with_field(R"("threads":2,"split_k":2)")) == "split_k=2: is not emitted yet");
  CHECK(error_of(with_layer(R"("phases":"separate")")) == "phases=separate: is not emitted yet");
  CHECK(error_of(with_field(R"("split_k":2)")) == "split_k=2: must be between 1 and 1");
  CHECK(error_of(with_field(R"("split_rows":0)")) == "split_rows=0: must be between 1 and 1");
  // What is emitted may be written out.
  CHECK(error_of(with_field(R"("start":"zero","split_rows":1,"split_k":1)")) == "no error");
  CHECK(error_of(with_layer(R"("phases":"levels")")) == "no error");
}

TEST_CASE("schedule JSON: deep, long or broken text is refused") {
  CHECK(error_of(std::string(200000, '[')) ==
        "schedule: JSON nested 200000 deep: must be at most 3");
  CHECK(error_of(with_layer(R"("group":{})")) == "schedule: JSON nested 4 deep: must be at most 3");
  CHECK(error_of(std::string((1 << 20) + 1, ' ')) ==
        "schedule: JSON of 1048577 bytes: must be at most 1048576");
  const std::string good = with_layer(R"("group":2,"sweep":"forward")");
  for (std::size_t length = 0; length < good.size(); ++length) {
    CHECK_FALSE(Schedule::from_json(std::string_view(good).substr(0, length)).ok());
  }
  test::Random random(6);
  for (int round = 0; round < 5000; ++round) {
    std::string bad = good;
    const auto at = static_cast<std::size_t>(random.integer(0, static_cast<int>(good.size()) - 1));
    bad[at] = static_cast<char>(random.integer(0, 255));
    const auto schedule = Schedule::from_json(bad);
    if (!schedule.ok()) CHECK_FALSE(schedule.error().message().empty());
  }
}

TEST_CASE("schedule: one that a program filled in is checked by the same rules") {
  Schedule schedule;
  schedule.layers.resize(2);
  CHECK(check_schedule(schedule).ok());
  CHECK(check_schedule(schedule, 2).ok());
  CHECK(check_schedule(schedule, 3).error().message() ==
        "layers: has 2 entries: must have 3, one per layer of the model");
  schedule.layers[1].sweep = static_cast<Sweep>(9);
  CHECK(check_schedule(schedule).error().message() == "layers[1].sweep=9: is not a legal value");
  schedule.layers[0].panel = static_cast<Panel>(2);
  CHECK(check_schedule(schedule).error().message() == "layers[0].panel=2: is not a legal value");
  schedule.isa = static_cast<Isa>(7);
  CHECK(check_schedule(schedule).error().message() == "isa=7: is not a legal value");
}

TEST_CASE("isa: names, lanes") {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    CHECK(parse_isa(to_string(isa)).value() == isa);
  }
  CHECK(parse_isa("sse").error().message() == "isa=sse: must be one of interpreter, avx2, avx512");
  CHECK(lanes(Isa::interpreter) == 16);
  CHECK(lanes(Isa::avx2) == 8);
  CHECK(lanes(Isa::avx512) == 16);
}

}  // namespace
}  // namespace deepcpu
