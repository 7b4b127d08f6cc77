// SPDX-License-Identifier: Apache-2.0
/// The machine model: estimates of described machines, lookups, and the saved calibration.
#include "src/machine/machine_model.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "src/machine/machine_json.hpp"
#include "src/machine/saved_calibration.hpp"
#include "tests/catch.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

using test::TempDir;

Machine described(const char* vendor, std::uint32_t family, std::uint32_t model, Isa isa) {
  Machine m;
  m.vendor = vendor;
  m.family = family;
  m.model = model;
  m.isa = isa;
  m.features = {"avx", "avx2", "fma"};
  return m;
}

Machine zen4() {
  Machine m = described("AuthenticAMD", 25, 17, Isa::avx512);
  m.l1d = {32 << 10, 64, 1};
  m.l2 = {1 << 20, 64, 1};
  m.l3 = {32 << 20, 64, 2};
  m.cpus = {0, 1};
  return m;
}

Machine granite_rapids() {
  Machine m = described("GenuineIntel", 6, 173, Isa::avx512);
  m.l1d = {48 << 10, 64, 1};
  m.l2 = {2 << 20, 64, 1};
  m.l3 = {480ULL << 20, 64, 2};
  m.cpus = {0, 1};
  m.tsc_hz = 3.7e9;
  return m;
}

std::string xeon_file() { return DEEPCPU_SOURCE_DIR "/bench/machines/xeon-e5-2650v4.json"; }

Calibration xeon() { return load_calibration(xeon_file()).value(); }

/// A calibration with this machine's key.
Calibration of_this_machine() {
  Calibration c = xeon();
  c.machine = machine();
  c.machine.isa = Isa::avx2;
  c.seconds = 5.0;
  return c;
}

/// Sets an environment variable (nullptr: removes it) until the end of the scope.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name); old != nullptr) {
      old_ = old;
      had_ = true;
    }
    set(value);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { set(had_ ? old_.c_str() : nullptr); }

 private:
  void set(const char* value) const {
    if (value == nullptr) {
      unsetenv(name_);
    } else {
      setenv(name_, value, 1);
    }
  }
  const char* name_;
  std::string old_;
  bool had_ = false;
};

/// What holds of every machine.
void check_sane(const MachineModel& m) {
  REQUIRE(!m.isas.empty());
  CHECK(m.cores >= 1);
  CHECK(m.clock_ghz > 0.0);
  CHECK(!m.note.empty());
  for (const IsaModel& isa : m.isas) {
    REQUIRE(isa.levels.size() >= 3);
    CHECK(isa.fma_gflops.one > 0.0);
    CHECK(isa.levels.front().name == "l1");
    CHECK(isa.levels.back().name == "memory");
    CHECK(isa.levels.back().forward_bytes == LevelModel::kUnlimited);
    for (std::size_t i = 0; i < isa.levels.size(); ++i) {
      INFO(isa.levels[i].name);
      for (const int active : {1, 2, 3, m.cores, m.cores + 5}) {
        const double rate = m.gbytes_per_s(isa.isa, i, active);
        CHECK(rate > 0.0);
        CHECK(rate <= m.gbytes_per_s(isa.isa, i, 1));
        CHECK(m.fma_gflops(isa.isa, active) > 0.0);
        if (i > 0) CHECK(rate <= m.gbytes_per_s(isa.isa, i - 1, active));
        if (i > 0) {
          CHECK(m.usable_bytes(isa.isa, i, true, 1) >= m.usable_bytes(isa.isa, i - 1, true, 1));
        }
      }
    }
  }
}

TEST_CASE("estimate: Zen 4, as calibrated") {
  const MachineModel m = MachineModel::estimate(zen4());
  check_sane(m);
  CHECK(m.source == ModelSource::estimate);
  CHECK(m.key == machine_key(zen4()));
  CHECK(m.cores == 2);
  CHECK(m.isas.size() == 2);
  // 512 bits in two halves: no faster than AVX2.
  CHECK(m.fma_gflops(Isa::avx512, 1) == m.fma_gflops(Isa::avx2, 1));
  // Measured: L2 117, L3 98 GB/s at 3.69 GHz.
  const double clock = 3.69 / m.clock_ghz;
  CHECK(m.gbytes_per_s(Isa::avx512, 1, 1) * clock == Approx(117.0).epsilon(0.1));
  CHECK(m.gbytes_per_s(Isa::avx512, 2, 1) * clock == Approx(98.0).epsilon(0.15));
  CHECK(m.usable_bytes(Isa::avx512, 1, false, 2) == 1 << 20);
  CHECK(m.usable_bytes(Isa::avx512, 2, false, 2) == 16 << 20);
}

