// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_json.hpp"

#include <fmt/format.h>

#include "src/cells/cell_hash.hpp"
#include "src/schedule/check.hpp"
#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/support/wisdom_entries.hpp"

namespace deepcpu {
namespace {

using test::replaced;
using test::wisdom_entry;
using test::wisdom_of;

std::string file_error(std::string_view text) {
  const auto items = parse_wisdom(text);
  return items.ok() ? "no error" : items.error().message();
}

/// Why the only entry of a file is refused.
std::string refusal(std::string_view text) {
  const auto items = parse_wisdom(text);
  if (!items.ok()) return "file: " + items.error().message();
  if (items->size() != 1) return "not one entry";
  CHECK((*items)[0].entry.has_value() == (*items)[0].refused.empty());
  return (*items)[0].entry ? "no error" : (*items)[0].refused;
}

/// One legal entry of a problem with text replaced in it.
std::string changed(std::string_view from, std::string_view to,
                    std::string_view problem = "lstm:i40h256l2b3", int threads = 2) {
  return replaced(wisdom_of({wisdom_entry(problem, threads)}), from, to);
}

bool equal(const WisdomEntry& a, const WisdomEntry& b) {
  return a.key.id() == b.key.id() && a.key.problem == b.key.problem && a.schedule == b.schedule &&
         a.predicted_us == b.predicted_us && a.measured_us == b.measured_us &&
         a.spread == b.spread && a.rows == b.rows && a.steps == b.steps &&
         a.candidates == b.candidates && a.effort == b.effort && a.version == b.version;
}

TEST_CASE("wisdom JSON: the text is for people and in a fixed order") {
  WisdomEntry e = wisdom_entry("gru:i8h16b4,reset=before", 2);
  e.key.machine = "elsewhere";
  e.key.isa = Isa::avx2;
  e.schedule.isa = Isa::avx2;
  CHECK(wisdom_of({e}) ==
        R"({
  "format": 1,
  "entries": [
    {
      "key": {"cell":")" +
            hash_text(e.key.cell) +
            R"(","problem":"gru:i8h16,reset=before","threads":2,"batch":"2-4","steps":"16+",)"
            R"("isa":"avx2","machine":"elsewhere"},
      "schedule": )" +
            e.schedule.to_json() +
            R"(,
      "predicted_us": 90.5,
      "measured_us": 100.25,
      "spread": 0.01,
      "rows": 4,
      "steps": 100,
      "candidates": 20,
      "effort": "measure",
      "version": "0.1.0"
    }
  ]
}
)");
  CHECK(wisdom_text({}) == "{\n  \"format\": 1,\n  \"entries\": []\n}\n");
  CHECK(parse_wisdom(wisdom_text({})).value().empty());
}

TEST_CASE("wisdom JSON: random entries come back as they were written") {
  test::Random random(7);
  const std::vector<const char*> problems{"lstm:i8h16",     "gru:i8h16/24b2,reset=before",
                                          "rnn:i7h9l3bib9", "lstm:i8h16p4rev,peephole=1",
                                          "lstm:i64h64b17", "augru:i8h8b1024"};
  for (int round = 0; round < 200; ++round) {
    WisdomEntry e = wisdom_entry(random.pick(problems), random.integer(1, 8));
    e.schedule.threads = random.integer(1, e.key.threads);
    if (random.chance(0.3)) e.key.machine = "v1:\"odd\\ machine";
    if (random.chance(0.3)) e.effort = Effort::exhaustive;
    if (random.chance(0.3)) e.effort.reset();
    e.measured_us = random.uniform(0.001, 1e9);
    e.predicted_us = random.uniform(0.001, 1e9);
    e.candidates = random.integer(0, 1000000);
    if (random.chance(0.2)) {
      e.effort.reset();
      e.predicted_us = e.measured_us = e.spread = 0;
      e.rows = e.steps = e.candidates = 0;
      e.version = "";
    }
    const std::string text = wisdom_of({e});
    const auto items = parse_wisdom(text);
    REQUIRE(items.ok());
    REQUIRE(items->size() == 1);
    INFO((*items)[0].refused);
    REQUIRE((*items)[0].entry.has_value());
    CHECK(equal(*(*items)[0].entry, e));
    CHECK((*items)[0].lowered);
    CHECK(wisdom_text(*items) == text);
  }
}

