// SPDX-License-Identifier: Apache-2.0
/// deepcpu machine: what was detected, and the rates of one core.
#include "src/machine/machine.hpp"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <span>

#include "src/machine/machine_json.hpp"
#include "src/machine/rates.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/notes.hpp"

namespace deepcpu::cli {
namespace {

Status print_machine(bool json) {
  const Isa isa = host_isa();
  std::optional<Rates> rates;
  if (isa != Isa::interpreter) {
    auto measured = measure_rates(machine(), isa);
    if (!measured) return measured.error();
    rates = *measured;
  }
  const std::string note = isa_note();
  if (!note.empty()) print_notes(std::span(&note, 1));
  if (json) {
    fmt::print("{}", to_json(machine(), rates ? &*rates : nullptr, nullptr));
    return {};
  }
  fmt::print(
      "{}\n{}", to_text(machine()),
      rates ? to_text(*rates) : "rates of one core: not measured, there is no code to run\n");
  return {};
}

}  // namespace

void add_machine(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("machine", "Show this machine and measure one core (0.2 s)");
  auto json = std::make_shared<bool>(false);
  sub->add_flag("--json", *json, "Print JSON; rates are null where only the interpreter runs");
  sub->callback([json, &action] { action = [json] { return print_machine(*json); }; });
}

}  // namespace deepcpu::cli