TEST_CASE("estimate: Granite Rapids, as measured elsewhere") {
  const MachineModel m = MachineModel::estimate(granite_rapids());
  check_sane(m);
  CHECK(m.fma_gflops(Isa::avx512, 1) == Approx(236.0).epsilon(0.05));
  CHECK(m.gbytes_per_s(Isa::avx512, 0, 1) == Approx(310.0).epsilon(0.05));
  CHECK(m.gbytes_per_s(Isa::avx512, 1, 1) == Approx(177.0).epsilon(0.05));
  CHECK(m.gbytes_per_s(Isa::avx512, 2, 1) == Approx(29.0).epsilon(0.05));
  CHECK(m.gbytes_per_s(Isa::avx512, 3, 1) == Approx(14.0).epsilon(0.3));
  // The cliff from L2 to L3 decides how work is split over cores.
  CHECK(m.gbytes_per_s(Isa::avx512, 1, 2) > 5.0 * m.gbytes_per_s(Isa::avx512, 2, 2));
}

TEST_CASE("estimate: any machine gives rates") {
  Machine m = described("GenuineIntel", 6, 79, Isa::avx2);
  m.l1d = {32 << 10, 64, 2};
  m.l2 = {256 << 10, 64, 2};
  m.l3 = {30 << 20, 64, 24};
  for (int i = 0; i < 24; ++i) m.cpus.push_back(i);
  const MachineModel xeon = MachineModel::estimate(m);
  check_sane(xeon);
  CHECK(xeon.cores == 12);
  CHECK(xeon.of(Isa::avx2).levels[1].shared_by == 1);
  CHECK(xeon.of(Isa::avx2).levels[2].shared_by == 12);
  m.cpu_quota = 2.5;
  CHECK(MachineModel::estimate(m).cores == 3);
  check_sane(MachineModel::estimate(Machine{}));
  Machine unknown = described("Somebody", 99, 1, Isa::avx512);
  unknown.l1d.bytes = 32 << 10;
  unknown.l2.bytes = 256 << 10;
  check_sane(MachineModel::estimate(unknown));
  unknown.isa = Isa::interpreter;
  CHECK(MachineModel::estimate(unknown).of(Isa::avx512).isa == Isa::interpreter);
}

TEST_CASE("the described Xeon agrees with the rule for its family") {
  const MachineModel m = MachineModel::from(xeon());
  check_sane(m);
  CHECK(m.source == ModelSource::description);
  CHECK(m.cores == 12);
  const MachineModel rule = MachineModel::estimate(xeon().machine);
  CHECK(rule.key == m.key);
  CHECK(rule.cores == m.cores);
  for (std::size_t level = 0; level < 4; ++level) {
    INFO(level);
    CHECK(rule.gbytes_per_s(Isa::avx2, level, 1) ==
          Approx(m.gbytes_per_s(Isa::avx2, level, 1)).epsilon(0.2));
  }
}

