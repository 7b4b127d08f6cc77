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

/// Rates of one core for one ISA.
struct IsaRates {
  Isa isa = Isa::interpreter;
  double fma_gflops = 0.0;            ///< float32, in registers; an FMA counts as two
  double fma_l1_gbytes_per_s = 0.0;   ///< FMA with a memory operand, data in the first level
  double load_l1_gbytes_per_s = 0.0;  ///< plain loads, data in the first level
  bool operator==(const IsaRates&) const = default;
};

/// Where a stream comes from that is read over and over: a cache level or memory.
struct LevelRates {
  std::string name;                     ///< l1, l2, l3, memory
  std::uint64_t stream_bytes = 0;       ///< size of the stream that was timed
  double gbytes_per_s = 0.0;            ///< one core, FMA with a memory operand, best ISA
  double all_cores_gbytes_per_s = 0.0;  ///< sum over all cores, each with its own stream
  /// Bytes of a larger stream that the level still serves when the stream is walked over and over:
  /// always forward, and alternating (forward, then backward). 0 for memory.
  std::uint64_t capacity_forward = 0;
  std::uint64_t capacity_alternating = 0;
  bool operator==(const LevelRates&) const = default;
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
  std::vector<LevelRates> levels;      ///< nearest first; the last is memory
  std::vector<CoreLatency> latencies;  ///< pairs that were measured; empty with one processor
  double latency_ns = 0.0;             ///< their median; 0 with one processor
  double wake_us = 0.0;  ///< from the wake-up call to the parked thread running; 0 alike
  // Evidence, not part of the key.
  int cores = 1;         ///< that took part in the rates of all cores
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
/// reason, a level faster than the one before it, levels without memory at the end.
Status check_calibration(const Calibration& calibration);

/// A few lines of text for people, ending in a newline.
std::string to_text(const Calibration& calibration);

}  // namespace deepcpu