TEST_CASE("wisdom JSON: an entry written by hand needs problem, caps, machine and schedule") {
  const auto text = [](std::string_view problem, std::string_view layers) {
    return fmt::format(
        R"({{"entries":[ {{"schedule":{{"layers":[{}],"isa":"interpreter"}},
            "key":{{"machine":"{}","threads":1,"batch":"1","problem":"{}"}}}} ],"format":1}})",
        layers, this_machine_key(), problem);
  };
  const auto items = parse_wisdom(text("lstm:h16/24i8", "{},{\"hoist_block\":8}"));
  REQUIRE(items.ok());
  INFO((*items)[0].refused);
  REQUIRE((*items)[0].entry.has_value());
  const WisdomEntry& e = *(*items)[0].entry;
  CHECK(e.key.id() ==
        WisdomKey::of(ModelSpec::parse("lstm:i8h16/24").value(), 1, machine().isa).id());
  CHECK(e.key.problem == "lstm:i8h16/24");
  CHECK(e.schedule.layers[1].hoist_block == 8);
  CHECK_FALSE(e.effort.has_value());
  CHECK(refusal(text("nobody:i8h16", "{}")) ==
        "key.cell: is missing, and cell nobody is not known here");
}

TEST_CASE("wisdom JSON: an entry of a cell that is not known here is taken, not lowered") {
  const auto items = parse_wisdom(changed("lstm:", "nobody:"));
  REQUIRE(items.ok());
  REQUIRE((*items)[0].entry.has_value());
  CHECK_FALSE((*items)[0].lowered);
  CHECK((*items)[0].entry->key.problem == "nobody:i40h256l2");
}

TEST_CASE("wisdom JSON: files that are refused whole") {
  const std::string good = wisdom_of({wisdom_entry("lstm:i8h8")});
  CHECK(file_error(good) == "no error");
  CHECK(file_error("") == "is empty");
  CHECK(file_error(" ") == "JSON is not valid at byte 2");
  const std::string none = "is no wisdom file: must be an object with format and entries";
  CHECK(file_error("[]") == none);
  CHECK(file_error("7") == none);
  CHECK(file_error("{}") == none);
  CHECK(file_error(R"({"format":1})") == none);
  CHECK(file_error(R"({"entries":[]})") == "format: is missing");
  CHECK(file_error(R"({"format":2,"entries":[]})") == "format=2: must be between 1 and 1");
  CHECK(file_error(R"({"format":"1","entries":[]})") == "format=\"1\": must be between 1 and 1");
  CHECK(file_error(R"({"format":1,"entries":{}})") == "entries: must be an array");
  CHECK(file_error(R"({"format":1,"entries":[],"x":[]})") == "x: is unknown");
  CHECK(file_error(R"({"format":1,"format":1,"entries":[]})") == "format: is given twice");
  CHECK(file_error(R"({"format":1e999,"entries":[]})") == "JSON holds a number that is too large");
  CHECK(file_error("\xff" + good).substr(0, 25) == "JSON is not valid at byte");
  CHECK(file_error(good + "x").substr(0, 25) == "JSON is not valid at byte");
  CHECK(file_error(replaced(good, "\"isa\":\"", "\"isa\":\"\xc3\x28")).substr(0, 17) ==
        "JSON is not valid");
  CHECK(file_error(R"({"format":1,"entries":)" + std::string(100000, '[') +
                   std::string(100000, ']') + "}") == "JSON nested 100001 deep: must be at most 6");
  CHECK(file_error(std::string(kMostWisdomBytes + 1, ' ')) ==
        "JSON of 8388609 bytes: must be at most 8388608");
  std::string many = R"({"format":1,"entries":[0)";
  for (std::size_t i = 0; i < kMostWisdomEntries; ++i) many += ",0";
  CHECK(file_error(many + "]}") == "entries: has 65537; must have at most 65536");
  // Truncated anywhere, it is no JSON any more.
  for (std::size_t length = 0; length + 2 < good.size(); ++length) {
    CHECK_FALSE(parse_wisdom(std::string_view(good).substr(0, length)).ok());
  }
}