TEST_CASE("model: lookups between one, two and all cores") {
  Calibration c = xeon();
  c.isas[0].fma_gflops = {70.0, 66.0, 56.0};
  c.isas[0].read_gbytes_per_s[3] = {10.0, 10.0, 5.0};
  const MachineModel m = MachineModel::from(c);
  CHECK(m.fma_gflops(Isa::avx2, 1) == 70.0);
  CHECK(m.fma_gflops(Isa::avx2, 2) == 66.0);
  CHECK(m.fma_gflops(Isa::avx2, 7) == Approx(61.0));
  CHECK(m.fma_gflops(Isa::avx2, 12) == 56.0);
  CHECK(m.fma_gflops(Isa::avx2, 24) == 56.0);
  CHECK(m.gbytes_per_s(Isa::avx2, 3, 6) == 10.0);  // 60 GB/s in all are not used up yet
  CHECK(m.gbytes_per_s(Isa::avx2, 3, 10) == Approx(6.0));
  CHECK(m.gbytes_per_s(Isa::avx2, 3, 24) == Approx(2.5));
  CHECK(m.usable_bytes(Isa::avx2, 1, false, 12) == 256 << 10);
  CHECK(m.usable_bytes(Isa::avx2, 2, false, 3) == 10 << 20);
  CHECK(m.usable_bytes(Isa::avx2, 3, true, 12) == LevelModel::kUnlimited);
  CHECK(m.of(Isa::avx512).isa == Isa::avx2);
  CHECK(m.of(Isa::interpreter).isa == Isa::avx2);
}

TEST_CASE("model: from JSON of a calibration, of a description, of what machine --json prints") {
  const std::string file = test::read_bytes(xeon_file());
  CHECK(model_from_json(file).value().source == ModelSource::description);
  const Machine m = granite_rapids();
  const auto estimated = model_from_json(to_json(m, nullptr, nullptr));
  CHECK(estimated.value().source == ModelSource::estimate);
  CHECK(estimated.value().key == machine_key(m));
  const Calibration c = xeon();
  CHECK(model_from_json(to_json(c.machine, nullptr, &c)).value().source ==
        ModelSource::description);
  Machine broken = m;
  broken.l2.bytes = 0;
  CHECK(model_from_json(to_json(broken, nullptr, nullptr)).error().message() ==
        "machine.l2.bytes=0: must be between 1024 and 10000000000000");
  CHECK(model_from_json("{}").error().message() == "format: is missing");
  CHECK(!model_from_json("").ok());
  CHECK(!model_from_json("[]").ok());
  CHECK(!model_from_json("{\"machine\":{},\"calibration\":7}").ok());
  CHECK(to_json(MachineModel::from(c)).find("\"source\": \"description\"") != std::string::npos);
}

TEST_CASE("saved calibration: where it is looked for") {
  const Variable none("DEEPCPU_MACHINE", nullptr);
  const Variable home("HOME", "/home/somebody");
  {
    const Variable cache("XDG_CACHE_HOME", "/var/cache/x");
    CHECK(calibration_path("v1:A:avx+fma").value() ==
          "/var/cache/x/deepcpu/machine-v1-A-avx-fma.json");
    CHECK(calibration_path("../x").value() == "/var/cache/x/deepcpu/machine-..-x.json");
    const Variable chosen("DEEPCPU_MACHINE", "my.json");
    CHECK(calibration_path("v1:A").value() == "my.json");
    const Variable nothing("DEEPCPU_MACHINE", "none");
    CHECK(calibration_path("v1:A").error().message().find("DEEPCPU_MACHINE=none") == 0);
  }
  for (const char* useless : {static_cast<const char*>(nullptr), "", "relative/path"}) {
    const Variable cache("XDG_CACHE_HOME", useless);
    CHECK(calibration_path("k").value() == "/home/somebody/.cache/deepcpu/machine-k.json");
    const Variable no_home("HOME", useless);
    CHECK(!calibration_path("k").ok());
  }
}

TEST_CASE("saved calibration: found again, and only for its own machine") {
  const TempDir dir;
  const Variable none("DEEPCPU_MACHINE", nullptr);
  const Variable cache("XDG_CACHE_HOME", dir.file("made/on/demand").c_str());
  const std::string path = calibration_path(machine_key(machine())).value();
  CHECK(load_machine_model().source == ModelSource::estimate);
  CHECK(load_machine_model().note.find("not calibrated yet") != std::string::npos);
  if (machine().isa == Isa::interpreter) return;  // has no rates to save
  REQUIRE(save_calibration(of_this_machine(), path).ok());
  const MachineModel model = load_machine_model();
  CHECK(model.source == ModelSource::calibration);
  CHECK(model.note.find(path) != std::string::npos);
  CHECK(model.fma_gflops(Isa::avx2, 1) == 70.4);
  {
    const Variable other("DEEPCPU_MACHINE", xeon_file().c_str());
    CHECK(load_machine_model().source == ModelSource::estimate);
    CHECK(load_machine_model().note.find("is of another machine") != std::string::npos);
  }
  const Variable off("DEEPCPU_MACHINE", "none");
  CHECK(load_machine_model().source == ModelSource::estimate);
  CHECK(load_machine_model().note.find("DEEPCPU_MACHINE=none") == 0);
}

