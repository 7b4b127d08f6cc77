// SPDX-License-Identifier: Apache-2.0
/// Problem strings: cell ':' dims [',' key '=' value]*.
#include "src/model/problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"
#include "src/model/registry.hpp"
#include "src/model/sizes.hpp"

namespace deepcpu {
namespace {

/// Long enough for 1024 hidden sizes of 7 digits.
constexpr std::size_t kLongest = 1 << 16;
constexpr std::size_t kLongestOption = 64;

/// What a problem string says, before any rule of the model is applied.
struct Problem {
  std::string cell;
  std::map<char, std::vector<std::int64_t>> numbers;  ///< by letter, see Size
  std::optional<Direction> direction;
  CellOptions options;

  std::optional<std::int64_t> number(const Size& size) const {
    const auto found = numbers.find(size.letter);
    if (found == numbers.end()) return std::nullopt;
    return found->second.front();
  }
};

/// Reads the dims part from left to right.
class DimsReader {
 public:
  DimsReader(std::string_view dims, Problem& into) : rest_(dims), into_(into) {}

  Status read() {
    while (!rest_.empty()) {
      if (auto status = read_one(); !status) return status;
    }
    return {};
  }

 private:
  Status read_one() {
    // `bi` before `b`: a batch always has a number after its letter.
    if (take("bi")) return set_direction(Direction::bidirectional);
    if (take("rev")) return set_direction(Direction::reverse);
    const char letter = rest_.front();
    const auto size = std::find_if(kSizes.begin(), kSizes.end(),
                                   [&](const Size& s) { return s.letter == letter; });
    if (size == kSizes.end()) {
      return Error(fmt::format("dims: {} is none of i, h, l, p, bi, rev, b, t", quote(rest_)));
    }
    rest_.remove_prefix(1);
    return read_numbers(*size);
  }

  Status read_numbers(const Size& size) {
    if (into_.numbers.contains(size.letter)) {
      return Error(fmt::format("{}: is given twice", size.name));
    }
    auto& numbers = into_.numbers[size.letter];
    do {
      const auto value = read_number(size);
      if (!value) return value.error();
      numbers.push_back(*value);
    } while (size.letter == kHidden.letter && take("/"));
    return {};
  }

  Result<std::int64_t> read_number(const Size& size) {
    const std::size_t sign = rest_.starts_with('-') ? 1 : 0;
    const std::size_t end = rest_.find_first_not_of("0123456789", sign);
    const std::string_view text = rest_.substr(0, end);
    if (text.size() == sign) {
      return Error(fmt::format("{}: {} needs a decimal number after it", size.name, size.letter));
    }
    std::int64_t value = 0;
    const auto [next, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc()) {
      return Error(fmt::format("{}={}: must be between {} and {}", size.name, quote(text), size.low,
                               size.high));
    }
    rest_.remove_prefix(text.size());
    return value;
  }

  Status set_direction(Direction direction) {
    if (into_.direction) return Error("direction: is given twice");
    into_.direction = direction;
    return {};
  }

  bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  std::string_view rest_;
  Problem& into_;
};

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

Status read_options(std::string_view text, CellOptions& options) {
  while (!text.empty()) {
    text.remove_prefix(1);  // the comma
    const std::string_view option = text.substr(0, text.find(','));
    text.remove_prefix(option.size());
    const std::size_t equals = option.find('=');
    if (option.size() > kLongestOption || !is_printable(option)) {
      return Error(fmt::format("option {}: must be at most {} printable characters", quote(option),
                               kLongestOption));
    }
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == option.size()) {
      return Error(fmt::format("option {}: must be key=value", quote(option)));
    }
    const std::string key(option.substr(0, equals));
    if (!options.emplace(key, option.substr(equals + 1)).second) {
      return Error(fmt::format("{}: is given twice", quote(key)));
    }
  }
  return {};
}

Result<Problem> split(std::string_view text) {
  if (text.size() > kLongest) {
    return Error(
        fmt::format("problem of {} characters: must have at most {}", text.size(), kLongest));
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || !is_cell_name(text.substr(0, colon))) {
    return Error(fmt::format("problem {}: must look like lstm:i40h256 or gru:i64h64b4,reset=before",
                             quote(text)));
  }
  Problem problem;
  problem.cell = text.substr(0, colon);
  const std::string_view rest = text.substr(colon + 1);
  const std::size_t comma = std::min(rest.find(','), rest.size());
  if (auto status = DimsReader(rest.substr(0, comma), problem).read(); !status) {
    return status.error();
  }
  if (auto status = read_options(rest.substr(comma), problem.options); !status) {
    return status.error();
  }
  return problem;
}

/// One hidden size per layer.
Result<std::vector<std::int64_t>> hidden_sizes(const Problem& problem) {
  const auto& given = problem.numbers.at(kHidden.letter);
  const auto layers = problem.number(kLayers);
  if (!layers) return given;
  if (auto status = check_size(kLayers, *layers); !status) return status.error();
  if (given.size() == 1) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(*layers), given.front());
  }
  if (given.size() != static_cast<std::size_t>(*layers)) {
    return Error(
        fmt::format("layers={}: must equal the number of hidden sizes, {}", *layers, given.size()));
  }
  return given;
}

/// Everything but the cell, and no rule but those of the hidden sizes.
Result<ModelSpec> sizes_of(const Problem& problem) {
  for (const Size& size : {kInput, kHidden}) {
    if (!problem.numbers.contains(size.letter)) {
      return Error(fmt::format("{}: is missing ({} and a number)", size.name, size.letter));
    }
  }
  ModelSpec spec;
  auto hidden = hidden_sizes(problem);
  if (!hidden) return hidden.error();
  spec.hidden = std::move(*hidden);
  spec.input = *problem.number(kInput);
  spec.batch = problem.number(kBatch).value_or(spec.batch);
  spec.steps = problem.number(kSteps).value_or(spec.steps);
  spec.direction = problem.direction.value_or(spec.direction);
  if (const auto projection = problem.number(kProjection)) {
    if (auto status = check_size(kProjection, *projection); !status) return status.error();
    spec.projection = *projection;
  }
  spec.options = problem.options;
  return spec;
}

Result<ModelSpec> assemble(const Problem& problem) {
  // Whose cell is unknown need not hear first what sizes are missing.
  if (auto status = check_cell(problem.cell); !status) return status.error();
  auto spec = sizes_of(problem);
  if (!spec) return spec;
  auto found = resolve_cell(problem.cell, problem.options, spec->projection != 0);
  if (!found) return found.error();
  spec->cell = std::move(found->cell);
  spec->options = std::move(found->options);
  if (auto status = spec->validate(); !status) return status.error();
  return spec;
}

Status check_sizes(const ModelSpec& spec) {
  if (auto status = check_size(kInput, spec.input); !status) return status;
  if (auto status = check_size(kLayers, spec.layers()); !status) return status;
  for (const std::int64_t hidden : spec.hidden) {
    if (auto status = check_size(kHidden, hidden); !status) return status;
  }
  if (auto status = check_size(kBatch, spec.batch); !status) return status;
  return check_size(kSteps, spec.steps);
}

}  // namespace

Result<ModelSpec> ModelSpec::parse(std::string_view problem) {
  return guard_memory("read the problem", [&]() -> Result<ModelSpec> {
    const auto parts = split(problem);
    if (!parts) return parts.error();
    return assemble(*parts);
  });
}

Result<Shape> parse_shape(std::string_view problem) {
  return guard_memory("read the problem", [&]() -> Result<Shape> {
    auto parts = split(problem);
    if (!parts) return parts.error();
    auto spec = sizes_of(*parts);
    if (!spec) return spec.error();
    if (auto status = check_sizes(*spec); !status) return status.error();
    return Shape{std::move(parts->cell), std::move(*spec), parts->numbers.contains(kBatch.letter),
                 parts->numbers.contains(kSteps.letter)};
  });
}

}  // namespace deepcpu
