// SPDX-License-Identifier: Apache-2.0
#include "src/io/json_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

/// Deepest nesting of brackets outside strings. Runs before the parser, so that the depth of its
/// stack, and of the destructors of what it builds, has a bound.
std::size_t nesting(std::string_view text) noexcept {
  std::size_t depth = 0;
  std::size_t deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

/// Walks through valid JSON and remembers the first key that an object has twice. A pass of its
/// own: the parser with a callback looks through all of an array again at the end of each object in
/// it.
class DuplicateKeys : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    open_.emplace_back();
    return true;
  }
  bool end_object() override {
    open_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool key(string_t& name) override {
    if (open_.back().insert(name).second) return true;
    duplicate_ = name;
    return false;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }
  const std::optional<std::string>& duplicate() const noexcept { return duplicate_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::optional<std::string> duplicate_;
};

/// Empties a value from its leaves up.
void dismantle(nlohmann::json& value) noexcept {
  if (value.is_array()) {
    auto& items = value.get_ref<nlohmann::json::array_t&>();
    for (; !items.empty(); items.pop_back()) dismantle(items.back());
  } else if (value.is_object()) {
    auto& items = value.get_ref<nlohmann::json::object_t&>();
    for (; !items.empty(); items.erase(items.begin())) dismantle(items.begin()->second);
  }
}

Result<JsonTree> parse(std::string_view text) {
  try {
    JsonTree parsed(nlohmann::json::parse(text));
    DuplicateKeys keys;
    nlohmann::json::sax_parse(text, &keys);
    if (keys.duplicate()) {
      return Error(fmt::format("{}: is given twice", quote(*keys.duplicate())));
    }
    return parsed;
  } catch (const nlohmann::json::parse_error& error) {
    return Error(fmt::format("JSON is not valid at byte {}", error.byte));
  } catch (const nlohmann::json::out_of_range&) {
    return Error("JSON holds a number that is too large");
  } catch (const nlohmann::json::exception&) {
    return Error("JSON is not valid");
  }
}

}  // namespace

JsonTree::~JsonTree() { dismantle(*this); }

Result<JsonTree> parse_json(std::string_view text, std::size_t max_depth, std::size_t max_bytes) {
  if (text.size() > max_bytes) {
    return Error(fmt::format("JSON of {} bytes: must be at most {}", text.size(), max_bytes));
  }
  if (const std::size_t depth = nesting(text); depth > max_depth) {
    return Error(fmt::format("JSON nested {} deep: must be at most {}", depth, max_depth));
  }
  return parse(text);
}

}  // namespace deepcpu
