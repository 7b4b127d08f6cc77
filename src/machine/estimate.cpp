// SPDX-License-Identifier: Apache-2.0
/// A machine's rates by rule, from what CPUID tells. They are for choosing between schedules where
/// nobody has measured; a calibration replaces them.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "src/machine/machine_model.hpp"

namespace deepcpu {
namespace {

/// Per cycle of one core: float32 operations (an FMA counts as two), and bytes that FMAs with a
/// memory operand read from each level. Pairs: AVX2 code, AVX-512 code.
struct Design {
  std::string_view vendor;  ///< empty: any
  std::uint32_t family_from;
  std::uint32_t family_to;
  Isa isa;  ///< the most that a machine of this row has
  double flops[2];
  double l1[2];
  double l2[2];
  double l3;
  double memory;
  double l3_together;  ///< of that rate, what each core keeps when all read
  double overlap;      ///< of AVX-512 code, see IsaRates
  double strided;      ///< see IsaRates
};

constexpr std::string_view kAmd = "AuthenticAMD";
constexpr std::string_view kIntel = "GenuineIntel";

/// The first row that fits counts. Sources:
/// AMD family 25 (Zen 3, Zen 4): calibrations of an EPYC, family 25 model 17 (bench/README.md). It
///   executes 512 bits as two halves. The overlap is what fitted the times of hoist_ahead there.
/// AMD family 26 (Zen 5): not measured; taken as twice the width of family 25 for 512-bit FMA, L1
///   and L2, the rest as there.
/// AMD family 23 (Zen 2): not measured; as family 25, less from L3.
/// Intel with AVX2 only: two loads of 32 bytes from L1; L2 and L3 as a user of Intel's forum
/// measured
///   them on a Xeon E5-2680 v3 (54 and 32 GiB/s at 2.5 GHz, reading and writing, so a floor);
///   memory 10 GB/s.
/// Intel with AVX-512: a Granite Rapids (family 6 model 173): 236 GFLOP/s, 310, 177, 29 and 14 GB/s
///   at 3.7 GHz, 47 of 58 GB/s from L3 by two cores. AVX2 code: half the L1 rate, and from L2 one
///   vector a cycle. The strided rate is that of an Emerald Rapids.
/// Any other: one FMA of 256 bits a cycle, the narrowest of the above for the rest.
constexpr Design kDesigns[] = {
    {kAmd, 26, 26, Isa::avx512, {32, 64}, {60, 116}, {64, 64}, 26, 4.6, 1.0, 0.0, 1.0},
    {kAmd, 25, 25, Isa::avx512, {32, 32}, {60, 58}, {32, 32}, 26, 4.6, 1.0, 0.7, 1.0},
    {kAmd, 23, 23, Isa::avx2, {32, 32}, {60, 60}, {32, 32}, 16, 4.6, 1.0, 0.0, 1.0},
    {kIntel, 6, 6, Isa::avx2, {32, 32}, {64, 64}, {23, 23}, 13, 4, 0.8, 0.0, 1.0},
    {kIntel, 6, 6, Isa::avx512, {32, 64}, {42, 84}, {32, 48}, 8, 4, 0.8, 0.0, 0.5},
    {"", 0, UINT32_MAX, Isa::avx512, {16, 32}, {32, 64}, {16, 32}, 8, 4, 0.8, 0.0, 1.0},
};

/// Where CPUID states no frequency: what server CPUs run at when all cores are busy.
constexpr double kClockGhz = 3.0;
/// So many cores reading together saturate the memory of a socket: four channels of DDR4-2400 give
/// 77 GB/s, one core reads 10.
constexpr double kCoresOfMemory = 8.0;
/// One-way transfer between two cores: 130 to 160 ns on a Granite Rapids; on the EPYC about 47 or
/// about 245 ns (bench/README.md).
constexpr double kExchangeNs = 150.0;
/// The calibrations in bench/README.md: 19 to 31.
constexpr double kWakeUs = 25.0;

const Design& design_of(const Machine& m) {
  return *std::find_if(std::begin(kDesigns), std::end(kDesigns), [&m](const Design& d) {
    return (d.vendor.empty() || d.vendor == m.vendor) && m.family >= d.family_from &&
           m.family <= d.family_to && m.isa <= d.isa;
  });
}

/// Logical processors that share a core, by who shares the first level.
std::uint32_t threads_per_core(const Machine& m) { return std::max(1U, m.l1d.shared_by); }

int cores_of(const Machine& m) {
  const double logical = static_cast<double>(std::max<std::size_t>(1, m.cpus.size()));
  double cores = std::max(1.0, std::floor(logical / threads_per_core(m)));
  if (m.cpu_quota > 0.0) cores = std::min(cores, std::ceil(m.cpu_quota));
  return static_cast<int>(cores);
}

class Estimator {
 public:
  explicit Estimator(const Machine& m) : m_(m), design_(design_of(m)), cores_(cores_of(m)) {}

