// SPDX-License-Identifier: Apache-2.0
/// The machine model: its JSON, its refusals, and that measuring this machine gives one.
#include "src/machine/calibrate.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "src/machine/machine_json.hpp"
#include "src/machine/thread_probe.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

/// A described machine: 12 cores with 256 KiB of L2 each.
Calibration xeon() {
  Calibration c;
  c.machine.vendor = "GenuineIntel";
  c.machine.model_name = "Xeon E5-2650 v4";
  c.machine.family = 6;
  c.machine.model = 79;
  c.machine.stepping = 1;
  c.machine.features = {"avx", "avx2", "fma", "f16c"};
  c.machine.isa = Isa::avx2;
  c.machine.l1d = {32 << 10, 64, 2};
  c.machine.l2 = {256 << 10, 64, 2};
  c.machine.l3 = {30 << 20, 64, 24};
  for (int i = 0; i < 12; ++i) c.machine.cpus.push_back(i);
  c.clock_ghz = 2.5;
  c.isas = {{Isa::avx2,
             {80.0, 80.0, 70.0},
             160.0,
             0.4,
             0.6,
             {{150.0, 150.0, 140.0}, {60.0, 60.0, 55.0}, {20.0, 19.5, 16.0}, {10.0, 9.0, 5.0}}}};
  c.levels = {{"l1", 16 << 10, 1, 30 << 10, 31 << 10, true},
              {"l2", 128 << 10, 1, 240 << 10, 250 << 10, true},
              {"l3", 1 << 20, 12, 20 << 20, 25 << 20, true},
              {"memory", 120 << 20, 12, 0, 0, false}};
  c.latencies = {{0, 1, 60.5}};
  c.latency_ns = 60.5;
  c.wake_us = 25.0;
  c.cores = 12;
  c.seconds = 9.75;
  c.version = "0.1.0";
  return c;
}

