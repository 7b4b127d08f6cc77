// SPDX-License-Identifier: Apache-2.0
/// The options that run, bench and dump share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "deepcpu/model.hpp"

namespace deepcpu::cli {

struct CompileFlags {
  int threads = 1;
  std::string isa;       ///< empty: no cap
  std::string schedule;  ///< path of a JSON file; empty: the default schedule
};

/// Adds --threads, --isa and --schedule. `flags` must live as long as `app`.
void add_compile_flags(CLI::App& app, CompileFlags& flags);

/// Reads the schedule's file. Errors name the file and the field.
Result<CompileOptions> compile_options(const CompileFlags& flags);

}  // namespace deepcpu::cli
