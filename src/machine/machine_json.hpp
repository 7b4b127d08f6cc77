// SPDX-License-Identifier: Apache-2.0
/// Machines and their rates as JSON.
#pragma once

#include <string>
#include <string_view>

#include "deepcpu/result.hpp"
#include "src/machine/calibrate.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/rates.hpp"

namespace deepcpu {

/// What `deepcpu machine --json` prints: the machine, its key, `rates` (null if not measured) and
/// `calibration` (null if none is saved). One object, indented, ending in a newline.
std::string to_json(const Machine& machine, const Rates* rates, const Calibration* calibration);

/// A model, for people and scripts: `key` and `model`. The bytes that memory serves, which have no
/// limit, are 2^64 - 1.
std::string to_json(const MachineModel& model);

/// A calibration with the machine it belongs to, its key and the evidence. One object, indented,
/// ending in a newline.
std::string to_json(const Calibration& calibration);

/// Reads what to_json(Calibration) wrote or a person edited, also of a machine that is not here.
/// Refused by name: unknown and missing fields, wrong types, rates of zero or beyond all reason,
/// a key that does not follow from the machine's own fields.
Result<Calibration> calibration_from_json(std::string_view text);

/// The text of a file that may be such JSON. Errors: cannot be read; too long for one.
Result<std::string> read_machine_file(const std::string& path);

}  // namespace deepcpu