std::string refusal(const std::string& json) {
  const Result<Calibration> read = calibration_from_json(json);
  return read.ok() ? "accepted" : read.error().message();
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

TEST_CASE("calibration: JSON there and back") {
  const Calibration before = xeon();
  const std::string text = to_json(before);
  const Calibration after = calibration_from_json(text).value();
  CHECK(to_json(after) == text);
  CHECK(after.machine.cpus == before.machine.cpus);
  CHECK(after.machine.l3 == before.machine.l3);
  CHECK(after.isas == before.isas);
  CHECK(after.levels == before.levels);
  CHECK(after.latencies == before.latencies);
  CHECK(after.wake_us == before.wake_us);
}

TEST_CASE("calibration: absurd rates are refused by name") {
  const auto message = [](void (*change)(Calibration&)) {
    Calibration c = xeon();
    change(c);
    const Status status = check_calibration(c);
    return status.ok() ? std::string("accepted") : status.error().message();
  };
  CHECK(message([](Calibration&) {}) == "accepted");
  CHECK(message([](Calibration& c) { c.clock_ghz = 0.0; }) ==
        "clock_ghz=0: must be between 0.01 and 20");
  CHECK(message([](Calibration& c) {
          c.isas[0].fma_gflops.all = 1e30;
        }).find("isas[0].fma_gflops.all=") == 0);
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s[2].one = 0.0; }) ==
        "isas[0].read_gbytes_per_s[2].one=0: must be between 0.01 and 100000");
  CHECK(message([](Calibration& c) { c.isas[0].overlap = -2.0; }) == "accepted");
  CHECK(message([](Calibration& c) { c.isas[0].overlap = 1.5; }) ==
        "isas[0].overlap=1.5: must be between -100 and 1");
  CHECK(message([](Calibration& c) { c.isas[0].strided = 0.0; }) ==
        "isas[0].strided=0: must be between 0.01 and 1");
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s[1].two = -1.0; }) ==
        "isas[0].read_gbytes_per_s[1].two=-1: must be between 0.01 and 100000");
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s[2].one = 90.0; }) ==
        "isas[0].read_gbytes_per_s[2].one=90: must not be faster than the level before it");
  const std::string slower = ": must not be faster than the level before it";
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s[3].two = 30.0; }) ==
        "isas[0].read_gbytes_per_s[3].two=30: must not be more than what each gets of fewer active "
        "cores");
  CHECK(message([](Calibration& c) {
          c.isas[0].read_gbytes_per_s[2] = {70.0, 70.0, 70.0};
          c.isas[0].read_gbytes_per_s[1] = {60.0, 50.0, 50.0};
        }) == "isas[0].read_gbytes_per_s[2].two=70" + slower);
  CHECK(message([](Calibration& c) {
          c.isas[0].read_gbytes_per_s[2] = {60.0, 60.0, 60.0};
          c.isas[0].read_gbytes_per_s[1] = {60.0, 60.0, 20.0};
        }) == "isas[0].read_gbytes_per_s[2].all=60" + slower);
  CHECK(message([](Calibration& c) { c.isas[0].fma_gflops.all = 90.0; }) == "accepted");  // noise
  CHECK(message([](Calibration& c) { c.isas[0].fma_gflops.all = 110.0; }) ==
        "isas[0].fma_gflops.all=110: must not be more than what each gets of fewer active cores");
  CHECK(message([](Calibration& c) { c.isas[0].fma_gflops.two = 0.08; }) ==
        "isas[0].fma_gflops.two=0.08: 2 active cores must not get less than 1/8 of what one gets "
        "alone");
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s[3].all = 0.05; }) ==
        "isas[0].read_gbytes_per_s[3].all=0.05: 12 active cores must not get less than 1/8 of what "
        "one gets alone");
  const std::string larger = ": must not be smaller than that of the level before it";
  CHECK(message([](Calibration& c) { c.levels[1].forward_bytes = 16 << 10; }) ==
        "levels[1].forward_bytes=16384" + larger);
  CHECK(message([](Calibration& c) { c.levels[2].alternating_bytes = 200 << 10; }) ==
        "levels[2].alternating_bytes=204800" + larger);
  CHECK(message([](Calibration& c) { c.levels[2].stream_bytes = 100 << 10; }) ==
        "levels[2].stream_bytes=102400" + larger);
  CHECK(message([](Calibration& c) { c.isas[0].read_gbytes_per_s.pop_back(); }) ==
        "isas[0].read_gbytes_per_s=3 entries: must hold one entry per level");
  CHECK(message([](Calibration& c) { c.levels[0].forward_bytes = 0; }) ==
        "levels[0].forward_bytes=0: must be between 1024 and 10000000000000");
  CHECK(message([](Calibration& c) { c.levels[3].forward_bytes = 1; }) ==
        "levels[3].forward_bytes=1: must be 0 for memory");
  CHECK(message([](Calibration& c) { c.levels[2].shared_by = 13; }) ==
        "levels[2].shared_by=13: must be between 1 and the number of cores");
  CHECK(message([](Calibration& c) { c.levels[1].name = "L2"; }) ==
        "levels[1].name=L2: must be l2");
  CHECK(message([](Calibration& c) { c.levels.pop_back(); }) ==
        "levels[2].name=l3: must be memory");
  CHECK(message([](Calibration& c) { c.levels.clear(); }) ==
        "levels=0 entries: must be l1, l2, l3 if there is one, and memory");
  CHECK(message([](Calibration& c) { c.machine.cpus.clear(); }) ==
        "machine.cpus=[]: must hold at least one processor");
  CHECK(message([](Calibration& c) { c.machine.l1d.bytes = 0; }) ==
        "machine.l1d.bytes=0: must be between 1024 and 10000000000000");
  CHECK(message([](Calibration& c) { c.isas.clear(); }) == "isas=[]: must hold at least one ISA");
  CHECK(message([](Calibration& c) { c.isas[0].isa = Isa::avx512; }) ==
        "isas[0].isa=avx512: must be one that the machine has and code is emitted for");
  CHECK(message([](Calibration& c) { c.latency_ns = 0.0; }) ==
        "latency_ns=0: must be between 1 and 1000000");
  CHECK(message([](Calibration& c) { c.wake_us = 0.0; }) ==
        "wake_us=0: must be between 0.05 and 1000000");
  CHECK(message([](Calibration& c) { c.cores = 0; }) == "cores=0: must be between 1 and 65536");
}

