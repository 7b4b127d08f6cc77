// SPDX-License-Identifier: Apache-2.0
/// Cells by name: those of the table in src/cells and those that users registered.
#pragma once

#include <string>
#include <string_view>

#include "deepcpu/cell.hpp"
#include "deepcpu/result.hpp"
#include "src/cells/cells.hpp"

namespace deepcpu {

/// A cell and its options in canonical form: those that differ from the defaults.
struct FoundCell {
  Cell cell;
  CellOptions options;
};

/// The cell `name` built with `options`. Errors name the unknown cell, key or value and list what
/// is legal. Thread-safe.
Result<FoundCell> resolve_cell(const std::string& name, const CellOptions& options,
                               bool projection);

/// Whether there is a cell of this name. Thread-safe.
bool is_known_cell(const std::string& name);

/// The same as a status, whose error lists the known cells. Thread-safe.
Status check_cell(const std::string& name);

/// Checks that `options` are in canonical form for `name`; a cell outside the table has none.
Status check_options(const std::string& name, const CellOptions& options);

/// Letters, digits and underscores, starting with a letter, with at most one dot inside
/// (`random.17`).
bool is_cell_name(std::string_view name) noexcept;

}  // namespace deepcpu