TEST_CASE("wisdom JSON: entries that are refused, each with its reason") {
  CHECK(refusal(changed("x", "x", "lstm:i8h8,peephole=1")) == "no error");
  for (const char* wrong : {"7", "[]", "null", "\"x\""}) {
    CHECK(refusal(fmt::format(R"({{"format":1,"entries":[{}]}})", wrong)) ==
          "entry: must be an object");
  }
  CHECK(refusal(R"({"format":1,"entries":[{}]})") == "key: is missing");
  CHECK(refusal(changed("\"schedule\"", "\"shedule\"")) == "schedule: is missing");
  CHECK(refusal(changed("\"steps\": ", "\"stepps\": ")) == "stepps: is unknown");
  CHECK(refusal(changed("\"steps\": 100,", "")) == "measured_us: needs steps");
  CHECK(refusal(changed("\"spread\"", "\"colour\"")) == "colour: is unknown");
  CHECK(refusal(changed("\"threads\":2,\"batch\"", "\"batch\"")) == "key.threads: is missing");
  CHECK(refusal(changed("\"threads\":2,\"batch\"", "\"threads\":0,\"batch\"")) ==
        "key.threads=0: must be between 1 and 1024");
  CHECK(refusal(changed("\"threads\":2,\"batch\"", "\"threads\":1.0,\"batch\"")) ==
        "key.threads=1.0: must be between 1 and 1024");
  CHECK(refusal(changed("\"threads\":2,\"batch\"", "\"threads\":18446744073709551615,\"batch\""))
            .find("key.threads=18446744073709551615: must be") == 0);
  CHECK(refusal(changed("\"batch\":\"2-4\"", "\"batch\":\"3\"")) ==
        "key.batch=3: must be one of 1, 2-4, 5-16, 17+");
  CHECK(refusal(changed("\"batch\":\"2-4\"", "\"batch\":3")).find("key.batch=3: must be a st") ==
        0);
  CHECK(refusal(changed("\"cell\":\"", "\"cell\":\"0x")).find("must be 16 hexadecimal digits") !=
        std::string::npos);
  CHECK(refusal(changed("\"machine\":\"", "\"machine\":7,\"m\":\"")) ==
        "key.machine=7: must be a string of at most 1024 bytes");
  CHECK(refusal(changed("lstm:", "gru:")).find("is not the graph of gru, which is ") !=
        std::string::npos);
  CHECK(refusal(changed("lstm:i40h256l2", "lstm:i40h256l2b3")) ==
        "key.problem: must not state b or t; their classes are key.batch and key.steps");
  CHECK(refusal(changed("lstm:i40h256l2", "lstm")).find("key.problem: problem lstm: must look") ==
        0);
  CHECK(refusal(changed("lstm:i40", "lstm:i0")) ==
        "key.problem: input=0: must be between 1 and 1048576");
  CHECK(refusal(changed("lstm:i40h256l2", "lstm:i40h256l2p300")).find("key.") == 0);
  CHECK(refusal(changed("\"effort\": \"measure\"", "\"effort\": \"much\"")).find("effort=much") ==
        0);
  CHECK(refusal(changed("\"measured_us\": 100.25", "\"measured_us\": -1")) ==
        "measured_us=-1: must be a number between 0 and 32000000000000");
  CHECK(refusal(changed("\"measured_us\": 100.25,", "")).find("effort=measure: needs m") == 0);
  CHECK(refusal(changed("\"rows\": 3", "\"rows\": 9")) == "rows=9: is not in batch=2-4");
  CHECK(refusal(changed("\"version\": \"0.1.0\"", "\"version\": \"0.1\"")) ==
        "version=0.1: must look like 0.1.0");
}

