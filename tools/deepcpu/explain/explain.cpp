// SPDX-License-Identifier: Apache-2.0
/// deepcpu explain: why a problem gets the schedule it gets, and where its time goes.
#include <fmt/format.h>

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "src/io/file.hpp"
#include "src/machine/machine_model.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/compile_flags.hpp"
#include "tools/deepcpu/explain/render.hpp"
#include "tools/deepcpu/notes.hpp"
#include "tools/deepcpu/problem_list.hpp"

namespace deepcpu::cli {
namespace {

constexpr const char* kFooter =
    "Times the parts of the schedule that a model of this problem gets. With --measure the\n"
    "candidates are timed as well, and the fastest is explained. For a described machine\n"
    "everything is predicted and nothing is run.";

struct ExplainFlags {
  std::string problem;
  CompileFlags compile;
  std::string machine;
  bool measure = false;
  std::optional<double> seconds;
  std::string html;
  bool json = false;
};

Status explain_problem(const ExplainFlags& flags) {
  const auto spec = ModelSpec::parse(flags.problem);
  if (!spec) return spec.error();
  auto compile = compile_options(flags.compile);
  if (!compile) return compile.error();
  ExplainOptions options;
  options.threads = compile->threads;
  options.isa = compile->isa;
  options.schedule = std::move(compile->schedule);
  options.measure = flags.measure;
  options.seconds = flags.seconds.value_or(flags.measure ? 10.0 : options.seconds);
  std::optional<MachineModel> machine;
  if (!flags.machine.empty()) {
    auto described = described_machine(flags.machine);
    if (!described) return described.error();
    machine = std::move(*described);
    options.machine = &*machine;
  }
  if (!flags.html.empty()) {
    if (auto status = check_writable(flags.html); !status) return status;
  }
  const auto explained = explain(*spec, options);
  if (!explained) return explained.error();
  if (!flags.html.empty()) {
    const std::string page = explanation_page(*explained);
    const std::array parts = {std::as_bytes(std::span(page))};
    if (auto status = write_file(flags.html, parts); !status) return status;
  }
  print_notes(explained->notes);
  fmt::print("{}", flags.json ? explanation_json(*explained) : explanation_text(*explained));
  return {};
}

}  // namespace

void add_explain(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand(
      "explain", "Show why a problem gets its schedule, where the time goes, and the limit");
  auto flags = std::make_shared<ExplainFlags>();
  sub->add_option("problem", flags->problem, "A problem, as lstm:i256h256; t is the length timed")
      ->option_text("PROBLEM")
      ->required();
  add_compile_flags(*sub, flags->compile);
  auto* machine = sub->add_option("--machine", flags->machine,
                                  "Answer for the machine that this file describes")
                      ->option_text("FILE.json")
                      ->check(names_file);
  sub->add_flag("--measure", flags->measure, "Time the candidates too, and choose by that")
      ->excludes(machine);
  sub->add_option("--seconds", flags->seconds, "For all that is timed")
      ->option_text("S [2; with --measure 10]")
      ->check(is_number)
      ->check(CLI::Range(0.01, 86400.0))
      ->excludes(machine);
  sub->add_option("--html", flags->html, "Write a page with charts too")
      ->option_text("FILE")
      ->check(names_file);
  sub->add_flag("--json", flags->json, "Print one object");
  sub->footer(kFooter);
  sub->callback([flags, &action] {
    demand(timed_problem(flags->problem));
    action = [flags] { return explain_problem(*flags); };
  });
}

}  // namespace deepcpu::cli
