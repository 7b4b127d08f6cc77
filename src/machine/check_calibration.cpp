// SPDX-License-Identifier: Apache-2.0
/// What no machine can be.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "src/io/quote.hpp"
#include "src/machine/calibrate.hpp"

namespace deepcpu {
namespace {

/// Bounds are wide: a slow emulator at one end, a machine of the next decade at the other. They
/// catch wrong units, zeros and slips of the pen.
struct Range {
  double low;
  double high;
};
constexpr Range kClock{0.01, 20.0};       // GHz
constexpr Range kFlops{0.01, 1e5};        // GFLOP/s of one core
constexpr Range kReads{0.01, 1e5};        // GB/s of one core
constexpr Range kOverlap{-100.0, 1.0};    // a part
constexpr Range kStrided{0.01, 1.0};      // a part
constexpr Range kTsc{1e7, 2e10};          // Hz
constexpr Range kLatency{1.0, 1e6};       // ns
constexpr Range kWake{0.05, 1e6};         // us
constexpr Range kStream{1024.0, 1e13};    // bytes
constexpr Range kCapacity{1024.0, 1e13};  // bytes

/// Collects the first refusal.
class Checker {
 public:
  void range(const std::string& field, double value, Range range) {
    if (std::isfinite(value) && value >= range.low && value <= range.high) return;
    refuse(field, fmt::format("{}", value),
           fmt::format("must be between {} and {}", range.low, range.high));
  }
  void refuse(const std::string& field, const std::string& value, const std::string& rule) {
    if (status_.ok()) status_ = Error(fmt::format("{}={}: {}", field, value, rule));
  }
  Status take() { return status_; }

