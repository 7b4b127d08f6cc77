// SPDX-License-Identifier: Apache-2.0
/// Random cells, sizes and schedules for the property tests. All of a test follows from its
/// problem string: the string names the cell by seed and is hashed for everything else, so pasting
/// it repeats the test exactly.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"
#include "tests/support/random.hpp"

namespace deepcpu::test {

/// The random cell of a seed, always the same: 1 to 3 states, products on x, on states and on
/// computed values in 1 to 3 dependent levels, biases, peephole-like vectors, further inputs,
/// constants and every element-wise operation. What becomes a state is kept within [-1, 1], so
/// that float32 and float64 stay comparable over many steps. Its name is `random_<seed>`.
/// Throws std::runtime_error if the builder refuses it: a bug in the generator or the builder.
Cell random_cell(std::uint64_t seed);

/// ModelSpec::parse that also knows `random.<seed>:...`. Registers the cell on first use.
Result<ModelSpec> parse_problem(std::string_view problem);
/// The problem string with `random.` in place of `random_`.
std::string problem_of(const ModelSpec& spec);

/// A random problem string that parse_problem accepts: a random cell (three quarters) or a
/// built-in one, mostly odd sizes from 1 to 70, batch 1 to 9, 1 to 3 layers, some of them reversed
/// or bidirectional, T from 0 to 33.
std::string random_problem(std::uint64_t seed);

/// Random decisions for a spec on an ISA. Those that only fit some cells (weights in registers)
/// may be refused by Model::compile with an error; they are rare.
Schedule random_schedule(Random& random, const ModelSpec& spec, Isa isa);
/// Draws how many threads the schedule uses and what each of them does: every combination is
/// legal, also those that a spec has no use for (a wavefront over one layer).
void random_threads(Random& random, const ModelSpec& spec, Schedule& schedule);

/// A hash of the text (FNV-1a), the seed of all random numbers of one problem.
std::uint64_t hash_of(std::string_view text);

}  // namespace deepcpu::test