TEST_CASE("calibration: a file that is not one is refused by name") {
  const std::string text = to_json(xeon());
  CHECK(refusal("") != "accepted");
  CHECK(refusal("[]") == "file: must be an object");
  CHECK(refusal("{}") == "format: is missing");
  CHECK(refusal(text.substr(0, text.size() / 2)) != "accepted");
  CHECK(refusal(replaced(text, "\"format\": 1", "\"format\": 2")) == "format=2: must be 1");
  CHECK(refusal(replaced(text, "\"stepping\": 1", "\"stepping\": -1"))
            .find("calibration.machine.stepping: must be a whole number") == 0);
  CHECK(refusal(replaced(text, "\"stepping\": 1", "\"stepping\": 2")).find("key=") == 0);
  CHECK(refusal(replaced(text, "\"clock_ghz\": 2.5", "\"clock_ghz\": \"2.5\"")) ==
        "calibration.clock_ghz: must be a number");
  CHECK(refusal(replaced(text, "\"clock_ghz\": 2.5", "\"clock_ghz\": 0")) ==
        "clock_ghz=0: must be between 0.01 and 20");
  CHECK(refusal(replaced(text, "\"isa\": \"avx2\"", "\"isa\": \"avx3\"")) ==
        "calibration.machine.isa: must be one of interpreter, avx2, avx512");
  CHECK(refusal(replaced(text, "\"wake_us\"", "\"wake\"")) == "calibration.wake_us: is missing");
  CHECK(refusal(replaced(text, "\"cores\": 12", "\"cores\": 12, \"colour\": 1")) ==
        "calibration.colour: is not a known field");
  CHECK(refusal(replaced(text, "\"from\": 0", "\"from\": true"))
            .find("calibration.latencies[0].from: must be a whole number") == 0);
}

TEST_CASE("machine JSON has the key, the machine and the rates if there are any") {
  const Machine m = xeon().machine;
  const std::string without = to_json(m, nullptr, nullptr);
  CHECK(without.find("\"key\": \"" + machine_key(m) + "\"") != std::string::npos);
  CHECK(without.find("\"rates\": null") != std::string::npos);
  const Rates rates{Isa::avx2, 2.5, 80.0, 150.0, 60.0};
  const std::string with = to_json(m, &rates, nullptr);
  CHECK(with.find("\"fma_gflops\": 80.0") != std::string::npos);
  CHECK(with.find("\"l2_gbytes_per_s\": 60.0") != std::string::npos);
}

TEST_CASE("processors that count: affinity and quota") {
  // Numbers that no machine has, so that none has siblings here.
  Machine m;
  m.cpus = {70002, 70003, 70005, 70007};
  CHECK(usable_cpus(m) == m.cpus);
  m.cpu_quota = 1.5;
  CHECK(usable_cpus(m) == std::vector<int>{70002, 70003});
  m.cpu_quota = 64.0;
  CHECK(usable_cpus(m).size() == 4);
}

TEST_CASE("pairs of processors: all of a few, a chain and a star of many") {
  using Pairs = std::vector<std::pair<int, int>>;
  CHECK(cpu_pairs({4}).empty());
  CHECK(cpu_pairs({1, 4, 6}) == Pairs{{1, 4}, {1, 6}, {4, 6}});
  const Pairs many = cpu_pairs({0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(many.size() == 13);  // 7 from the first, 6 further neighbours
  CHECK(std::count(many.begin(), many.end(), std::pair(5, 6)) == 1);
  CHECK(std::count(many.begin(), many.end(), std::pair(5, 7)) == 0);
}

TEST_CASE("latency and wake-up come to an end, also on one processor") {
  const int cpu = machine().cpus.front();
  const Result<double> alone = one_way_latency(cpu, machine().cpus.back());
  REQUIRE(alone.ok());
  CHECK(*alone > 1e-9);
  CHECK(!one_way_latency(cpu, 1 << 16).ok());
  CHECK(wake_seconds(cpu, machine().cpus.back()).value() > 1e-8);
}

TEST_CASE("calibration: a machine without code is an error") {
  Machine m = machine();
  m.isa = Isa::interpreter;
  CHECK(calibrate(m).error().message() ==
        "isa=interpreter: a machine without AVX2 has no rates of emitted code");
}

TEST_CASE("calibration of this machine in a short form") {
  if (machine().isa == Isa::interpreter) return;  // refused, as the case above shows
  CalibrateOptions options;
  options.seconds = 0.2;
  options.memory_bytes = 64 << 20;
  const Calibration c = calibrate(machine(), options).value();
  CHECK(c.isas.back().isa == machine().isa);
  CHECK(c.levels.back().stream_bytes <= options.memory_bytes);
  CHECK(calibration_from_json(to_json(c)).ok());
}

}  // namespace
}  // namespace deepcpu
