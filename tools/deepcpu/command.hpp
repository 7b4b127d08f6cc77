// SPDX-License-Identifier: Apache-2.0
/// The subcommands of `deepcpu`, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "deepcpu/result.hpp"

namespace deepcpu::cli {

/// What the chosen subcommand does. Its error is the sentence on stderr, and exit status 1.
using Action = std::function<Status()>;

// Checks of what the command line itself says, for CLI::Option::check: what is wrong with `text`,
// or nothing. What only a file or a run can show is no wrong use.

/// A script with an unset variable gives "", which must not pass for an option that is not there.
std::string names_file(const std::string& text);
/// For numbers beside CLI::Range, which lets NaN pass.
std::string is_number(const std::string& text);
/// i/n with 1 <= i <= n.
std::string is_shard(const std::string& text);

/// For callbacks: an error in what the command line itself says is wrong use, and thrown. A lack of
/// memory is not; whoever needs the memory says so later.
template <class T>
void demand(const Result<T>& result) {
  if (result.ok() || result.error().kind() == ErrorKind::memory) return;
  throw CLI::ValidationError(result.error().message());
}

// Each adds one subcommand to `app`. When the command line chooses it, its callback sets `action`.
// Wrong use that no option's check can see is thrown from there as CLI::ValidationError, exit
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
