// SPDX-License-Identifier: Apache-2.0
/// What the cost model knows of a machine: rates, capacities and latencies, from a calibration or
/// estimated from what CPUID tells. Plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/machine/calibrate.hpp"
#include "src/machine/machine.hpp"

namespace deepcpu {

enum class ModelSource : std::uint8_t {
  estimate,     ///< by rule from vendor, family, ISA and cache sizes
  calibration,  ///< measured
  description,  ///< figures that somebody wrote down: a calibration that took 0 seconds
};

std::string_view to_string(ModelSource source) noexcept;

/// Where a stream of weights comes from that is read over and over.
struct LevelModel {
  std::string name;        ///< l1, l2, l3, memory
  CoreRates gbytes_per_s;  ///< 10^9 bytes per second and core, FMA with a memory operand
  /// Bytes of a core's stream that the level serves, walked always forward or alternating (see
  /// LevelCapacity). Of a level that cores share: what one core gets that is alone; at() of
  /// MachineModel gives its share. Memory: kUnlimited.
  std::uint64_t forward_bytes = 0;
  std::uint64_t alternating_bytes = 0;
  std::uint32_t shared_by = 1;  ///< cores that share one instance; 1 = private
  bool measured = false;        ///< the two capacities; false: they are the stated size
  static constexpr std::uint64_t kUnlimited = UINT64_MAX;
};

/// IsaModel::levels from here on are beyond the L2 cache.
inline constexpr std::size_t kBeyondL2 = 2;

/// One core with the code of one ISA.
struct IsaModel {
  Isa isa = Isa::interpreter;
  CoreRates fma_gflops;  ///< float32 per core; an FMA counts as two
  double overlap = 0.0;  ///< as IsaRates::overlap
  double strided = 1.0;  ///< as IsaRates::strided
  /// Nearest first; l1 and l2 always, l3 if there is one, memory last. Never empty.
  std::vector<LevelModel> levels;
};

/// A value; copy and read it from any thread.
struct MachineModel {
  std::string key;  ///< machine_key of the machine
  ModelSource source = ModelSource::estimate;
  std::string note;  ///< one sentence: where the figures come from, and why if it is an estimate
  bool refused = false;  ///< an estimate although a calibration is named or saved
  double clock_ghz = 0.0;
  int cores = 1;             ///< that can be active at once; CoreRates::all refers to so many
  double exchange_ns = 0.0;  ///< one-way transfer of a cache line between two cores
  /// From the wake-up call until a parked thread runs: about what a run on several threads takes
  /// longer if it begins more than HelperOptions::spin_us after the one before it. Predictions are
  /// of runs that follow each other; it only says which models have a program for one thread, too
  /// (longest_alone).
  double wake_us = 0.0;
  std::vector<IsaModel> isas;  ///< weakest first; never empty

  /// By rule, for a machine of which only the description is known. Every constant has its source
  /// beside it. Any machine gives positive rates.
  static MachineModel estimate(const Machine& machine);
  /// From a calibration that check_calibration accepts.
  static MachineModel from(const Calibration& calibration);

  /// The entry of `isa`; if there is none, the strongest one below it, or else the first.
  const IsaModel& of(Isa isa) const noexcept;
  /// GFLOP/s of one core while `active` cores compute, 1 <= active.
  double fma_gflops(Isa isa, int active) const noexcept;
  /// Of one vector of multiply-adds when nothing waits.
  double fma_seconds(Isa isa, int active) const noexcept;
  /// GB/s at which one core reads from levels[level] while `active` cores do, 1 <= active.
  double gbytes_per_s(Isa isa, std::size_t level, int active) const noexcept;
  /// Bytes of one core's stream that levels[level] serves while `active` cores have such a stream
  /// each: a shared level is divided evenly among those that share it.
  std::uint64_t usable_bytes(Isa isa, std::size_t level, bool alternating,
                             int active) const noexcept;
};

/// The model of this machine: the saved calibration of its key (saved_calibration.hpp) if there is
/// one and it is legal, else the estimate; `note` says which. Read at the first call, the same ever
/// after. Thread-safe. Throws std::bad_alloc where there is no memory for it, as machine() does;
/// the next call tries again.
const MachineModel& machine_model();

/// The same, read anew. A damaged file is no error: `note` says why there is only an estimate.
MachineModel load_machine_model();

/// The model of a machine that a file describes: what `deepcpu machine --json` printed, with a
/// calibration or without one (then the estimate), or `--calibrate` saved, or a person wrote.
/// Errors: as calibration_from_json.
Result<MachineModel> model_from_json(std::string_view text);

/// A few lines of text for people, ending in a newline.
std::string to_text(const MachineModel& model);

}  // namespace deepcpu
