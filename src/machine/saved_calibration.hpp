// SPDX-License-Identifier: Apache-2.0
/// Where calibrations are kept between processes.
#pragma once

#include <string>
#include <string_view>

#include "deepcpu/result.hpp"
#include "src/machine/calibrate.hpp"

namespace deepcpu {

/// The file of the calibration with this key: DEEPCPU_MACHINE if it is set and not empty, else
/// deepcpu/machine-<key>.json under XDG_CACHE_HOME or, without it, under .cache of HOME; in the
/// key, colons and plus signs become dashes. Errors: DEEPCPU_MACHINE=none, which means that no
/// calibration is used or saved; neither variable gives an absolute path.
Result<std::string> calibration_path(std::string_view key);

/// Writes the file whole or not at all (write_file), and the folders above it. Thread-safe; of
/// several processes that save at the same time one wins.
Status save_calibration(const Calibration& calibration, const std::string& path);

/// Whether save_calibration(..., path) could begin now; makes the folders above the file.
Status check_calibration_output(const std::string& path);

/// Reads what save_calibration wrote. Errors: name the file, and its field where there is one.
Result<Calibration> load_calibration(const std::string& path);

}  // namespace deepcpu
