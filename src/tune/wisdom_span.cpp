// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_span.hpp"

namespace deepcpu {
namespace {

/// Index of the quote that ends the string that begins at `at`.
std::size_t string_end(std::string_view text, std::size_t at) noexcept {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return at;
}

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

std::vector<std::string_view> element_spans(std::string_view text) {
  constexpr int kInArray = 2;  // depth: the object, the array
  std::vector<std::string_view> out;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      i = string_end(text, i);
    } else if (c == '{' || c == '[') {
      if (++depth == kInArray) begin = i + 1;
    } else if (c == ',' && depth == kInArray) {
      out.push_back(trimmed(text.substr(begin, i - begin)));
      begin = i + 1;
    } else if ((c == '}' || c == ']') && depth-- == kInArray) {
      const std::string_view last = trimmed(text.substr(begin, i - begin));
      if (!last.empty()) out.push_back(last);
      return out;
    }
  }
  return out;
}

}  // namespace deepcpu
