// SPDX-License-Identifier: Apache-2.0
/// deepcpu, the command line program. Exit status: 0 done, 1 it failed (one sentence on stderr),
/// 2 wrong use.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <new>

#include "deepcpu/version.hpp"
#include "src/io/quote.hpp"
#include "tools/deepcpu/command.hpp"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongUse = 2;

constexpr const char* kCannotPrint = "standard output: cannot be written";

constexpr const char* kFooter =
    "A problem names a cell and its sizes: lstm:i40h256l3, gru:i64h64b4,reset=before.\n"
    "  i input  h hidden (h512/256: per layer)  l layers  p projection  bi|rev direction\n"
    "  b batch  t steps; options of the cell follow as ,key=value (see deepcpu cells)\n"
    "Environment:\n"
    "  DEEPCPU_MAX_ISA=interpreter|avx2|avx512  caps the instruction set\n"
    "  DEEPCPU_MACHINE=FILE|none                the saved calibration of this machine, or none\n"
    "  DEEPCPU_VERBOSE=1                        one line per schedule, kernel and run on stderr\n"
    "  DEEPCPU_WISDOM=FILE                      tuned schedules to use (see deepcpu tune)\n"
    "Exit status: 0 done, 1 it failed (one sentence on stderr), 2 wrong use.";

int fail(int status, const char* sentence) {
  std::fprintf(stderr, "deepcpu: %s\n", sentence);
  return status;
}

/// Help and version are no errors; everything else that parsing throws is wrong use.
int explain(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
    app.exit(error);  // prints it
    return std::cout.flush() ? 0 : fail(kFailed, kCannotPrint);
  }
  std::string name = "deepcpu";
  std::string what = error.what();
  const CLI::App* last = &app;
  while (!last->get_subcommands().empty()) {
    last = last->get_subcommands().front();
    name += " " + last->get_name();
  }
  if (app.get_subcommands().empty() && app.remaining_size() > 0) {
    what = fmt::format("{}: is no subcommand", deepcpu::quote(app.remaining().front()));
  }
  return fail(kWrongUse, fmt::format("{} (see {} --help)", what, name).c_str());
}

int run(int argc, char** argv) {
  CLI::App app("DeepCPU compiles recurrent neural networks to machine code for this CPU.",
               "deepcpu");
  app.set_version_flag("--version", "deepcpu " DEEPCPU_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  deepcpu::cli::Action action;
  deepcpu::cli::add_run(app, action);
  deepcpu::cli::add_bench(app, action);
  deepcpu::cli::add_dump(app, action);
  deepcpu::cli::add_cells(app, action);
  deepcpu::cli::add_machine(app, action);
  deepcpu::cli::add_tune(app, action);
  deepcpu::cli::add_wisdom(app, action);
  deepcpu::cli::add_explain(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return explain(app, error);
  }
  const deepcpu::Status status = action();
  // What could not be printed is a failure too: a full disk behind a redirected stdout.
  const bool printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!status) return fail(kFailed, status.error().message().c_str());
  return printed ? 0 : fail(kFailed, kCannotPrint);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    return fail(kFailed, "memory: there is not enough for this");
  } catch (const std::exception& error) {
    return fail(kFailed, error.what());
  }
}