  MachineModel run() const {
    MachineModel model;
    model.key = machine_key(m_);
    model.note = "by rule from vendor, family, ISA and cache sizes; nothing was measured";
    model.clock_ghz = clock();
    model.cores = cores_;
    model.exchange_ns = cores_ > 1 ? kExchangeNs : 0.0;
    model.wake_us = cores_ > 1 ? kWakeUs : 0.0;
    if (m_.isa == Isa::interpreter) model.isas.push_back(isa(Isa::interpreter, 0));
    if (m_.isa >= Isa::avx2) model.isas.push_back(isa(Isa::avx2, 0));
    if (m_.isa >= Isa::avx512) model.isas.push_back(isa(Isa::avx512, 1));
    return model;
  }

 private:
  double clock() const { return m_.tsc_hz > 0.0 ? m_.tsc_hz * 1e-9 : kClockGhz; }

  IsaModel isa(Isa isa, std::size_t column) const {
    IsaModel out;
    out.isa = isa;
    // The interpreter multiplies and adds one float at a time, a few cycles each.
    out.fma_gflops = each(isa == Isa::interpreter ? 0.5 : design_.flops[column]);
    out.strided = design_.strided;
    out.overlap = column == 1 ? design_.overlap : 0.0;
    out.levels.push_back(level("l1", m_.l1d, each(design_.l1[column])));
    out.levels.push_back(level("l2", m_.l2, each(design_.l2[column])));
    if (m_.l3.bytes > m_.l2.bytes) {
      const double kept = design_.l3_together;
      out.levels.push_back(level("l3", m_.l3, each(design_.l3, kept, kept)));
    }
    const double kept = std::min(1.0, kCoresOfMemory / cores_);
    LevelModel memory = level("memory", {}, each(design_.memory, 1.0, kept));
    memory.forward_bytes = memory.alternating_bytes = LevelModel::kUnlimited;
    memory.shared_by = static_cast<std::uint32_t>(cores_);
    out.levels.push_back(memory);
    return out;
  }

  /// `two` and `all`: the part of one core's rate that each keeps when so many are active.
  CoreRates each(double per_cycle, double two = 1.0, double all = 1.0) const {
    const double one = per_cycle * clock();
    return {one, one * (cores_ > 1 ? two : 1.0), one * (cores_ > 1 ? all : 1.0)};
  }

  /// The stated size: a stream of exactly that size still gets half of it from the level when it
  /// is walked forward, and an alternating walk gets all of it (measured on a Granite Rapids: 2 MiB
  /// of L2 serve 1.9 to 2.1 MiB of streams of 3 to 8 MiB).
  LevelModel level(const char* name, const Cache& cache, const CoreRates& rates) const {
    LevelModel out;
    out.name = name;
    out.gbytes_per_s = rates;
    out.forward_bytes = out.alternating_bytes = cache.bytes;
    const std::uint32_t sharing = std::max(1U, cache.shared_by / threads_per_core(m_));
    out.shared_by = std::min(sharing, static_cast<std::uint32_t>(cores_));
    return out;
  }

  const Machine& m_;
  const Design& design_;
  int cores_;
};

}  // namespace

MachineModel MachineModel::estimate(const Machine& machine) { return Estimator(machine).run(); }

}  // namespace deepcpu