 private:
  Status status_;
};

void check_machine(const Machine& m, Checker& check) {
  check.range("machine.l1d.bytes", static_cast<double>(m.l1d.bytes), kCapacity);
  check.range("machine.l2.bytes", static_cast<double>(m.l2.bytes), kCapacity);
  if (m.l3.bytes != 0) {
    check.range("machine.l3.bytes", static_cast<double>(m.l3.bytes), kCapacity);
  }
  if (m.cpus.empty()) check.refuse("machine.cpus", "[]", "must hold at least one processor");
  if (!std::isfinite(m.cpu_quota) || m.cpu_quota < 0.0) {
    check.refuse("machine.cpu_quota", fmt::format("{}", m.cpu_quota), "must be 0 (none) or more");
  }
  if (m.tsc_hz != 0.0) check.range("machine.tsc_hz", m.tsc_hz, kTsc);
}

/// What noise may add to a rate that is the same as the one that bounds it.
constexpr double kNoise = 1.25;
/// Cores that get in each other's way may get less together than one alone. This much less is a
/// wrong unit.
constexpr double kMostLoss = 8.0;

/// Each core's rate while `one`, two and all `cores` of them are active.
void check_rates(const std::string& at, const CoreRates& r, int cores, Range range,
                 Checker& check) {
  check.range(at + ".one", r.one, range);
  check.range(at + ".two", r.two, range);
  check.range(at + ".all", r.all, range);
  const auto several = [&](const char* name, double rate, double fewer, int active) {
    if (rate > kNoise * fewer) {
      check.refuse(at + name, fmt::format("{}", rate),
                   "must not be more than what each gets of fewer active cores");
    }
    if (kMostLoss * rate * active < r.one) {
      check.refuse(
          at + name, fmt::format("{}", rate),
          fmt::format("{} active core{} must not get less than 1/{} of what one gets alone", active,
                      active == 1 ? "" : "s", kMostLoss));
    }
  };
  several(".two", r.two, r.one, std::clamp(cores, 1, 2));
  several(".all", r.all, r.two, std::max(cores, 1));
}

/// `reads[level]` beside the level before it.
void check_slower(const std::string& at, const CoreRates& rates, const CoreRates& nearer,
                  Checker& check) {
  const auto slower = [&](const char* name, double rate, double bound) {
    if (rate <= kNoise * bound) return;
    check.refuse(at + name, fmt::format("{}", rate), "must not be faster than the level before it");
  };
  slower(".one", rates.one, nearer.one);
  slower(".two", rates.two, nearer.two);
  slower(".all", rates.all, nearer.all);
}

void check_reads(const IsaRates& r, const std::string& at, std::size_t levels, int cores,
                 Checker& check) {
  const auto& reads = r.read_gbytes_per_s;
  if (reads.size() != levels) {
    check.refuse(at + "read_gbytes_per_s", fmt::format("{} entries", reads.size()),
                 "must hold one entry per level");
  }
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const std::string field = fmt::format("{}read_gbytes_per_s[{}]", at, i);
    check_rates(field, reads[i], cores, kReads, check);
    if (i > 0) check_slower(field, reads[i], reads[i - 1], check);
  }
}

void check_isas(const Calibration& c, Checker& check) {
  if (c.isas.empty()) check.refuse("isas", "[]", "must hold at least one ISA");
  for (std::size_t i = 0; i < c.isas.size(); ++i) {
    const IsaRates& r = c.isas[i];
    const std::string at = fmt::format("isas[{}].", i);
    if (r.isa == Isa::interpreter || r.isa > c.machine.isa) {
      check.refuse(at + "isa", std::string(to_string(r.isa)),
                   "must be one that the machine has and code is emitted for");
    }
    if (i > 0 && r.isa <= c.isas[i - 1].isa) {
      check.refuse(at + "isa", std::string(to_string(r.isa)), "must follow a weaker ISA");
    }
    check_rates(at + "fma_gflops", r.fma_gflops, c.cores, kFlops, check);
    check.range(at + "load_l1_gbytes_per_s", r.load_l1_gbytes_per_s, kReads);
    check.range(at + "overlap", r.overlap, kOverlap);
    check.range(at + "strided", r.strided, kStrided);
    check_reads(r, at, c.levels.size(), c.cores, check);
  }
}

void check_level(const LevelCapacity& level, const std::string& at, bool is_memory, int cores,
                 Checker& check) {
  check.range(at + "stream_bytes", static_cast<double>(level.stream_bytes), kStream);
  if (level.shared_by < 1 || level.shared_by > static_cast<std::uint32_t>(std::max(cores, 1))) {
    check.refuse(at + "shared_by", std::to_string(level.shared_by),
                 "must be between 1 and the number of cores");
  }
  const auto capacity = [&](const char* name, std::uint64_t bytes) {
    if (!is_memory) check.range(at + name, static_cast<double>(bytes), kCapacity);
    if (is_memory && bytes != 0) {
      check.refuse(at + name, std::to_string(bytes), "must be 0 for memory");
    }
  };
  capacity("forward_bytes", level.forward_bytes);
  capacity("alternating_bytes", level.alternating_bytes);
}

void check_levels(const Calibration& c, Checker& check) {
  constexpr std::array<std::string_view, 3> kCaches = {"l1", "l2", "l3"};
  const std::size_t count = c.levels.size();
  if (count < 3 || count > kCaches.size() + 1) {
    check.refuse("levels", fmt::format("{} entries", count),
                 "must be l1, l2, l3 if there is one, and memory");
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::string at = fmt::format("levels[{}].", i);
    const bool last = i + 1 == count;
    const std::string_view name = last ? "memory" : kCaches[i];
    if (c.levels[i].name != name) {
      check.refuse(at + "name", quote(c.levels[i].name), fmt::format("must be {}", name));
    }
    check_level(c.levels[i], at, last, c.cores, check);
    if (i == 0) continue;
    const LevelCapacity& level = c.levels[i];
    const LevelCapacity& nearer = c.levels[i - 1];
    const auto rising = [&](const char* field, std::uint64_t bytes, std::uint64_t before) {
      if (bytes >= before) return;
      check.refuse(at + field, std::to_string(bytes),
                   "must not be smaller than that of the level before it");
    };
    rising("stream_bytes", level.stream_bytes, nearer.stream_bytes);
    if (last) continue;  // memory states no capacity
    rising("forward_bytes", level.forward_bytes, nearer.forward_bytes);
    rising("alternating_bytes", level.alternating_bytes, nearer.alternating_bytes);
  }
}

}  // namespace

Status check_calibration(const Calibration& c) {
  Checker check;
  check_machine(c.machine, check);
  check.range("clock_ghz", c.clock_ghz, kClock);
  if (c.cores < 1 || c.cores > 1 << 16) {
    check.refuse("cores", std::to_string(c.cores), "must be between 1 and 65536");
  }
  check_levels(c, check);
  check_isas(c, check);
  for (std::size_t i = 0; i < c.latencies.size(); ++i) {
    check.range(fmt::format("latencies[{}].nanoseconds", i), c.latencies[i].nanoseconds, kLatency);
  }
  if (c.cores > 1 || !c.latencies.empty()) {
    check.range("latency_ns", c.latency_ns, kLatency);
    check.range("wake_us", c.wake_us, kWake);
  }
  return check.take();
}

Status check_machine(const Machine& machine) {
  Checker check;
  check_machine(machine, check);
  return check.take();
}

}  // namespace deepcpu