TEST_CASE("wisdom JSON: schedules that are refused") {
  CHECK(refusal(changed("\"sweep\":\"alternating\"", "\"sweep\":\"sideways\""))
            .find("schedule.layers[0].sweep=\"sideways\": must be one of") == 0);
  CHECK(refusal(changed("\"group\":1", "\"groop\":1")) == "schedule.layers[0].groop: is unknown");
  CHECK(refusal(changed("\"tile_rows\":1", "\"tile_rows\":7")) ==
        "schedule.layers[0].tile_rows=7: must be between 1 and 6");
  CHECK(refusal(changed("\"layers\":[", "\"layers\":[{},")) ==
        "schedule.layers: has 3 entries: must have 2, one per layer of the model");
  CHECK(refusal(changed("\"order\":\"exact\"", "\"order\":\"free\"")) ==
        "schedule.order=free: is not emitted yet");
  CHECK(refusal(changed("\"schedule\": {", "\"schedule\": 7, \"x\": {")).find("unknown") !=
        std::string::npos);
  CHECK(refusal(changed("\"threads\":1", "\"threads\":3")) ==
        "schedule.threads=3: must be at most key.threads=2");
  CHECK(refusal(changed("\"weights\":\"streamed\"", "\"weights\":\"registers\""))
            .find("schedule.layers[0].weights=registers: needs batch 1, one panel") == 0);
  const std::string shared = changed("\"threads\":1", "\"threads\":2", "lstm:i8h8");
  CHECK(refusal(shared) == "no error");
  CHECK(refusal(replaced(shared, "streamed", "registers")) ==
        "schedule.layers[0].weights=registers: needs threads=1");
  WisdomEntry e = wisdom_entry("lstm:i8h8");
  e.key.machine = "elsewhere";
  e.schedule.isa = Isa::avx512;
  CHECK(refusal(wisdom_of({e})) == "no error");
  e.key.isa = Isa::avx2;
  CHECK(refusal(wisdom_of({e})) == "schedule.isa=avx512: must be at most key.isa=avx2");
  if (machine().isa < Isa::avx512) {
    e.key = WisdomKey::of(ModelSpec::parse("lstm:i8h8").value(), 1, machine().isa);
    CHECK(refusal(wisdom_of({e})).find("schedule.isa=avx512: this machine offers") == 0);
  }
}

TEST_CASE("wisdom JSON: one key twice: the first stays, unless it is illegal") {
  const WisdomEntry e = wisdom_entry("lstm:i8h8");
  const auto twice = parse_wisdom(wisdom_of({e, e, wisdom_entry("gru:i8h8")})).value();
  CHECK(twice[0].entry.has_value());
  CHECK(twice[1].refused == "key: is that of entry 0");
  CHECK(twice[2].entry.has_value());
  const auto items = parse_wisdom(replaced(wisdom_of({e, e}), "\"group\":1", "\"group\":0"));
  CHECK((*items)[0].refused.find("schedule.layers[0].group=0") == 0);
  CHECK((*items)[0].id == e.key.id());
  CHECK((*items)[1].entry.has_value());
}

TEST_CASE("wisdom JSON: what is not understood keeps its text, whatever stands in it") {
  const std::string odd = R"({ "key" : [1,{"]":"}\"[" }], "x\\":"\\\"]," })";
  const std::string text =
      R"({"entries": [)" + odd + " , \n7,\"a,b]\" ,[ 1 , 2 ]\t], \"format\":1}";
  const auto items = parse_wisdom(text);
  REQUIRE(items.ok());
  REQUIRE(items->size() == 4);
  CHECK((*items)[0].text == odd);
  CHECK((*items)[1].text == "7");
  CHECK((*items)[2].text == "\"a,b]\"");
  CHECK((*items)[3].text == "[ 1 , 2 ]");
  CHECK(parse_wisdom(wisdom_text(*items)).value().size() == 4);
}

TEST_CASE("wisdom JSON: damaged bytes give a reason or a legal schedule") {
  test::Random random(11);
  const std::string good = wisdom_of({wisdom_entry("lstm:i8h16l2b3", 2), wisdom_entry("gru:i8h8")});
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    for (int i = random.integer(1, 3); i > 0; --i) {
      const auto at = static_cast<std::size_t>(random.range(0, static_cast<int>(bad.size()) - 1));
      bad[at] = static_cast<char>(random.integer(32, 126));
    }
    const auto items = parse_wisdom(bad);
    if (!items.ok()) {
      CHECK_FALSE(items.error().message().empty());
      continue;
    }
    for (const WisdomItem& item : *items) {
      CHECK(item.entry.has_value() == item.refused.empty());
      if (item.entry) CHECK(check_schedule(item.entry->schedule).ok());
    }
  }
}

}  // namespace
}  // namespace deepcpu
