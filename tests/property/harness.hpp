// SPDX-License-Identifier: Apache-2.0
/// Runs models for the property tests: all data of a problem from its string, buffers between
/// guard pages, registers and scratch full of NaN, the calling convention checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "deepcpu/deepcpu.hpp"
#include "tests/oracle/oracle.hpp"
#include "tests/support/random.hpp"

namespace deepcpu::test {

/// A problem with its numbers, all of which follow from the problem string.
struct Problem {
  std::string text;
  ModelSpec spec;
  Weights weights;
  std::int64_t steps = 0;
  std::vector<float> x;                   ///< [T,B,I]
  std::vector<std::vector<float>> extra;  ///< [T,B,width] each
  /// State name -> [layers * directions, B, width].
  std::map<std::string, std::vector<float>> initial;
  std::vector<std::int64_t> lengths;  ///< [B], or empty: a quarter of the problems
};

/// Throws std::runtime_error if the string does not parse.
Problem make_problem(const std::string& text);
oracle::Input oracle_input(const Problem& problem);
/// The problem of batch 1 that row `row` is by itself.
Problem one_row(const Problem& problem, std::int64_t row);

struct Outcome {
  std::vector<float> y;  ///< [T,B,output width], whatever the layout of the session
  std::map<std::string, std::vector<float>> final;
};

/// Row `row` of an outcome of `problem`, as one_row would give it.
Outcome row_of(const Problem& problem, const Outcome& outcome, std::int64_t row);
/// Empty if all bits agree, else the first difference.
std::string difference(const Outcome& actual, const Outcome& expected);

struct RunOptions {
  Layout layout = Layout::time_major;
  std::vector<std::int64_t> parts;  ///< steps of each call to run(); empty = one call
};

/// A kernel was refused because its code would be too large, so the interpreter serves: there is
/// no code to compare.
struct CodeTooLarge : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Compiles; throws std::runtime_error with the error, or with the note if a fallback was taken
/// (an asked-for ISA that was not emitted would make every comparison pass).
Model compile(const Problem& problem, Isa isa, const std::optional<Schedule>& schedule = {});
/// Runs the model from the problem's initial states. Throws std::runtime_error if run() fails,
/// breaks the calling convention or writes outside y.
Outcome run(const Problem& problem, const Model& model, const RunOptions& options = {});

/// The same of two problems that differ in their numbers only, on two sessions of one model, which
/// take turns after each of the parts.
std::pair<Outcome, Outcome> run_in_turns(const Problem& a, const Problem& b, const Model& model,
                                         const RunOptions& options);

/// The ISAs of this machine, the interpreter first.
std::vector<Isa> host_isas();
/// `count` random problems from `first_seed` on, a quarter of them if DEEPCPU_TEST_SHORT=1, or
/// only the one in DEEPCPU_PROBLEM. DEEPCPU_SEED=n adds n to the seeds: other problems.
std::vector<std::string> problems(int count, std::uint64_t first_seed);

}  // namespace deepcpu::test
