// SPDX-License-Identifier: Apache-2.0
/// The order of measuring: rates of one, two and all cores in rounds that take turns, the edges
/// between levels, then the exchange between threads (thread_probe).
#include "src/machine/calibrate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "deepcpu/version.hpp"
#include "src/machine/capacity.hpp"
#include "src/machine/probe.hpp"
#include "src/machine/system.hpp"
#include "src/machine/thread_probe.hpp"
#include "src/quantile.hpp"

namespace deepcpu {
namespace {

using jit::RateKind;

constexpr std::array<Isa, 2> kEmitted = {Isa::avx2, Isa::avx512};

/// Shares of the time limit by which each part ends, and how many rounds it takes: more do not
/// change the result.
struct Part {
  double end;
  int least;
  int most;
};
constexpr Part kRates{0.4, 3, 16};
constexpr Part kPrivate{0.5, kPlaces / 2, 2 * kPlaces};
constexpr Part kCoarse{0.55, 2, 4};
constexpr Part kLast{0.95, 3, 4 * kPlaces};

constexpr double kRateSeconds = 5e-3;
/// A pass over a stream from memory takes milliseconds; some of them must fit.
constexpr double kMemorySeconds = 25e-3;
constexpr double kStreamSeconds = 6e-4;

double best(const std::vector<double>& values) {
  return values.empty() ? 0.0 : *std::max_element(values.begin(), values.end());
}

/// Of a cache's rate the best round counts: whatever disturbs makes it slower. Memory, and how much
/// of a shared level one core gets, change with what others do, other virtual machines too: the
/// median.
using Statistic = double (*)(const std::vector<double>&);
double typical(const std::vector<double>& values) { return median(values); }

/// All rounds of one rate, by how many cores were active.
struct Rounds {
  std::vector<double> one;
  std::vector<double> two;
  std::vector<double> all;

  /// No core is faster while others are active: what comes out so is a disturbed round.
  CoreRates rates(Statistic statistic) const {
    const double single = statistic(one);
    const double pair = two.empty() ? single : std::min(single, statistic(two));
    return {single, pair, all.empty() ? pair : std::min(pair, statistic(all))};
  }
};

struct IsaRounds {
  Rounds fma;
  Rounds load;
  Rounds mixed;               ///< fma_mixed from L2
  Rounds strided;             ///< fma_strided from L2
  std::vector<Rounds> reads;  ///< by level
};

/// See IsaRates::overlap. All rates in 10^9 per second: FLOPs, and bytes of streams from L2.
double overlap_of(double fma, double l2, double mixed) {
  const double stream = 4.0 / l2;  // seconds per number, in 1e-9
  const double further = 2.0 / fma;
  return std::min(1.0, 1.0 - (4.0 / mixed - stream) / further);
}

/// A level while it is measured.
struct Level {
  LevelCapacity out;
  std::uint64_t stated = 0;
  std::size_t bytes_one = 0;  ///< of the stream when one core is active, two, and all
  std::size_t bytes_two = 0;
  std::size_t bytes_all = 0;
};

std::uint32_t cores_sharing(const Machine& m, const Cache& cache, std::size_t cores) {
  const std::uint32_t sharing = cache.shared_by / std::max(1U, m.l1d.shared_by);
  return std::clamp(sharing, 1U, static_cast<std::uint32_t>(cores));
}

/// Half of a private level leaves room for the stack and for pages that fall together. Of the last
/// level, which others share and of which CPUID tells the whole, a stream of four times the level
/// before it. Memory: `most` bytes for all active cores together.
std::vector<Level> plan_levels(const Machine& m, std::size_t cores, std::size_t most) {
  std::vector<Level> levels;
  const auto add = [&](const char* name, const Cache& cache, std::array<std::size_t, 3> bytes) {
    Level l;
    l.out.name = name;
    l.out.shared_by = cores_sharing(m, cache, cores);
    l.stated = cache.bytes;
    l.bytes_one = bytes[0];
    l.bytes_two = bytes[1];
    l.bytes_all = bytes[2];
    l.out.stream_bytes = l.bytes_one;
    levels.push_back(l);
  };
  const std::size_t l1 = m.l1d.bytes / 2;
  const std::size_t l2 = m.l2.bytes / 2;
  add("l1", m.l1d, {l1, l1, l1});
  add("l2", m.l2, {l2, l2, l2});
  if (m.l3.bytes > m.l2.bytes) {
    const std::size_t one = std::min<std::size_t>(m.l2.bytes * 4, m.l3.bytes / 2);
    const std::size_t part = m.l3.bytes / cores_sharing(m, m.l3, cores);
    const std::size_t all = std::min(std::max(part / 2, m.l2.bytes * 2), one);
    add("l3", m.l3, {one, cores > 2 ? one : std::min(one, all), all});
  }
  const std::size_t least = m.l2.bytes * 8;
  Cache memory;
  memory.shared_by = static_cast<std::uint32_t>(m.cpus.size());
  add("memory", memory, {most, std::max(most / 2, least), std::max(most / cores, least)});
  return levels;
}

/// The steps share what they measure with: loops, memory of every core and a clock.
class Calibrator {
 public:
  Calibrator(const Machine& machine, std::vector<Probe> probes, CoreGroup group,
             std::vector<Level> levels, double seconds)
      : machine_(machine),
        probes_(std::move(probes)),
        group_(std::move(group)),
        levels_(std::move(levels)),
        limit_(seconds) {}

