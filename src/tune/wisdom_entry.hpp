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

/// Batch sizes that share an entry. A schedule is legal for all of a class or for none.
struct BatchClass {
  std::string_view text;
  std::int64_t low;
  std::int64_t high;
};
inline constexpr std::array kBatchClasses = {
    BatchClass{"1", 1, 1},
    BatchClass{"2-4", 2, 4},
    BatchClass{"5-16", 5, 16},
    BatchClass{"17+", 17, 1024},
};
/// The class of a batch of 1..1024 rows.
const BatchClass& batch_class(std::int64_t batch) noexcept;

/// machine_key of this machine.
const std::string& this_machine_key();

/// What an entry is for.
struct WisdomKey {
  std::uint64_t cell = 0;  ///< cell_hash of the graph
  /// shape_text: sizes and direction count; the cell's name and options are for the reader, since
  /// the graph says what they do.
  std::string problem;
  int threads = 1;  ///< allowed; the schedule may use fewer
  BatchClass batch = kBatchClasses[0];
  std::optional<Isa> isa;  ///< a cap below the machine's best, if any
  std::string machine;     ///< machine_key

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
