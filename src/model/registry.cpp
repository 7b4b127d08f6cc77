// SPDX-License-Identifier: Apache-2.0
#include "src/model/registry.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "deepcpu/model.hpp"
#include "src/cells/cells.hpp"
#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

struct Registry {
  std::shared_mutex mutex;
  std::map<std::string, Cell> cells;
};

Registry& registry() {
  static Registry& instance = *new Registry;  // threads may use it while the process ends
  return instance;
}

/// `reset=before|after`; `clip=<real>` for an option that takes a number.
std::string describe_option(const CellOption& option) {
  if (option.values.empty()) return fmt::format("{}=<real>", option.key);
  return fmt::format("{}={}", option.key, fmt::join(option.values, "|"));
}

std::string describe_options(const CellEntry& entry) {
  std::vector<std::string> all;
  for (const auto& option : entry.options) all.push_back(describe_option(option));
  return fmt::format("{}", fmt::join(all, ", "));
}

Error no_such_option(std::string_view cell, const std::string& key, const std::string& value,
                     std::string_view legal) {
  return Error(fmt::format("{}={}: is no option of cell {}, {}", quote(key), quote(value),
                           quote(cell), legal));
}

/// `options` in canonical form: spelled as normal_value spells them, defaults left out.
Result<CellOptions> canonical_options(const CellEntry& entry, const CellOptions& options) {
  for (const auto& given : options) {
    const bool known = std::any_of(entry.options.begin(), entry.options.end(),
                                   [&](const auto& option) { return option.key == given.first; });
    if (known) continue;
    return no_such_option(
        entry.name, given.first, given.second,
        entry.options.empty() ? "it has no options" : "its options are " + describe_options(entry));
  }
  CellOptions canonical;
  for (const auto& option : entry.options) {
    const auto given = options.find(std::string(option.key));
    if (given == options.end()) continue;
    const auto value = normal_value(option, given->second);
    if (!value) return value.error();
    if (*value != option.fallback) canonical[given->first] = *value;
  }
  return canonical;
}

Result<FoundCell> build_entry(const CellEntry& entry, const CellOptions& options, bool projection) {
  auto canonical = canonical_options(entry, options);
  if (!canonical) return canonical.error();
  auto cell = entry.build(*canonical, projection);
  if (!cell) return cell.error();
  return FoundCell{std::move(*cell), std::move(*canonical)};
}

Error no_options(const std::string& name, const CellOptions& options) {
  return no_such_option(name, options.begin()->first, options.begin()->second, "it has no options");
}

Error unknown_cell(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& info : list_cells()) known.push_back(info.name);
  std::sort(known.begin(), known.end());
  return Error(
      fmt::format("cell={}: is unknown, known cells are {}", quote(name), fmt::join(known, ", ")));
}

bool is_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

Status add_to_registry(const Cell& cell) {
  if (!is_cell_name(cell.name()) || cell.nodes().empty()) {
    return Error(
        fmt::format("cell={}: must be a built cell whose name consists of letters, digits "
                    "and underscores and starts with a letter",
                    quote(cell.name())));
  }
  const Error taken(fmt::format("cell={}: this name is taken", cell.name()));
  if (find_cell(cell.name()) != nullptr) return taken;
  const std::unique_lock lock(registry().mutex);
  if (!registry().cells.emplace(cell.name(), cell).second) return taken;
  return {};
}

}  // namespace

bool is_cell_name(std::string_view name) noexcept {
  const std::size_t dot = name.find('.');
  if (dot != std::string_view::npos && !is_word(name.substr(dot + 1))) return false;
  const std::string_view head = name.substr(0, dot);
  return is_word(head) && (head.front() < '0' || head.front() > '9') && head.front() != '_';
}

Status check_options(const std::string& name, const CellOptions& options) {
  if (options.empty()) return {};
  const CellEntry* entry = find_cell(name);
  if (entry == nullptr) return no_options(name, options);
  const auto canonical = canonical_options(*entry, options);
  if (!canonical) return canonical.error();
  for (const auto& [key, value] : options) {
    const auto found = canonical->find(key);
    if (found == canonical->end()) {
      return Error(fmt::format("{}={}: is the default and must be left out", key, value));
    }
    if (found->second != value) {
      return Error(fmt::format("{}={}: must be spelled {}", key, quote(value), found->second));
    }
  }
  return {};
}

Result<FoundCell> resolve_cell(const std::string& name, const CellOptions& options,
                               bool projection) {
  if (const CellEntry* entry = find_cell(name)) return build_entry(*entry, options, projection);
  {
    const std::shared_lock lock(registry().mutex);
    const auto found = registry().cells.find(name);
    if (found != registry().cells.end()) {
      if (!options.empty()) return no_options(name, options);
      return FoundCell{found->second, {}};
    }
  }
  return unknown_cell(name);
}

bool is_known_cell(const std::string& name) {
  if (find_cell(name) != nullptr) return true;
  const std::shared_lock lock(registry().mutex);
  return registry().cells.contains(name);
}

Status check_cell(const std::string& name) {
  if (is_known_cell(name)) return {};
  return unknown_cell(name);
}

Status register_cell(const Cell& cell) {
  return guard_memory("register the cell", [&] { return add_to_registry(cell); });
}

std::vector<CellInfo> list_cells() {
  std::vector<CellInfo> cells;
  for (const auto& entry : cell_table()) {
    CellInfo info{std::string(entry.name), std::string(entry.summary), {}};
    for (const auto& option : entry.options) info.options.push_back(describe_option(option));
    cells.push_back(std::move(info));
  }
  const std::shared_lock lock(registry().mutex);
  for (const auto& [name, cell] : registry().cells) {
    cells.push_back({name, "registered by this program", {}});
  }
  return cells;
}

}  // namespace deepcpu