  Result<Calibration> run(const std::vector<int>& cpus, double begin) {
    begin_ = begin;
    out_.machine = machine_;
    out_.version = DEEPCPU_VERSION;
    out_.cores = group_.cores();
    Status status = rates();
    if (status.ok()) status = run_on(cpus.front(), [this] { one_core(); });
    if (status.ok()) status = exchange(cpus);
    if (!status.ok()) return status.error();
    for (Level& l : levels_) out_.levels.push_back(l.out);
    out_.seconds = steady_seconds() - begin_;
    if (status = check_calibration(out_); !status.ok()) return status.error();
    return std::move(out_);
  }

 private:
  bool more(int rounds, const Part& part) const {
    if (rounds < part.least) return true;
    return rounds < part.most && steady_seconds() - begin_ < part.end * limit_;
  }

  bool is_private(std::size_t level) const { return level < 2; }

  /// No level is faster than a nearer one. On a busy machine single rates can come out lower than
  /// they are.
  static CoreRates no_faster(CoreRates rates, const CoreRates& nearer) {
    return {std::min(rates.one, nearer.one), std::min(rates.two, nearer.two),
            std::min(rates.all, nearer.all)};
  }

  /// Rounds take turns among all rates, so that what disturbs for a while does not hit one of them
  /// alone.
  Status rates() {
    std::vector<IsaRounds> rounds(probes_.size());
    for (IsaRounds& isa : rounds) isa.reads.resize(levels_.size());
    for (int round = 0; more(round, kRates); ++round) {
      for (std::size_t i = 0; i < probes_.size(); ++i) {
        if (Status status = one_round(probes_[i], round, rounds[i]); !status.ok()) {
          return status;
        }
      }
    }
    for (std::size_t i = 0; i < probes_.size(); ++i) {
      IsaRates isa;
      isa.isa = probes_[i].isa();
      isa.fma_gflops = rounds[i].fma.rates(best);
      isa.load_l1_gbytes_per_s = rounds[i].load.rates(best).one;
      for (std::size_t l = 0; l < levels_.size(); ++l) {
        const bool memory = l + 1 == levels_.size();
        const CoreRates read = rounds[i].reads[l].rates(memory ? typical : best);
        const auto& nearer = isa.read_gbytes_per_s;
        isa.read_gbytes_per_s.push_back(nearer.empty() ? read : no_faster(read, nearer.back()));
      }
      isa.overlap = overlap_of(isa.fma_gflops.one, isa.read_gbytes_per_s[1].one,
                               rounds[i].mixed.rates(best).one);
      isa.strided = std::min(1.0, rounds[i].strided.rates(best).one / isa.read_gbytes_per_s[1].one);
      out_.isas.push_back(std::move(isa));
    }
    return {};
  }

