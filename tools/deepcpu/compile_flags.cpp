// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/compile_flags.hpp"

#include <fmt/format.h>

#include "src/io/file.hpp"
#include "tools/deepcpu/command.hpp"

namespace deepcpu::cli {
namespace {

constexpr int kMostThreads = 1024;
constexpr std::size_t kMostScheduleBytes = std::size_t{1} << 20;

}  // namespace

void add_compile_flags(CLI::App& app, CompileFlags& flags) {
  app.add_option("--threads", flags.threads, "Most threads to use; the schedule decides")
      ->option_text("N [1]")
      ->check(CLI::Range(1, kMostThreads));
  app.add_option("--isa", flags.isa, "Best instruction set to use: interpreter, avx2 or avx512")
      ->option_text("ISA")
      ->check(CLI::IsMember({"interpreter", "avx2", "avx512"}));
  app.add_option("--schedule", flags.schedule,
                 "Schedule to use instead of the default one, as dump --stage schedule prints it")
      ->option_text("FILE.json")
      ->check(names_file);
}

Result<CompileOptions> compile_options(const CompileFlags& flags) {
  CompileOptions options;
  options.threads = flags.threads;
  if (!flags.isa.empty()) {
    const auto isa = parse_isa(flags.isa);
    if (!isa) return isa.error();
    options.isa = *isa;
  }
  if (!flags.schedule.empty()) {
    const auto text = read_text_file(flags.schedule, kMostScheduleBytes);
    if (!text) return text.error();
    auto schedule = Schedule::from_json(*text);
    if (!schedule) return Error(fmt::format("{}: {}", flags.schedule, schedule.error().message()));
    options.schedule = std::move(*schedule);
  }
  return options;
}

}  // namespace deepcpu::cli
