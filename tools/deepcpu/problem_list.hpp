// SPDX-License-Identifier: Apache-2.0
/// Problems from the command line and from files, and the machines that files describe.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "deepcpu/result.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu::cli {

/// A problem and what to call it in an error.
struct ListedProblem {
  std::string where;  ///< "" or "FILE: line 3: "
  std::string problem;
};

/// The problem, whose runs are to be timed. Errors: as ModelSpec::parse; t=0.
Result<ModelSpec> timed_problem(const std::string& problem);

/// The part of a list that one of several processes takes.
struct Shard {
  std::size_t index = 1;  ///< from 1
  std::size_t count = 1;
};
/// Reads "i/n".
Result<Shard> parse_shard(const std::string& text);

/// Those of the command line, then those of `file`, if it is not empty: one per line, # starts a
/// comment. Nothing is parsed. `shard` "i/n" leaves every n-th one, beginning with the i-th; empty:
/// all.
Result<std::vector<ListedProblem>> problem_list(const std::vector<std::string>& problems,
                                                const std::string& file,
                                                const std::string& shard = {});

/// The machine that a file describes, as `deepcpu machine --json` prints one. Errors name the file.
Result<MachineModel> described_machine(const std::string& file);

}  // namespace deepcpu::cli