  Status one_round(const Probe& probe, int round, IsaRounds& into) const {
    const Level& l1 = levels_.front();
    Status status = cores_round(probe, RateKind::fma_registers, l1, round, into.fma);
    for (std::size_t i = 0; status.ok() && i < levels_.size(); ++i) {
      status = cores_round(probe, RateKind::fma_memory, levels_[i], round, into.reads[i]);
    }
    if (!status.ok()) return status;
    const Level& l2 = levels_[1];
    for (const auto& [kind, to] : {std::pair{RateKind::fma_mixed, &into.mixed},
                                   std::pair{RateKind::fma_strided, &into.strided}}) {
      status = add(probe, {kind, l2.bytes_one, 1, round, kRateSeconds}, to->one);
      if (!status.ok()) return status;
    }
    return add(probe, {RateKind::load, l1.bytes_one, 1, round, kRateSeconds}, into.load.one);
  }

  Status cores_round(const Probe& probe, RateKind kind, const Level& level, int round,
                     Rounds& into) const {
    const int cores = group_.cores();
    const double seconds = &level == &levels_.back() ? kMemorySeconds : kRateSeconds;
    Status status = add(probe, {kind, level.bytes_one, 1, round, seconds}, into.one);
    if (status.ok() && cores >= 2) {
      status = add(probe, {kind, level.bytes_two, 2, round, seconds}, into.two);
    }
    if (status.ok() && cores > 2) {
      status = add(probe, {kind, level.bytes_all, cores, round, seconds}, into.all);
    }
    return status;
  }

  Status add(const Probe& probe, const CoreGroup::Work& work, std::vector<double>& to) const {
    const Result<double> rate = group_.rate(probe, work);
    if (!rate.ok()) return rate.error();
    to.push_back(*rate * 1e-9);
    return {};
  }

  /// Clock and capacities, on the thread that owns the large buffer.
  void one_core() {
    out_.clock_ghz = probes_.back().clock_hz() * 1e-9;
    for (std::size_t i = 0; i + 1 < levels_.size(); ++i) {
      if (!is_private(i)) {
        last_capacity(levels_[i]);
        continue;
      }
      const std::size_t outer = std::max(levels_[i + 1].bytes_one, levels_[i].stated * 3);
      const CapacityPlan plan = private_plan(levels_[i].stated, outer);
      edges(levels_[i], plan, kPrivate, best);
    }
    // A level serves at least what a nearer one does.
    for (std::size_t i = 1; i + 1 < levels_.size(); ++i) {
      const LevelCapacity& nearer = levels_[i - 1].out;
      LevelCapacity& out = levels_[i].out;
      out.forward_bytes = std::max(out.forward_bytes, nearer.forward_bytes);
      out.alternating_bytes = std::max(out.alternating_bytes, nearer.alternating_bytes);
    }
  }

  /// First a coarse look, since the size may be far from what is stated.
  void last_capacity(Level& level) const {
    const std::size_t most = group_.buffer(0).bytes();
    edges(level, coarse_plan(level.bytes_one, most), kCoarse, typical);
    if (!level.out.measured) return;
    edges(level, fine_plan(level.bytes_one, level.out.forward_bytes, most), kLast, typical);
  }

  using Curve = std::vector<StreamRate>;

  struct Stream {
    std::size_t bytes;
    Walk walk;
  };

  /// Rates of those streams, which take turns: `statistic` of the rounds at each place in memory,
  /// and the median over places.
  Curve read(const std::vector<Stream>& streams, const Part& part, Statistic statistic) const {
    const ProbeBuffer& buffer = group_.buffer(0);
    std::vector<std::map<int, std::vector<double>>> rounds(streams.size());
    for (int round = 0; more(round, part); ++round) {
      for (std::size_t i = 0; i < streams.size(); ++i) {
        const auto& [bytes, walk] = streams[i];
        const std::size_t at = place_offset(buffer.bytes(), bytes, round);
        rounds[i][round % kPlaces].push_back(
            probes_.back().stream_rate(buffer, at, bytes, walk, kStreamSeconds));
      }
    }
    Curve curve;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      std::vector<double> rates;
      for (const auto& [place, values] : rounds[i]) rates.push_back(statistic(values));
      curve.push_back({static_cast<double>(streams[i].bytes), median(std::move(rates))});
    }
    return curve;
  }

