// SPDX-License-Identifier: Apache-2.0
/// The machine model: how fast this machine computes, reads, hands over and wakes, measured with
/// emitted code. The cost model knows nothing else of a machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/machine/machine.hpp"

namespace deepcpu {

/// A rate of each core while one, two or all cores do the same work, each on data of its own. With
/// fewer cores than that, as many as there are.
struct CoreRates {
  double one = 0.0;
  double two = 0.0;
  double all = 0.0;
  bool operator==(const CoreRates&) const = default;
};

/// What one core does with the code of one ISA. GB = 10^9 bytes.
struct IsaRates {
  Isa isa = Isa::interpreter;
  CoreRates fma_gflops;               ///< float32, in registers; an FMA counts as two
  double load_l1_gbytes_per_s = 0.0;  ///< plain loads, data in the first level, one core
  /// Of multiply-adds that need nothing from the stream, the part that costs no time among those
  /// of a stream from L2 (jit::RateKind::fma_mixed): 1 = all run while it waits, below 0 = they
  /// take longer there than by themselves. One core.
  double overlap = 0.0;
  /// Of the rate from L2, the part that is left where every fourth vector of a stream is read
  /// (jit::RateKind::fma_strided), one core: banks of a cache, and prefetchers, may be chosen by an
  /// address's low bits.
  double strided = 1.0;
  /// FMA with a memory operand, one entry per level of Calibration::levels.
  std::vector<CoreRates> read_gbytes_per_s;
  bool operator==(const IsaRates&) const = default;
};

/// Where a stream comes from that is read over and over: a cache level or memory.
struct LevelCapacity {
  std::string name;                ///< l1, l2, l3, memory
  std::uint64_t stream_bytes = 0;  ///< of each core's stream whose rate was measured
  std::uint32_t shared_by = 1;     ///< cores that took part and share one instance; 1 = private
  /// Always forward: the largest stream of which the level still serves half. Of a much larger one
  /// it serves next to nothing. 0 for memory.
  std::uint64_t forward_bytes = 0;
  /// Alternating (forward, then backward, in groups of 1/16 of the level): the bytes of any larger
  /// stream that the level serves. 0 for memory.
  std::uint64_t alternating_bytes = 0;
  /// Whether the two capacities were measured. The next level must be enough slower for that; else
  /// they are the stated size, and hardly matter.
  bool measured = false;
  bool operator==(const LevelCapacity&) const = default;
};

/// One-way transfer of a cache line between two logical processors.
struct CoreLatency {
  int from = 0;
  int to = 0;
  double nanoseconds = 0.0;
  bool operator==(const CoreLatency&) const = default;
};

struct Calibration {
  Machine machine;
  double clock_ghz = 0.0;
  std::vector<IsaRates> isas;          ///< every ISA of the machine that has code, weakest first
  std::vector<LevelCapacity> levels;   ///< nearest first; the last is memory
  std::vector<CoreLatency> latencies;  ///< pairs that were measured; empty with one processor
  double latency_ns = 0.0;             ///< their median; 0 with one processor
  double wake_us = 0.0;  ///< from the wake-up call to the parked thread running; 0 alike
  // Evidence, not part of the key.
  int cores = 1;         ///< that "all" stands for in CoreRates
  double seconds = 0.0;  ///< that the measuring took
  std::string version;   ///< of the library
};

struct CalibrateOptions {
  /// Rough limit of the whole run. Rounds get shorter to keep it; 2 s gives a coarse model.
  double seconds = 12.0;
  /// Most bytes that one stream from memory may take.
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;
};

/// Measures this machine. Needs it for itself: what else runs is measured too. Pins its own helper
/// threads and never the caller. Errors: no AVX2; no executable memory; not enough memory; a result
/// that check_calibration refuses.
Result<Calibration> calibrate(const Machine& machine, const CalibrateOptions& options = {});

/// Refuses, by field, what no machine can be: rates that are zero, not finite or beyond all
/// reason, a core that is faster when others are active, a level that is faster or smaller than the
/// one before it, other levels than l1, l2, l3 and memory.
Status check_calibration(const Calibration& calibration);
/// The part of it that concerns what CPUID and the system tell.
Status check_machine(const Machine& machine);

}  // namespace deepcpu
