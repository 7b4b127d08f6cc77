// SPDX-License-Identifier: Apache-2.0
/// What the command line of `deepcpu run` says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/deepcpu/compile_flags.hpp"

namespace deepcpu::cli {

/// A file that belongs to an input or a state of the cell.
struct NamedFile {
  std::string name;
  std::string path;
};

struct RunFlags {
  std::string problem;
  std::string model;               ///< empty: random weights
  std::string prefix;              ///< of the names of its tensors
  std::vector<NamedFile> inputs;   ///< empty: random inputs; "x": the cell's first input
  std::vector<NamedFile> initial;  ///< states before the first step; zero where none is given
  std::vector<NamedFile> final;    ///< states after the last step, to be written
  std::string output;
  std::string lengths;
  std::uint64_t seed = 0;
  CompileFlags compile;
};

/// The options of `deepcpu run`. Must live as long as `app` parses.
class RunOptions {
 public:
  explicit RunOptions(CLI::App& app);
  /// What was said. Wrong use is thrown as CLI::ValidationError.
  RunFlags flags() const;

 private:
  RunFlags flags_;
  std::vector<std::string> inputs_, states_, finals_;
  std::string h0_, c0_, hn_, cn_;
};

}  // namespace deepcpu::cli
