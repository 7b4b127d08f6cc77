// SPDX-License-Identifier: Apache-2.0
/// deepcpu machine: what was detected, the rates of one core, the machine model; calibrating.
#include "src/machine/machine.hpp"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "src/machine/calibrate.hpp"
#include "src/machine/machine_json.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/rates.hpp"
#include "src/machine/saved_calibration.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/notes.hpp"

namespace deepcpu::cli {
namespace {

struct Flags {
  bool json = false;
  bool calibrate = false;
  double seconds = CalibrateOptions{}.seconds;
  std::string output;     ///< empty: where it is looked for
  std::string described;  ///< file of a machine that need not be here
};

void note(const std::string& text) { print_notes(std::span(&text, 1)); }

/// The calibration that the model in use came from.
std::optional<Calibration> used_calibration() {
  if (machine_model().source == ModelSource::estimate) return std::nullopt;
  const auto path = calibration_path(machine_model().key);
  auto saved = path ? load_calibration(*path) : Result<Calibration>(path.error());
  return saved ? std::optional(*std::move(saved)) : std::nullopt;
}

Status show_here(const Flags& flags) {
  const Isa isa = host_isa();
  std::optional<Rates> rates;
  if (isa != Isa::interpreter) {
    auto measured = measure_rates(machine(), isa);
    if (!measured) return measured.error();
    rates = *measured;
  }
  if (const std::string text = isa_note(); !text.empty()) note(text);
  if (flags.json) {
    const auto saved = used_calibration();
    fmt::print("{}", to_json(machine(), rates ? &*rates : nullptr, saved ? &*saved : nullptr));
    return {};
  }
  fmt::print("{}\n{}\n{}", to_text(machine()),
             rates ? to_text(*rates) : "rates of one core: not measured, there is no code to run\n",
             to_text(machine_model()));
  return {};
}

Status show_described(const Flags& flags) {
  const auto text = read_machine_file(flags.described);
  if (!text) return text.error();
  const auto model = model_from_json(*text);
  if (!model) return Error(fmt::format("{}: {}", flags.described, model.error().message()));
  fmt::print("{}", flags.json ? to_json(*model) : to_text(*model));
  return {};
}

/// Says so where cores were slow together, as they are beside other programs; or because many
/// active ones clock lower.
void note_if_busy(const Calibration& measured) {
  // Two cores of a Zen 4, when quiet: 0.99 and more; beside a build in two of three tries 0.67.
  constexpr double kLeast = 0.7;
  for (const IsaRates& rates : measured.isas) {
    const double part = rates.fma_gflops.all / rates.fma_gflops.one;
    if (part >= kLeast) continue;
    note(
        fmt::format("calibration: with all cores active each did {:.0f} % of what one does alone "
                    "({}); if other programs ran, repeat it when none does",
                    100.0 * part, to_string(rates.isa)));
  }
}

Status calibrate_here(const Flags& flags) {
  auto path = flags.output.empty() ? calibration_path(machine_key(machine()))
                                   : Result<std::string>(flags.output);
  if (path) {
    if (auto status = check_calibration_output(*path); !status) return status;
  }
  CalibrateOptions options;
  options.seconds = flags.seconds;
  const auto measured = calibrate(machine(), options);
  if (!measured) return measured.error();
  fmt::print("{}", flags.json ? to_json(*measured) : to_text(MachineModel::from(*measured)));
  note_if_busy(*measured);
  if (!path) {
    note(fmt::format("not saved: {}", path.error().message()));
    return {};
  }
  if (auto status = save_calibration(*measured, *path); !status) return status;
  if (!flags.json) fmt::print("saved to {}\n", *path);
  return {};
}

Status run(const Flags& flags) {
  if (!flags.described.empty()) return show_described(flags);
  return flags.calibrate ? calibrate_here(flags) : show_here(flags);
}

}  // namespace

void add_machine(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand(
      "machine", "Show this machine, measure one core (0.2 s), or calibrate the machine model");
  auto flags = std::make_shared<Flags>();
  sub->add_flag("--json", flags->json,
                "Print JSON; rates are null where only the interpreter runs");
  auto* calibrate = sub->add_flag("--calibrate", flags->calibrate,
                                  "Measure the machine model and save it; nothing else should run");
  sub->add_option("--seconds", flags->seconds, "Rough limit of the measuring (12)")
      ->check(is_number)
      ->check(CLI::Range(0.1, 600.0))
      ->needs(calibrate);
  sub->add_option("--output", flags->output, "Save there, not where it is looked for")
      ->check(names_file)
      ->needs(calibrate);
  sub->add_option("--machine", flags->described,
                  "Show and check this description of a machine (JSON) instead")
      ->check(names_file)
      ->excludes(calibrate);
  sub->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace deepcpu::cli
