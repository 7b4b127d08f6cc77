// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/command.hpp"

#include <cmath>

#include "tools/deepcpu/problem_list.hpp"

namespace deepcpu::cli {

std::string names_file(const std::string& text) { return text.empty() ? "must name a file" : ""; }

std::string is_number(const std::string& text) {
  double number = 0.0;
  const bool nan = CLI::detail::lexical_cast(text, number) && std::isnan(number);
  return nan ? text + ": must be a number" : "";
}

std::string is_shard(const std::string& text) {
  const auto shard = parse_shard(text);
  return shard ? "" : shard.error().message();
}

}  // namespace deepcpu::cli
