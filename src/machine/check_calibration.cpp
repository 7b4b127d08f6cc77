// SPDX-License-Identifier: Apache-2.0
/// What no machine can be, and the calibration as text.
#include <fmt/format.h>

#include <cmath>
#include <iterator>

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
constexpr Range kAllReads{0.01, 1e8};     // GB/s of all cores
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
    check.range(at + "fma_gflops", r.fma_gflops, kFlops);
    check.range(at + "fma_l1_gbytes_per_s", r.fma_l1_gbytes_per_s, kReads);
    check.range(at + "load_l1_gbytes_per_s", r.load_l1_gbytes_per_s, kReads);
  }
}

void check_level(const LevelRates& level, const std::string& at, bool is_memory, Checker& check) {
  check.range(at + "stream_bytes", static_cast<double>(level.stream_bytes), kStream);
  check.range(at + "gbytes_per_s", level.gbytes_per_s, kReads);
  check.range(at + "all_cores_gbytes_per_s", level.all_cores_gbytes_per_s, kAllReads);
  const auto capacity = [&](const char* name, std::uint64_t bytes) {
    if (!is_memory) check.range(at + name, static_cast<double>(bytes), kCapacity);
    if (is_memory && bytes != 0) {
      check.refuse(at + name, std::to_string(bytes), "must be 0 for memory");
    }
  };
  capacity("capacity_forward", level.capacity_forward);
  capacity("capacity_alternating", level.capacity_alternating);
}

void check_levels(const Calibration& c, Checker& check) {
  // What noise may add to a level that is as fast as the one before it.
  constexpr double kNoise = 1.25;
  if (c.levels.size() < 2) {
    check.refuse("levels", fmt::format("{} entries", c.levels.size()),
                 "must hold at least one cache and memory");
    return;
  }
  for (std::size_t i = 0; i < c.levels.size(); ++i) {
    const std::string at = fmt::format("levels[{}].", i);
    const bool last = i + 1 == c.levels.size();
    if ((c.levels[i].name == "memory") != last) {
      check.refuse(at + "name", c.levels[i].name, "memory must be the last level, and only it");
    }
    check_level(c.levels[i], at, last, check);
    if (i > 0 && c.levels[i].gbytes_per_s > kNoise * c.levels[i - 1].gbytes_per_s) {
      check.refuse(at + "gbytes_per_s", fmt::format("{}", c.levels[i].gbytes_per_s),
                   "must not be faster than the level before it");
    }
    if (i > 0 && c.levels[i].stream_bytes < c.levels[i - 1].stream_bytes) {
      check.refuse(at + "stream_bytes", std::to_string(c.levels[i].stream_bytes),
                   "must not be smaller than that of the level before it");
    }
  }
}

}  // namespace

Status check_calibration(const Calibration& c) {
  Checker check;
  check.range("clock_ghz", c.clock_ghz, kClock);
  check_isas(c, check);
  check_levels(c, check);
  for (std::size_t i = 0; i < c.latencies.size(); ++i) {
    check.range(fmt::format("latencies[{}].nanoseconds", i), c.latencies[i].nanoseconds, kLatency);
  }
  if (c.cores < 1) check.refuse("cores", std::to_string(c.cores), "must be at least 1");
  if (c.cores > 1 || !c.latencies.empty()) {
    check.range("latency_ns", c.latency_ns, kLatency);
    check.range("wake_us", c.wake_us, kWake);
  }
  return check.take();
}

std::string to_text(const Calibration& c) {
  std::string out;
  const auto add = std::back_inserter(out);
  fmt::format_to(add, "calibration of {} ({:.1f} s, {} core{}, version {})\n",
                 machine_key(c.machine), c.seconds, c.cores, c.cores == 1 ? "" : "s", c.version);
  fmt::format_to(add, "clock {:.2f} GHz\n\n", c.clock_ghz);
  fmt::format_to(add, "{:<8}{:>14}{:>18}{:>18}\n", "isa", "FMA GFLOP/s", "L1 FMA GB/s",
                 "L1 load GB/s");
  for (const IsaRates& r : c.isas) {
    fmt::format_to(add, "{:<8}{:>14.1f}{:>18.1f}{:>18.1f}\n", to_string(r.isa), r.fma_gflops,
                   r.fma_l1_gbytes_per_s, r.load_l1_gbytes_per_s);
  }
  fmt::format_to(add, "\n{:<8}{:>12}{:>16}{:>16}{:>18}{:>18}\n", "level", "stream KiB",
                 "one core GB/s", "all cores GB/s", "forward KiB", "alternating KiB");
  for (const LevelRates& l : c.levels) {
    fmt::format_to(add, "{:<8}{:>12}{:>16.1f}{:>16.1f}{:>18}{:>18}\n", l.name, l.stream_bytes >> 10,
                   l.gbytes_per_s, l.all_cores_gbytes_per_s, l.capacity_forward >> 10,
                   l.capacity_alternating >> 10);
  }
  if (!c.latencies.empty()) {
    fmt::format_to(add, "\none-way latency between cores {:.0f} ns (median of {} pairs)\n",
                   c.latency_ns, c.latencies.size());
    fmt::format_to(add, "a parked thread runs after {:.1f} us\n", c.wake_us);
  }
  return out;
}

}  // namespace deepcpu
