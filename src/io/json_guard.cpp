// SPDX-License-Identifier: Apache-2.0
#include "src/io/json_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
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

/// Builds a tree, in time that grows with the text: the library's own parser with a callback looks
/// through all of an array again at the end of each object in it. What is half built when memory
/// runs out goes away as a JsonTree.
class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // is not in texts
  bool start_object(std::size_t) override { return open(nlohmann::json::object()); }
  bool start_array(std::size_t) override { return open(nlohmann::json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) {
      error_ = fmt::format("{}: is given twice", quote(name));
      return false;
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    const auto* syntax = dynamic_cast<const nlohmann::json::parse_error*>(&e);
    const bool number = dynamic_cast<const nlohmann::json::out_of_range*>(&e) != nullptr;
    error_ = syntax != nullptr ? fmt::format("JSON is not valid at byte {}", syntax->byte)
             : number          ? "JSON holds a number that is too large"
                               : "JSON is not valid";
    return false;
  }

  /// After the walk.
  Result<JsonTree> take() {
    if (!error_.empty()) return Error(std::move(error_));
    return std::move(root_);
  }

 private:
  nlohmann::json& place(nlohmann::json&& value) {
    if (!open_.empty() && open_.back()->is_array()) {
      auto& items = open_.back()->get_ref<nlohmann::json::array_t&>();
      items.push_back(std::move(value));
      return items.back();
    }
    nlohmann::json& at = open_.empty() ? root_ : (*open_.back())[key_];
    at = std::move(value);
    return at;
  }
  bool add(nlohmann::json&& scalar) {
    place(std::move(scalar));
    return true;
  }
  bool open(nlohmann::json&& empty) {
    open_.push_back(&place(std::move(empty)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  JsonTree root_{nlohmann::json()};
  std::vector<nlohmann::json*> open_;  ///< the arrays and objects that are being filled
  std::string key_;
  std::string error_;
};

Result<JsonTree> parse(std::string_view text) {
  TreeBuilder builder;
  nlohmann::json::sax_parse(text, &builder);
  return builder.take();
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
