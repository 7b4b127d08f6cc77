// SPDX-License-Identifier: Apache-2.0
/// Wisdom: schedules that were tuned once, kept in a file and used by Model::compile from then on.
///
/// `deepcpu tune` writes the file; a service loads it before it compiles its models, or names it in
/// the environment variable DEEPCPU_WISDOM, which is read once, at the first compile. A model
/// compiled without a schedule of the caller's own then takes the entry for exactly its cell graph,
/// sizes, direction, threads and instruction set allowed, classes of batch sizes and of steps
/// (ModelSpec::steps), and machine; without one, the schedule is chosen by estimate. The file's
/// form is documented by wisdom.schema.json, which is installed with the package. No schedule
/// changes a result.
///
/// All functions are thread-safe and work on one store per process.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "deepcpu/result.hpp"

#pragma GCC visibility push(default)
namespace deepcpu::wisdom {

/// An entry that was not taken.
struct Refusal {
  std::size_t index = 0;  ///< in the file's "entries", from 0
  std::string reason;     ///< one sentence: field, value, rule
  /// The entry is legal, and another machine's. A file for several kinds of machines holds such
  /// entries on purpose.
  bool other_machine = false;
};

/// What load() made of a file.
struct Report {
  std::size_t taken = 0;
  std::size_t kept = 0;  ///< entries passed over because better evidence was loaded before
  std::vector<Refusal> refused;
};

/// Takes the legal entries of this machine from a file and reports the others. Every schedule is
/// checked, never trusted: what cannot be compiled is refused here. An entry of a cell that this
/// process does not know by name is taken and checked when a model of that cell is compiled.
/// Errors, which change nothing: a file that cannot be read, has more than 8 MiB, is no JSON, or
/// has another format.
Result<Report> load(const std::string& path);

/// Adds this process's entries to a file, which is made if it is not there. Of two entries with one
/// key the better evidence stays: measured before estimated, then the greater effort, then more
/// candidates, then less time. The file is whole at any time; processes that save at the same time
/// wait for each other on `<path>.lock`, which stays, and lose nothing. What the file holds for
/// other machines stays as it is, byte by byte. Errors: a file that is there and is no wisdom, one
/// that cannot be written, or whose lock is held for a minute; then it is unchanged.
Status save(const std::string& path);

/// Drops all entries of this process; files stay. DEEPCPU_WISDOM is not read again.
void forget();

/// Number of entries that are loaded.
std::size_t size();

}  // namespace deepcpu::wisdom
#pragma GCC visibility pop
