// SPDX-License-Identifier: Apache-2.0
/// deepcpu dump: what the compiler makes of a problem, stage by stage.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/compile.hpp"
#include "src/dag/matmul_dag.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/compile_flags.hpp"
#include "tools/deepcpu/notes.hpp"

namespace deepcpu::cli {
namespace {

struct DumpFlags {
  std::string problem;
  std::vector<std::string> stages;
  bool dot = false;
  CompileFlags compile;
};

const std::vector<std::string>& stage_names() {
  static const std::vector<std::string> names = {"cell",     "dag",  "phases",
                                                 "schedule", "plan", "asm"};
  return names;
}

Status dump(const DumpFlags& flags) {
  const auto spec = ModelSpec::parse(flags.problem);
  if (!spec) return spec.error();
  const auto options = compile_options(flags.compile);
  if (!options) return options.error();
  std::map<std::string, std::string> texts;
  const auto compiled = compile_program(
      *spec, *options,
      [&](std::string_view stage, const std::string& text) { texts[std::string(stage)] = text; });
  if (!compiled) return compiled.error();
  if (flags.dot) texts["dag"] = MatmulDag::build(spec->cell).to_dot(*spec);
  print_notes(compiled->notes);
  for (const std::string& stage : flags.stages) {
    if (flags.stages.size() > 1) fmt::print("== {}\n", stage);
    fmt::print("{}", texts[stage]);
  }
  return {};
}

}  // namespace

void add_dump(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("dump", "Print what the compiler makes of a problem");
  auto flags = std::make_shared<DumpFlags>();
  sub->add_option("problem", flags->problem, "Problem, as lstm:i40h256l3")
      ->option_text("PROBLEM REQUIRED")
      ->required();
  sub->add_option("--stage", flags->stages,
                  "One or more of cell, dag, phases, schedule, plan, asm, with commas between them;"
                  " several are headed == STAGE")
      ->option_text("STAGE[,STAGE...] REQUIRED")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(stage_names()))
      ->required();
  sub->add_flag("--dot", flags->dot, "Print the dag for Graphviz");
  add_compile_flags(*sub, flags->compile);
  sub->callback([flags, &action] {
    const auto& stages = flags->stages;
    if (flags->dot && std::find(stages.begin(), stages.end(), "dag") == stages.end()) {
      throw CLI::ValidationError("--dot", "needs --stage dag");
    }
    demand(ModelSpec::parse(flags->problem));
    action = [flags] { return dump(*flags); };
  });
}

}  // namespace deepcpu::cli
