// SPDX-License-Identifier: Apache-2.0
/// The order of measuring: rates per ISA, rate per level, capacities between two levels, all cores
/// together, then the exchange between threads (thread_probe).
#include "src/machine/calibrate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "deepcpu/version.hpp"
#include "src/machine/probe.hpp"
#include "src/machine/thread_probe.hpp"

namespace deepcpu {
namespace {

using jit::RateKind;

/// An alternating walk turns round by groups of this part of the level: small against it, and long
/// enough for prefetchers, as panels of weights are.
constexpr std::uint64_t kGroupsPerLevel = 16;

/// How long all cores read at the same time; the best round counts.
constexpr double kTogetherSeconds = 0.02;
constexpr int kTogetherRounds = 5;

constexpr std::array<Isa, 2> kEmitted = {Isa::avx2, Isa::avx512};

std::size_t scaled(std::uint64_t bytes, double factor) {
  return static_cast<std::size_t>(static_cast<double>(bytes) * factor);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The steps share what they measure with: loops, one large buffer and how long to look.
class Calibrator {
 public:
  Calibrator(const Machine& machine, Probe probe, ProbeBuffer buffer, double seconds)
      : machine_(machine), probe_(std::move(probe)), buffer_(std::move(buffer)) {
    // Many short rounds: on a busy machine one that is not interrupted is then among them. With
    // some 100 timings (a stream from memory takes longer than a round) 12 s allow 30 rounds.
    effort_.seconds = 1.5e-3;
    effort_.rounds = static_cast<int>(std::clamp(seconds * 2.5, 4.0, 60.0));
    hurry_ = begin_ + 0.7 * seconds;
  }

  Result<Calibration> run() {
    out_.machine = machine_;
    out_.version = DEEPCPU_VERSION;
    out_.clock_ghz = probe_.clock_hz(effort_) * 1e-9;
    if (const Status status = isa_rates(); !status.ok()) return status.error();
    one_core();
    capacities();
    if (const Status status = all_cores(); !status.ok()) return status.error();
    if (const Status status = exchange(); !status.ok()) return status.error();
    out_.seconds = steady_seconds() - begin_;
    if (const Status status = check_calibration(out_); !status.ok()) return status.error();
    return std::move(out_);
  }

 private:
  Status isa_rates() {
    const std::size_t in_l1 = machine_.l1d.bytes / 2;
    for (const Isa isa : kEmitted) {
      if (isa > machine_.isa) continue;
      const Result<Probe> probe = Probe::make(isa);
      if (!probe.ok()) return probe.error();
      const auto read = [&](RateKind kind) {
        return probe->read_rate(kind, buffer_, in_l1, {}, effort_) * 1e-9;
      };
      out_.isas.push_back({isa, probe->fma_flops(effort_) * 1e-9, read(RateKind::fma_memory),
                           read(RateKind::load)});
    }
    return {};
  }

  /// A busy machine stretches every round; late in the run fewer of them must do.
  Effort effort() const {
    constexpr int kFewRounds = 4;
    Effort now = effort_;
    if (steady_seconds() > hurry_) now.rounds = std::min(now.rounds, kFewRounds);
    return now;
  }

  double read(std::size_t bytes, Walk walk) const {
    return probe_.read_rate(RateKind::fma_memory, buffer_, bytes, walk, effort());
  }

  /// Streams that fit: half a private level. Of the last level, which others share and of which
  /// CPUID tells the whole, a stream of four times the level before it.
  void one_core() {
    const auto level = [&](const char* name, std::size_t bytes) {
      LevelRates l;
      l.name = name;
      l.stream_bytes = bytes;
      l.gbytes_per_s = read(bytes, {}) * 1e-9;
      out_.levels.push_back(l);
    };
    level("l1", machine_.l1d.bytes / 2);
    level("l2", machine_.l2.bytes / 2);
    if (machine_.l3.bytes > machine_.l2.bytes) {
      level("l3", std::min(machine_.l2.bytes * 4, machine_.l3.bytes / 2));
    }
    level("memory", buffer_.bytes());
  }

  /// Of a stream of S bytes, `inner` bytes per second up to the capacity C and `outer` beyond it:
  /// time = C / inner + (S - C) / outer, solved for C.
  static double served(double stream, double rate, double inner, double outer) {
    if (inner <= outer) return stream;
    const double c = (stream / outer - stream / rate) / (1.0 / outer - 1.0 / inner);
    return std::clamp(c, 0.0, stream);
  }

  void capacities() {
    for (std::size_t i = 0; i + 1 < out_.levels.size(); ++i) {
      const double inner = out_.levels[i].gbytes_per_s * 1e9;
      const double outer = out_.levels[i + 1].gbytes_per_s * 1e9;
      const std::uint64_t stated = i == 0   ? machine_.l1d.bytes
                                   : i == 1 ? machine_.l2.bytes
                                            : machine_.l3.bytes;
      const std::uint64_t fits = out_.levels[i].stream_bytes;
      out_.levels[i].capacity_forward = forward_capacity(fits, stated, inner, outer);
      out_.levels[i].capacity_alternating = alternating_capacity(fits, stated, inner);
    }
  }

  /// The largest stream, in steps of 2^(1/4), of which more than half is still served by the level
  /// when it is always walked forward.
  std::uint64_t forward_capacity(std::uint64_t fits, std::uint64_t stated, double inner,
                                 double outer) const {
    std::uint64_t best = fits;
    const double ratio = std::pow(2.0, 0.25);
    for (double s = static_cast<double>(fits) * ratio; s <= 2.0 * static_cast<double>(stated);
         s *= ratio) {
      const auto bytes = static_cast<std::size_t>(s);
      if (bytes > buffer_.bytes()) break;
      const double rate = read(bytes, {});
      if (served(s, rate, inner, outer) < 0.5 * s) break;
      best = bytes;
    }
    return best;
  }

  /// Median over streams that are larger than the level of what it serves of them. Forward, such a
  /// stream comes from the level beyond: the two walks are timed one after the other, so that what
  /// disturbs one disturbs both. Never less than a stream that fits.
  std::uint64_t alternating_capacity(std::uint64_t fits, std::uint64_t stated, double inner) const {
    const Walk alternating{true, static_cast<std::size_t>(stated / kGroupsPerLevel)};
    std::vector<double> found;
    for (const double factor : {1.5, 2.0, 3.0}) {
      const std::size_t bytes = scaled(stated, factor);
      if (bytes > buffer_.bytes()) continue;
      const double outer = read(bytes, {});
      found.push_back(served(static_cast<double>(bytes), read(bytes, alternating), inner, outer));
    }
    return std::max(fits, static_cast<std::uint64_t>(median(std::move(found))));
  }

  Status all_cores() {
    const std::vector<int> cpus = usable_cpus(machine_);
    out_.cores = static_cast<int>(cpus.size());
    for (LevelRates& level : out_.levels) {
      for (int round = 0; round < kTogetherRounds; ++round) {
        const Result<double> rate =
            read_rate_together(probe_, cpus, together_bytes(level, cpus.size()), kTogetherSeconds);
        if (!rate.ok()) return rate.error();
        level.all_cores_gbytes_per_s = std::max(level.all_cores_gbytes_per_s, *rate * 1e-9);
      }
    }
    return {};
  }

  /// Bytes per core. What one level holds is shared by several cores from the third level on.
  std::size_t together_bytes(const LevelRates& level, std::size_t cores) const {
    if (level.name == "memory") return std::max(buffer_.bytes() / cores, machine_.l2.bytes * 8);
    if (level.name != "l3") return level.stream_bytes;
    const std::uint64_t share = machine_.l3.bytes / std::max(1U, machine_.l3.shared_by);
    return std::min<std::size_t>(level.stream_bytes, std::max(share, machine_.l2.bytes * 2));
  }

  Status exchange() {
    std::vector<double> all;
    for (const auto& [from, to] : cpu_pairs(usable_cpus(machine_))) {
      const Result<double> seconds = one_way_latency(from, to);
      if (!seconds.ok()) return seconds.error();
      out_.latencies.push_back({from, to, *seconds * 1e9});
      all.push_back(*seconds * 1e9);
    }
    if (all.empty()) return {};
    out_.latency_ns = median(std::move(all));
    const Result<double> wake = wake_seconds();
    if (!wake.ok()) return wake.error();
    out_.wake_us = *wake * 1e6;
    return {};
  }

  const Machine& machine_;
  Probe probe_;
  ProbeBuffer buffer_;
  const double begin_ = steady_seconds();
  double hurry_ = 0.0;  ///< from this moment on, fewer rounds
  Effort effort_;
  Calibration out_;
};

}  // namespace

Result<Calibration> calibrate(const Machine& machine, const CalibrateOptions& options) {
  if (machine.isa == Isa::interpreter) {
    return Error("isa=interpreter: a machine without AVX2 has no rates of emitted code");
  }
  Result<Probe> probe = Probe::make(machine.isa);
  if (!probe.ok()) return probe.error();
  // Well beyond the last level; four times, since the CPU may keep part of a stream.
  const std::uint64_t last = std::max(machine.l2.bytes, machine.l3.bytes);
  const std::uint64_t wanted = std::max<std::uint64_t>(last * 4, machine.l2.bytes * 16);
  Result<ProbeBuffer> buffer = ProbeBuffer::make(std::min(wanted, options.memory_bytes));
  if (!buffer.ok()) return buffer.error();
  return Calibrator(machine, std::move(*probe), std::move(*buffer), options.seconds).run();
}

}  // namespace deepcpu
