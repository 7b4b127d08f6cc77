// SPDX-License-Identifier: Apache-2.0
/// What an entry must meet besides the form of its text.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "deepcpu/model.hpp"
#include "src/model/registry.hpp"
#include "src/tune/wisdom_entry.hpp"

namespace deepcpu {

/// The error with `prefix` before its sentence; a lack of memory stays as it is, since it says
/// nothing about what was read.
Error with_prefix(std::string_view prefix, const Error& error);

/// Whether every layer of `spec` can be lowered by `schedule`, which has met check_schedule.
/// Emits nothing. Errors name the field of the schedule.
Status check_lowering(const ModelSpec& spec, const Schedule& schedule);

/// The rules between the parts of an entry: instruction set and threads within the key's caps,
/// one LayerSchedule for each of `layers` layers, evidence that fits together.
Status check_entry(const WisdomEntry& entry, std::size_t layers);

/// Cells by name and options, each built once.
class KnownCells {
 public:
  /// Null if no cell of this name is known. Errors: options or a projection that it does not have.
  Result<const FoundCell*> find(const std::string& name, const CellOptions& options,
                                bool projection);

 private:
  std::map<std::string, FoundCell> found_;
};

}  // namespace deepcpu
