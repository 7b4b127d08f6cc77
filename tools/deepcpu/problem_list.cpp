// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/problem_list.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "src/io/file.hpp"
#include "src/io/quote.hpp"
#include "src/model/sizes.hpp"

namespace deepcpu::cli {
namespace {

constexpr std::size_t kMostFileBytes = std::size_t{16} << 20;

/// Removes a comment and the blanks around what is left.
std::string strip(std::string_view line) {
  line = line.substr(0, line.find('#'));
  constexpr std::string_view kBlanks = " \t\r\v\f";
  const std::size_t first = line.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return std::string(line.substr(first, line.find_last_not_of(kBlanks) - first + 1));
}

Status append_file(const std::string& file, std::vector<ListedProblem>& list) {
  const auto text = read_text_file(file, kMostFileBytes);
  if (!text) return text.error();
  std::size_t number = 0;
  for (std::size_t at = 0; at < text->size(); ++number) {
    const std::size_t end = std::min(text->find('\n', at), text->size());
    std::string problem = strip(std::string_view(*text).substr(at, end - at));
    if (!problem.empty()) {
      list.push_back({fmt::format("{}: line {}: ", file, number + 1), std::move(problem)});
    }
    at = end + 1;
  }
  return {};
}

}  // namespace

Result<ModelSpec> timed_problem(const std::string& problem) {
  auto spec = ModelSpec::parse(problem);
  if (spec && spec->steps < 1) {
    return Error(fmt::format("t={}: must be between 1 and {} where runs are timed", spec->steps,
                             kSteps.high));
  }
  return spec;
}

Result<Shard> parse_shard(const std::string& text) {
  Shard shard;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, shard.index);
  const bool slash = first.ec == std::errc() && first.ptr != end && *first.ptr == '/';
  const auto second = slash ? std::from_chars(first.ptr + 1, end, shard.count) : first;
  const bool whole = slash && second.ec == std::errc() && second.ptr == end;
  if (!whole || shard.index < 1 || shard.index > shard.count) {
    return Error(fmt::format("shard={}: must be i/n with 1 <= i <= n", quote(text)));
  }
  return shard;
}

Result<std::vector<ListedProblem>> problem_list(const std::vector<std::string>& problems,
                                                const std::string& file, const std::string& shard) {
  const auto part = shard.empty() ? Result<Shard>(Shard{}) : parse_shard(shard);
  if (!part) return part.error();
  std::vector<ListedProblem> all;
  for (const std::string& problem : problems) all.push_back({"", problem});
  if (!file.empty()) {
    if (auto status = append_file(file, all); !status) return status.error();
  }
  if (part->count == 1) return all;
  std::vector<ListedProblem> mine;
  for (std::size_t i = part->index - 1; i < all.size(); i += part->count) {
    mine.push_back(std::move(all[i]));
  }
  return mine;
}

Result<MachineModel> described_machine(const std::string& file) {
  const auto text = read_text_file(file, kMostFileBytes);
  if (!text) return text.error();
  auto model = model_from_json(*text);
  if (!model) return Error(fmt::format("{}: {}", file, model.error().message()));
  return model;
}

}  // namespace deepcpu::cli
