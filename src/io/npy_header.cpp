// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "src/io/npy.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

/// Most dimensions that numpy itself allows.
constexpr std::size_t kMostDims = 64;

/// A cursor over the literal. Each read_ function consumes what it names or leaves an absent value.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool take(char c) {
    skip_space();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }
  /// 'text' or "text" without escapes.
  std::optional<std::string> read_string() {
    skip_space();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) return std::nullopt;
    const std::size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view text = rest_.substr(1, end - 1);
    if (text.find('\\') != std::string_view::npos) return std::nullopt;
    rest_.remove_prefix(end + 1);
    return std::string(text);
  }
  std::optional<bool> read_bool() {
    if (take_word("True")) return true;
    if (take_word("False")) return false;
    return std::nullopt;
  }
  /// A decimal integer from 0 to 2^63 - 1.
  std::optional<std::int64_t> read_dim() {
    skip_space();
    std::int64_t value = 0;
    const char* end = rest_.data() + rest_.size();
    const auto [next, code] = std::from_chars(rest_.data(), end, value);
    if (code != std::errc() || value < 0) return std::nullopt;
    rest_.remove_prefix(static_cast<std::size_t>(next - rest_.data()));
    return value;
  }
  /// (), (3,), (3, 4) or (3, 4,).
  std::optional<std::vector<std::int64_t>> read_shape() {
    if (!take('(')) return std::nullopt;
    std::vector<std::int64_t> shape;
    bool comma = false;
    while (!take(')')) {
      if (!shape.empty() && !comma) return std::nullopt;
      const auto dim = read_dim();
      if (!dim || shape.size() == kMostDims) return std::nullopt;
      shape.push_back(*dim);
      comma = take(',');
    }
    // (3) is a number in Python, not a tuple.
    if (shape.size() == 1 && !comma) return std::nullopt;
    return shape;
  }

 private:
  void skip_space() {
    const std::size_t first = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(std::min(first, rest_.size()));
  }
  std::string_view rest_;
};

Status read_value(Scanner& scanner, const std::string& key, NpyHeader& header) {
  if (key == "descr") {
    auto descr = scanner.read_string();
    if (!descr) return Error("descr: must be a string such as '<f4'");
    header.descr = std::move(*descr);
  } else if (key == "fortran_order") {
    const auto order = scanner.read_bool();
    if (!order) return Error("fortran_order: must be True or False");
    header.fortran_order = *order;
  } else if (key == "shape") {
    auto shape = scanner.read_shape();
    if (!shape) return Error("shape: must be a tuple of integers from 0 to 2^63 - 1");
    header.shape = std::move(*shape);
  } else {
    return Error(fmt::format("header: key {} is unknown", quote(key)));
  }
  return {};
}

}  // namespace

Result<NpyHeader> parse_npy_header(std::string_view text) {
  const Error not_a_dict("header: is not a Python dict");
  Scanner scanner(text);
  NpyHeader header;
  std::set<std::string> seen;
  if (!scanner.take('{')) return not_a_dict;
  bool comma = true;
  while (!scanner.take('}')) {
    const auto key = comma ? scanner.read_string() : std::nullopt;
    if (!key || !scanner.take(':')) return not_a_dict;
    if (auto status = read_value(scanner, *key, header); !status) return status.error();
    if (!seen.insert(*key).second) return Error(fmt::format("header: {} is given twice", *key));
    comma = scanner.take(',');
  }
  if (!scanner.at_end()) return not_a_dict;
  for (const char* key : {"descr", "fortran_order", "shape"}) {
    if (!seen.contains(key)) return Error(fmt::format("header: {} is missing", key));
  }
  return header;
}

}  // namespace deepcpu
