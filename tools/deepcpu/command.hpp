// SPDX-License-Identifier: Apache-2.0
/// The subcommands of `deepcpu`, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "deepcpu/result.hpp"

namespace deepcpu::cli {

/// What the chosen subcommand does. Its error is the sentence on stderr, and exit status 1.
using Action = std::function<Status()>;

// Each adds one subcommand to `app`. When the command line chooses it, its callback sets `action`.
// Wrong use that CLI11 cannot see itself is thrown from there as CLI::ValidationError, exit
// status 2.
void add_run(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_dump(CLI::App& app, Action& action);
void add_cells(CLI::App& app, Action& action);
void add_machine(CLI::App& app, Action& action);
void add_tune(CLI::App& app, Action& action);
void add_wisdom(CLI::App& app, Action& action);
void add_explain(CLI::App& app, Action& action);

}  // namespace deepcpu::cli
