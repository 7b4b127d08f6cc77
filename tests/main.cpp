// SPDX-License-Identifier: Apache-2.0
/// Catch2's main. Version 2 defines it here; version 3 brings it as a library.
#define CATCH_CONFIG_MAIN
#include <cstdlib>

#include "tests/catch.hpp"

namespace {

/// No test reads or writes the calibration of whoever runs it, nor their tuned schedules.
const int no_calibration = setenv("DEEPCPU_MACHINE", "none", 1);
const int no_wisdom = unsetenv("DEEPCPU_WISDOM");

}  // namespace
