// SPDX-License-Identifier: Apache-2.0
#include "src/machine/saved_calibration.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <system_error>

#include "src/io/file.hpp"
#include "src/io/quote.hpp"
#include "src/machine/machine_json.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu {
namespace {

namespace fs = std::filesystem;

std::string_view variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

/// A key as one file name.
std::string file_name(std::string_view key) {
  std::string name = "machine-";
  for (const char c : key) name += c == ':' || c == '+' || c == '/' ? '-' : c;
  return name + ".json";
}

/// The XDG base directory rules: a relative path in XDG_CACHE_HOME counts as none.
std::string cache_folder() {
  if (const auto xdg = variable("XDG_CACHE_HOME"); xdg.starts_with('/')) return std::string(xdg);
  if (const auto home = variable("HOME"); home.starts_with('/')) {
    return std::string(home) + "/.cache";
  }
  return {};
}

MachineModel estimate_because(const std::string& why, bool refused = false) {
  MachineModel model = MachineModel::estimate(machine());
  model.refused = refused;
  model.note = fmt::format("{}; estimated instead ({})", why, model.note);
  return model;
}

}  // namespace

Result<std::string> calibration_path(std::string_view key) {
  const auto chosen = variable("DEEPCPU_MACHINE");
  if (chosen == "none") return Error("DEEPCPU_MACHINE=none: no calibration is used or saved");
  if (!chosen.empty()) return std::string(chosen);
  const std::string folder = cache_folder();
  if (folder.empty()) {
    return Error(
        "calibration: neither XDG_CACHE_HOME nor HOME is an absolute path; DEEPCPU_MACHINE can "
        "name a file");
  }
  return folder + "/deepcpu/" + file_name(key);
}

Status check_calibration_output(const std::string& path) {
  std::error_code code;
  const fs::path folder = fs::path(path).parent_path();
  // Only a folder of our own is made: another one that is not there may be a slip.
  const bool own = !cache_folder().empty() && folder == fs::path(cache_folder()) / "deepcpu";
  if (own) fs::create_directories(folder, code);
  if (code) return Error(fmt::format("{}: cannot be written: {}", path, code.message()));
  return check_writable(path);
}

Status save_calibration(const Calibration& calibration, const std::string& path) {
  if (auto status = check_calibration_output(path); !status) return status;
  const std::string text = to_json(calibration);
  const std::array parts = {std::as_bytes(std::span(text))};
  return write_file(path, parts);
}

MachineModel load_machine_model() {
  const std::string key = machine_key(machine());
  const Result<std::string> path = calibration_path(key);
  if (!path.ok()) return estimate_because(path.error().message());
  std::error_code code;
  if (variable("DEEPCPU_MACHINE").empty() && !fs::exists(*path, code)) {
    return estimate_because("not calibrated yet (deepcpu machine --calibrate)");
  }
  const Result<Calibration> saved = load_calibration(*path);
  if (!saved.ok()) return estimate_because(saved.error().message(), true);
  const std::string its_key = machine_key(saved->machine);
  if (its_key != key) {
    return estimate_because(fmt::format("{}: is of another machine, {}", *path, quote(its_key)),
                            true);
  }
  MachineModel model = MachineModel::from(*saved);
  model.note += fmt::format(", {}", *path);
  return model;
}

const MachineModel& machine_model() {
  static const MachineModel model = load_machine_model();
  return model;
}

Result<Calibration> load_calibration(const std::string& path) {
  const Result<std::string> text = read_machine_file(path);
  if (!text.ok()) return text.error();
  Result<Calibration> read = calibration_from_json(*text);
  if (!read.ok()) return Error(fmt::format("{}: {}", path, read.error().message()));
  return read;
}

}  // namespace deepcpu
