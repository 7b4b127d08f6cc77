// SPDX-License-Identifier: Apache-2.0
/// deepcpu cells: the cells that problem strings may name.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "deepcpu/model.hpp"
#include "tools/deepcpu/command.hpp"

namespace deepcpu::cli {
namespace {

Status print_cells() {
  const auto cells = list_cells();
  std::size_t width = 0;
  for (const CellInfo& cell : cells) width = std::max(width, cell.name.size());
  for (const CellInfo& cell : cells) {
    fmt::print("{:<{}}  {}\n", cell.name, width, cell.summary);
    if (!cell.options.empty()) {
      fmt::print("{:<{}}  options: {}\n", "", width, fmt::join(cell.options, ", "));
    }
  }
  return {};
}

}  // namespace

void add_cells(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("cells", "List the cells that a problem may name");
  sub->callback([&action] { action = print_cells; });
}

}  // namespace deepcpu::cli
