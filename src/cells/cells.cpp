// SPDX-License-Identifier: Apache-2.0
#include "src/cells/cells.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace deepcpu {

const std::vector<CellEntry>& cell_table() {
  static const std::vector<CellEntry> table = {
      {"lstm",
       "long short-term memory; gates i, f, g, o; `p` projects h",
       {{"peephole", {"0", "1"}, "0", "the gates i, f and o see the cell state"},
        {"clip", {}, "0", "cuts the sums under the gates to [-clip, clip]; 0 = never"},
        {"coupled", {"0", "1"}, "0", "f = 1 - i"}},
       build_lstm},
      {"gru",
       "gated recurrent unit; gates r, z, n",
       {{"reset", {"after", "before"}, "after", "r applies after or before the product with h"}},
       build_gru},
      {"rnn",
       "one layer of units that see themselves",
       {{"act", {"tanh", "relu", "sigmoid"}, "tanh", "the activation"}},
       build_rnn},
      {"augru",
       "GRU whose update gate is z * (1 - attention); the input attention is [T,B,1]",
       {{"reset", {"before", "after"}, "before", "r applies after or before the product with h"}},
       build_augru},
  };
  return table;
}

const CellEntry* find_cell(std::string_view name) {
  for (const CellEntry& entry : cell_table()) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

Result<std::string> normal_value(const CellOption& option, std::string_view value) {
  if (!option.values.empty()) {
    if (std::find(option.values.begin(), option.values.end(), value) != option.values.end()) {
      return std::string(value);
    }
    return Error(
        fmt::format("{}={}: must be {}", option.key, value, fmt::join(option.values, " or ")));
  }
  float number = 0.0F;
  const char* end = value.data() + value.size();
  const auto [stop, code] = std::from_chars(value.data(), end, number);
  if (code != std::errc() || stop != end || !std::isfinite(number) || number < 0.0F) {
    return Error(fmt::format("{}={}: must be a real number, at least 0", option.key, value));
  }
  return fmt::format("{}", number == 0.0F ? 0.0F : number);  // "-0" reads as 0
}

float number_of(std::string_view value) noexcept {
  float number = 0.0F;  // strtof would read the point as the locale has it
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number;
}

Result<CellOptions> complete_options(const CellEntry& entry, const CellOptions& options) {
  CellOptions all;
  for (const CellOption& option : entry.options) {
    all.emplace(option.key, option.fallback);
  }
  for (const auto& given : options) {
    const std::string& key = given.first;
    const std::string& value = given.second;
    const auto option = std::find_if(entry.options.begin(), entry.options.end(),
                                     [&](const CellOption& o) { return o.key == key; });
    if (option == entry.options.end()) {
      return Error(fmt::format("{}={}: cell {} has no option {}", key, value, entry.name, key));
    }
    Result<std::string> normal = normal_value(*option, value);
    if (!normal) return normal.error();
    all[key] = *normal;
  }
  return all;
}

}  // namespace deepcpu