TEST_CASE("saved calibration: a damaged file gives the estimate and says why") {
  const TempDir dir;
  const std::string path = dir.file("machine.json");
  const Variable chosen("DEEPCPU_MACHINE", path.c_str());
  const std::string good = to_json(of_this_machine());
  const auto note = [&](const std::string& content) {
    test::write_bytes(path, content);
    const MachineModel model = load_machine_model();
    CHECK(model.source == ModelSource::estimate);
    CHECK(model.key == machine_key(machine()));
    check_sane(model);
    CHECK(model.note.find(path) == 0);
    return model.note;
  };
  CHECK(note("").find("not valid") != std::string::npos);
  for (std::size_t part = 1; part < 16; ++part) note(good.substr(0, good.size() * part / 16));
  CHECK(note(std::string(100000, '[')).find("nested 100000 deep") != std::string::npos);
  CHECK(note("{\"format\":1,\"format\":1}").find("format: is given twice") != std::string::npos);
  CHECK(note("{\"format\":\"1\"}").find("format: must be a whole number") != std::string::npos);
  CHECK(note("{\"format\":1e999}").find("too large") != std::string::npos);
  CHECK(note(std::string("\0\xff\xfe", 3)).find("not valid") != std::string::npos);
  test::write_bytes(path, "x");
  std::filesystem::resize_file(path, 100 << 20);  // a hole: 100 MB that take no room
  CHECK(load_machine_model().note.find("has 104857600 bytes; must be at most") !=
        std::string::npos);
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  CHECK(load_machine_model().note.find("is not a regular file") != std::string::npos);
}

TEST_CASE("saved calibration: always whole, also with many writers and readers") {
  const TempDir dir;
  const std::string path = dir.file("machine.json");
  REQUIRE(save_calibration(xeon(), path).ok());
  std::vector<std::thread> threads;
  std::vector<int> broken(4, 0);
  for (std::size_t i = 0; i < broken.size(); ++i) {
    threads.emplace_back([&, i] {
      Calibration c = xeon();
      for (int round = 0; round < 25; ++round) {
        c.wake_us = static_cast<double>(i + 1);
        if (!save_calibration(c, path).ok() || !load_calibration(path).ok()) ++broken[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(broken == std::vector<int>(4, 0));
  CHECK(dir.entries() == 1);  // no temporary file is left
}

TEST_CASE("saved calibration: what cannot be written is an error, and the old file stays") {
  const TempDir dir;
  test::write_bytes(dir.file("a_file"), "x");
  CHECK(!save_calibration(xeon(), dir.file("a_file") + "/deeper/machine.json").ok());
  CHECK(!save_calibration(xeon(), "/proc/deepcpu/machine.json").ok());
  CHECK(test::read_bytes(dir.file("a_file")) == "x");
  CHECK(dir.entries() == 1);
}

TEST_CASE("the text of a model says what a run costs whose helpers are parked") {
  const std::string parked = "a run on several threads whose helpers are parked takes about ";
  const MachineModel xeon_model = MachineModel::from(xeon());
  CHECK(to_text(xeon_model).find(parked + "50 us more\n") != std::string::npos);
  Machine one = zen4();
  one.cpus = {0};
  CHECK(to_text(MachineModel::estimate(one)).find(parked) == std::string::npos);
}

TEST_CASE("the model of this machine") {
  const MachineModel& m = machine_model();
  CHECK(&m == &machine_model());
  check_sane(m);
  CHECK(m.key == machine_key(machine()));
  CHECK(m.source == ModelSource::estimate);  // tests run with DEEPCPU_MACHINE=none
  CHECK(to_text(m).find("DEEPCPU_MACHINE=none") != std::string::npos);
}

}  // namespace
}  // namespace deepcpu
