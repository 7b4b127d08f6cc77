// SPDX-License-Identifier: Apache-2.0
/// WisdomEntry: a schedule with the problem and machine it is for, and the evidence for it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "deepcpu/model.hpp"
#include "src/machine/machine.hpp"
#include "src/tune/tuner.hpp"

namespace deepcpu {

/// Numbers of rows, or of steps, that share an entry.
struct SizeClass {
  std::string_view text;
  std::int64_t low;
  std::int64_t high;
};
/// A schedule that is legal for the least batch of a class may be illegal for another (of its tile
/// rows); then that one is not served.
inline constexpr std::array kBatchClasses = {
    SizeClass{"1", 1, 1},
    SizeClass{"2-4", 2, 4},
    SizeClass{"5-16", 5, 16},
    SizeClass{"17+", 17, 1024},
};
/// A run of one step has nothing to hoist and no state in a cache; of a few, blocks are short. What
/// it costs to have the wrong one: DESIGN, 13. The bound of 16 is chosen.
inline constexpr std::array kStepClasses = {
    SizeClass{"1", 0, 1},
    SizeClass{"2-15", 2, 15},
    SizeClass{"16+", 16, INT32_MAX},
};
/// The class of a batch of 1..1024 rows.
const SizeClass& batch_class(std::int64_t batch) noexcept;
/// The class of T = 0..2^31-1 steps.
const SizeClass& step_class(std::int64_t steps) noexcept;

/// machine_key of this machine.
const std::string& this_machine_key();

/// What an entry is for.
struct WisdomKey {
  std::uint64_t cell = 0;  ///< cell_hash of the graph
  /// shape_text: sizes and direction count; the cell's name and options are for the reader, since
  /// the graph says what they do.
  std::string problem;
  int threads = 1;  ///< allowed; the schedule may use fewer
  SizeClass batch = kBatchClasses.front();
  SizeClass steps = kStepClasses.back();  ///< of ModelSpec::steps
  std::optional<Isa> isa;                 ///< a cap below the machine's best, if any
  std::string machine;                    ///< machine_key

  /// The key under which a compile with these caps looks. `isa` at or above the machine's best is
  /// no cap.
  static WisdomKey of(const ModelSpec& spec, int threads, Isa isa,
                      const Machine& on = deepcpu::machine());
  /// One text per key; equal keys have equal ids.
  std::string id() const;
};

struct WisdomEntry {
  WisdomKey key;
  Schedule schedule;
  double predicted_us = 0.0;  ///< of a run of `steps` steps; 0 = not stated
  double measured_us = 0.0;   ///< median alike; 0 = never measured
  double spread = 0.0;        ///< distance of the quartiles over the median
  std::int64_t rows = 0;      ///< batch of the runs that were timed; 0 = not stated
  std::int64_t steps = 0;     ///< T alike
  std::int64_t candidates = 0;
  std::optional<Effort> effort;  ///< none: written by hand
  std::string version;           ///< of the library that found it; may be empty
};

/// What tune(spec, options) found, as an entry: for this machine, or for the one in `options`. Its
/// threads allowed are those of the options as far as the machine can run them at once, which is
/// how a compile looks it up.
WisdomEntry tuned_entry(const ModelSpec& spec, const TuneOptions& options,
                        const TuneResult& result);

/// Whether `a` is strictly better evidence than `b`: measured before not measured; then exhaustive,
/// measure, by hand, estimate; then more candidates; then less measured time per row and step.
bool better_evidence(const WisdomEntry& a, const WisdomEntry& b) noexcept;

}  // namespace deepcpu