  /// Both capacities from the same rounds; the alternating one only if the plan has sizes for it.
  void edges(Level& level, const CapacityPlan& plan, const Part& part, Statistic statistic) const {
    std::vector<Stream> streams = {{plan.outer, {}}, {plan.inner, {}}};
    for (const std::size_t bytes : plan.forward) streams.push_back({bytes, {}});
    for (const std::size_t bytes : plan.alternating) streams.push_back({bytes, {true, plan.group}});
    const Curve curve = read(streams, part, statistic);
    const double outer = curve[0].rate;
    const double inner = curve[1].rate;
    const auto turn = curve.begin() + 2 + static_cast<std::ptrdiff_t>(plan.forward.size());
    const auto forward = forward_capacity({curve.begin() + 1, turn}, inner, outer);
    const auto alternating = alternating_capacity({turn, curve.end()}, inner, outer);
    level.out.measured = forward.has_value();
    level.out.forward_bytes = forward ? static_cast<std::uint64_t>(*forward) : level.stated;
    level.out.alternating_bytes = level.out.forward_bytes;
    if (forward && alternating) {
      level.out.alternating_bytes =
          std::max<std::uint64_t>(static_cast<std::uint64_t>(*alternating), plan.inner);
    }
  }

  Status exchange(const std::vector<int>& cpus) {
    std::vector<double> all;
    for (const auto& [from, to] : cpu_pairs(cpus)) {
      const Result<double> seconds = one_way_latency(from, to);
      if (!seconds.ok()) return seconds.error();
      out_.latencies.push_back({from, to, *seconds * 1e9});
      all.push_back(*seconds * 1e9);
    }
    if (all.empty()) return {};
    out_.latency_ns = median(std::move(all));
    const Result<double> wake = wake_seconds(cpus[0], cpus[1]);
    if (!wake.ok()) return wake.error();
    out_.wake_us = *wake * 1e6;
    return {};
  }

  const Machine& machine_;
  std::vector<Probe> probes_;  ///< weakest ISA first
  CoreGroup group_;
  std::vector<Level> levels_;
  double limit_;
  double begin_ = 0.0;
  Calibration out_;
};

/// Bytes of one stream from memory: well beyond the last level, which may be larger than stated,
/// within what the caller allows, and a fraction of what is free.
std::size_t memory_stream(const Machine& m, const CalibrateOptions& options) {
  constexpr std::uint64_t kLeast = 256 << 20;
  const std::uint64_t last = std::max(m.l2.bytes, m.l3.bytes);
  std::uint64_t bytes = std::min(std::max(last * 4, kLeast), options.memory_bytes);
  // The first core takes all of it, the second half, the others together as much again.
  bytes = std::min(bytes, available_memory("") / 4);
  return std::max<std::uint64_t>(bytes, m.l2.bytes * 8) & ~std::uint64_t{4095};
}

}  // namespace

Result<Calibration> calibrate(const Machine& machine, const CalibrateOptions& options) {
  const double begin = steady_seconds();
  if (machine.isa == Isa::interpreter) {
    return Error("isa=interpreter: a machine without AVX2 has no rates of emitted code");
  }
  std::vector<Probe> probes;
  for (const Isa isa : kEmitted) {
    if (isa > machine.isa) continue;
    Result<Probe> probe = Probe::make(isa);
    if (!probe.ok()) return probe.error();
    probes.push_back(std::move(*probe));
  }
  const std::vector<int> cpus = usable_cpus(machine);
  std::vector<Level> levels = plan_levels(machine, cpus.size(), memory_stream(machine, options));
  const Level& memory = levels.back();
  std::vector<std::size_t> bytes(cpus.size(), memory.bytes_all);
  bytes[0] = memory.bytes_one;
  if (bytes.size() > 1) bytes[1] = memory.bytes_two;
  Result<CoreGroup> group = CoreGroup::make(cpus, bytes);
  if (!group.ok()) return group.error();
  return Calibrator(machine, std::move(probes), std::move(*group), std::move(levels),
                    options.seconds)
      .run(cpus, begin);
}

}  // namespace deepcpu
