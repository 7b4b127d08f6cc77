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

/// Remembers the keys of the objects that are open and the first key that one of them has twice.
class DuplicateKeys {
 public:
  bool operator()(nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_.emplace_back();
    if (event == Event::object_end) open_.pop_back();
    if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && !duplicate_) duplicate_ = key;
    }
    return true;
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
    DuplicateKeys keys;
    const auto callback = [&keys](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
      return keys(event, value);
    };
    JsonTree parsed(nlohmann::json::parse(text, callback));
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
