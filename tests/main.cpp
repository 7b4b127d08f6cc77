// SPDX-License-Identifier: Apache-2.0
/// Catch2's main. Version 2 defines it here; version 3 brings it as a library.
#define CATCH_CONFIG_MAIN
#include "tests/catch.hpp"
