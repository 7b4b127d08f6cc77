// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "src/cells/cell_hash.hpp"
#include "src/guard_memory.hpp"
#include "src/io/json_guard.hpp"
#include "src/io/quote.hpp"
#include "src/model/problem.hpp"
#include "src/tune/wisdom_check.hpp"
#include "src/tune/wisdom_span.hpp"

namespace deepcpu {
namespace {

using nlohmann::json;

/// The file, its entries, one entry, its schedule, the layers, one layer.
constexpr std::size_t kDepth = 6;
constexpr std::size_t kLongestWord = 1024;
/// A year, in microseconds: longer is a mistake.
constexpr double kMostMicroseconds = 3.2e13;

/// Takes fields out of one object. The first mistake is kept; what follows it is skipped.
class Fields {
 public:
  /// `name` of the object itself, for sentences; its fields are named after `prefix`.
  Fields(const json& object, std::string_view name, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {
    if (!object_.is_object()) error_ = Error(fmt::format("{}: must be an object", name));
  }

  /// The field's value; null if it is absent, which is an error if it is `required`.
  const json* find(const char* name, bool required) {
    if (error_) return nullptr;
    const auto at = object_.find(name);
    if (at != object_.end()) {
      known_.emplace_back(name);
      return &*at;
    }
    if (required) error_ = Error(fmt::format("{}{}: is missing", prefix_, name));
    return nullptr;
  }
  void word(const char* name, bool required, std::string& into) {
    const json* value = find(name, required);
    if (value == nullptr) return;
    if (!value->is_string() || value->get_ref<const std::string&>().size() > kLongestWord) {
      return fail(name, *value, fmt::format("must be a string of at most {} bytes", kLongestWord));
    }
    into = value->get<std::string>();
  }
  void whole(const char* name, bool required, std::int64_t low, std::int64_t high,
             std::int64_t& into) {
    const json* value = find(name, required);
    if (value == nullptr) return;
    // Larger unsigned numbers than an int64 holds wrap around to negative ones.
    const bool fits = value->is_number_integer() && value->get<std::int64_t>() >= low &&
                      value->get<std::int64_t>() <= high;
    if (!fits) return fail(name, *value, fmt::format("must be between {} and {}", low, high));
    into = value->get<std::int64_t>();
  }
  void real(const char* name, double high, double& into) {
    const json* value = find(name, false);
    if (value == nullptr) return;
    const double number = value->is_number() ? value->get<double>() : -1.0;
    if (!(number >= 0.0 && number <= high)) {
      return fail(name, *value, fmt::format("must be a number between 0 and {}", high));
    }
    into = number;
  }
  /// Reads a word with `parse`, which gives a Result<T>.
  template <class T, class Parse>
  void parsed(const char* name, bool required, Parse parse, std::optional<T>& into) {
    std::string text;
    word(name, required, text);
    if (error_ || !object_.contains(name)) return;
    const Result<T> value = parse(text);
    if (!value) {
      error_ = with_prefix(prefix_, value.error());
    } else {
      into = *value;
    }
  }
  void fail(std::string_view name, const json& value, std::string_view rule) {
    if (error_) return;
    // Arrays and objects are not shown: they can be as long as the file.
    const std::string shown = value.is_structured() ? "" : "=" + quote(value.dump());
    error_ = Error(fmt::format("{}{}{}: {}", prefix_, name, shown, rule));
  }
  /// After all fields: the first mistake, or a field that is left over.
  Status finish() {
    if (error_) return *error_;
    if (known_.size() == object_.size()) return {};
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      return Error(fmt::format("{}{}: is unknown", prefix_, quote(key)));
    }
    return {};
  }

 private:
  const json& object_;
  std::string prefix_;
  std::vector<std::string_view> known_;  ///< asked for and there
  std::optional<Error> error_;
};

/// Reads the text of one of `classes`.
template <class Classes>
auto class_of(std::string_view field, const Classes& classes) {
  return [field, &classes](const std::string& text) -> Result<SizeClass> {
    std::string all;
    for (const SizeClass& c : classes) {
      if (c.text == text) return c;
      all += (all.empty() ? "" : ", ") + std::string(c.text);
    }
    return Error(fmt::format("{}={}: must be one of {}", field, quote(text), all));
  };
}

Result<std::uint64_t> parse_hash(const std::string& text) {
  std::uint64_t hash = 0;
  const char* end = text.data() + text.size();
  const auto [next, code] = std::from_chars(text.data(), end, hash, 16);
  if (code == std::errc() && next == end && hash_text(hash) == text) return hash;
  return Error(fmt::format("cell={}: must be 16 hexadecimal digits, 0-9 and a-f", quote(text)));
}

Result<std::string> parse_version(const std::string& text) {
  int points = 0;
  char last = '.';
  for (const char c : text) {
    const bool legal = c == '.' ? last != '.' : c >= '0' && c <= '9';
    if (!legal || text.size() > 32) points = 9;
    points += c == '.' ? 1 : 0;
    last = c;
  }
  if (points == 2 && last != '.') return text;
  return Error(fmt::format("version={}: must look like 0.1.0", quote(text)));
}

/// What the key of an entry says, with what is known of its cell.
struct KeyOf {
  WisdomKey key;
  ModelSpec spec;  ///< its cell is empty if none of that name is known here
};

/// The cell of a problem, its options in canonical form, and the hash in the key.
Status set_cell(const Shape& shape, std::optional<std::uint64_t> stated, KnownCells& cells,
                KeyOf& out) {
  out.spec = shape.spec;
  out.spec.batch = out.key.batch.low;
  const auto cell = cells.find(shape.cell, shape.spec.options, shape.spec.projection != 0);
  if (!cell) return cell.error();
  if (*cell == nullptr) {
    if (!stated) {
      return Error(fmt::format("cell: is missing, and cell {} is not known here", shape.cell));
    }
    out.key.cell = *stated;
  } else {
    out.spec.cell = (*cell)->cell;
    out.spec.options = (*cell)->options;
    out.key.cell = cell_hash(out.spec.cell);
    if (stated && *stated != out.key.cell) {
      return Error(fmt::format("cell={}: is not the graph of {}, which is {}", hash_text(*stated),
                               shape.cell, hash_text(out.key.cell)));
    }
    if (auto status = out.spec.validate(); !status) return status;
  }
  out.key.problem = shape_text(shape.cell, out.spec);
  return {};
}

/// `steps`: what was timed, or 0; the class of a key that does not state one.
Result<KeyOf> read_key(const json& object, std::int64_t steps, KnownCells& cells) {
  KeyOf out;
  Fields fields(object, "key", "key.");
  std::string problem;
  std::int64_t threads = 0;
  std::optional<std::uint64_t> cell;
  std::optional<SizeClass> batch;
  std::optional<SizeClass> step;
  fields.parsed("cell", false, parse_hash, cell);
  // Stacks with a hidden size per layer have long problems, so parse_shape has the limit.
  const json* text = fields.find("problem", true);
  if (text != nullptr && !text->is_string()) fields.fail("problem", *text, "must be a string");
  fields.whole("threads", true, 1, 1024, threads);
  fields.parsed("batch", true, class_of("batch", kBatchClasses), batch);
  fields.parsed("steps", false, class_of("steps", kStepClasses), step);
  fields.parsed(
      "isa", false, [](const std::string& text) { return parse_isa(text); }, out.key.isa);
  fields.word("machine", true, out.key.machine);
  if (auto status = fields.finish(); !status) return status.error();
  auto shape = parse_shape(text->get_ref<const std::string&>());
  if (!shape) return with_prefix("key.problem: ", shape.error());
  if (shape->has_batch || shape->has_steps) {
    return Error("key.problem: must not state b or t; their classes are key.batch and key.steps");
  }
  out.key.threads = static_cast<int>(threads);
  out.key.batch = *batch;
  if (step || steps > 0) out.key.steps = step ? *step : step_class(steps);
  if (out.key.machine == this_machine_key() && out.key.isa >= machine().isa) out.key.isa = {};
  if (auto status = set_cell(*shape, cell, cells, out); !status) {
    return with_prefix("key.", status.error());
  }
  return out;
}

Status read_schedule(const json& value, Schedule& into) {
  if (!value.is_object()) return Error("schedule: must be an object");
  auto schedule = Schedule::from_json(value.dump());
  if (!schedule) {
    const bool named = schedule.error().message().starts_with("schedule");
    return with_prefix(named ? "" : "schedule.", schedule.error());
  }
  into = std::move(*schedule);
  return {};
}

void read_evidence(Fields& fields, WisdomEntry& e) {
  std::optional<std::string> version;
  fields.real("predicted_us", kMostMicroseconds, e.predicted_us);
  fields.real("measured_us", kMostMicroseconds, e.measured_us);
  fields.real("spread", 1e6, e.spread);
  fields.whole("rows", false, 1, kBatchClasses.back().high, e.rows);
  fields.whole("steps", false, 1, INT32_MAX, e.steps);
  fields.whole("candidates", false, 0, INT32_MAX, e.candidates);
  fields.parsed(
      "effort", false, [](const std::string& text) { return parse_effort(text); }, e.effort);
  fields.parsed("version", false, parse_version, version);
  e.version = version.value_or("");
}

/// Fills `item` up to the first rule that is broken.
Status read_entry(const json& object, KnownCells& cells, WisdomItem& item) {
  Fields fields(object, "entry", "");
  WisdomEntry e;
  const json* key = fields.find("key", true);
  const json* schedule = fields.find("schedule", true);
  read_evidence(fields, e);
  // The key first: whoever writes an entry with the same key replaces one that is illegal.
  std::optional<KeyOf> of;
  if (key != nullptr) {
    auto read = read_key(*key, e.steps, cells);
    if (!read) return read.error();
    of = std::move(*read);
    item.id = of->key.id();
    e.key = of->key;
  }
  if (auto status = fields.finish(); !status) return status;
  if (auto status = read_schedule(*schedule, e.schedule); !status) return status;
  if (auto status = check_entry(e, of->spec.hidden.size()); !status) return status;
  const bool here = e.key.machine == this_machine_key();
  if (here && e.schedule.isa > machine().isa) {
    return Error(fmt::format("schedule.isa={}: this machine offers {} at most",
                             to_string(e.schedule.isa), to_string(machine().isa)));
  }
  if (!of->spec.cell.nodes().empty()) {
    if (auto status = check_lowering(of->spec, e.schedule); !status) {
      return with_prefix("schedule.", status.error());
    }
    item.lowered = true;
  }
  item.entry = std::move(e);
  return {};
}

Result<std::vector<WisdomItem>> read_items(std::string_view text, const json& file) {
  const json& entries = file.at("entries");
  const auto spans = element_spans(text);
  if (spans.size() != entries.size()) return Error("entries: must be the only array of the file");
  std::vector<WisdomItem> items(entries.size());
  std::unordered_map<std::string, std::size_t> first;
  KnownCells cells;
  for (std::size_t i = 0; i < items.size(); ++i) {
    WisdomItem& item = items[i];
    item.text = spans[i];
    if (auto status = read_entry(entries[i], cells, item); !status) {
      if (status.error().kind() == ErrorKind::memory) return status.error();
      item.refused = status.error().message();
      continue;
    }
    const auto [at, added] = first.emplace(item.id, i);
    if (added) continue;
    item.refused = fmt::format("key: is that of entry {}", at->second);
    item.entry.reset();
  }
  return items;
}

/// A JSON string. Bytes that are no UTF-8 are replaced.
std::string escaped(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

/// The shortest text that reads back as the same number.
std::string number(double value) { return json(value).dump(); }

Result<std::vector<WisdomItem>> read_file(std::string_view text) {
  if (text.empty()) return Error("is empty");
  const auto parsed = parse_json(text, kDepth, kMostWisdomBytes);
  if (!parsed) return parsed.error();
  if (!parsed->is_object() || !parsed->contains("entries")) {
    return Error("is no wisdom file: must be an object with format and entries");
  }
  Fields fields(*parsed, "file", "");
  std::int64_t format = 0;
  fields.whole("format", true, kWisdomFormat, kWisdomFormat, format);
  const json* entries = fields.find("entries", true);
  if (entries != nullptr && !entries->is_array())
    fields.fail("entries", *entries, "must be an array");
  if (entries != nullptr && entries->size() > kMostWisdomEntries) {
    return Error(
        fmt::format("entries: has {}; must have at most {}", entries->size(), kMostWisdomEntries));
  }
  if (auto status = fields.finish(); !status) return status.error();
  return read_items(text, *parsed);
}

}  // namespace

Result<std::vector<WisdomItem>> parse_wisdom(std::string_view text) {
  return guard_memory("read the wisdom", [&] { return read_file(text); });
}

std::string wisdom_text(const std::vector<WisdomItem>& items) {
  std::string text = fmt::format("{{\n  \"format\": {},\n  \"entries\": [", kWisdomFormat);
  for (std::size_t i = 0; i < items.size(); ++i) {
    text += (i == 0 ? "\n    " : ",\n    ") + items[i].text;
  }
  return text + (items.empty() ? "]\n}\n" : "\n  ]\n}\n");
}

WisdomItem to_item(const WisdomEntry& e) {
  std::string key = fmt::format(
      R"("cell":"{}","problem":{},"threads":{},"batch":"{}","steps":"{}")", hash_text(e.key.cell),
      escaped(e.key.problem), e.key.threads, e.key.batch.text, e.key.steps.text);
  if (e.key.isa) key += fmt::format(R"(,"isa":"{}")", to_string(*e.key.isa));
  key += fmt::format(R"(,"machine":{})", escaped(e.key.machine));
  WisdomItem item;
  item.text =
      fmt::format("{{\n      \"key\": {{{}}},\n      \"schedule\": {}", key, e.schedule.to_json());
  const auto add = [&](std::string_view name, bool stated, const std::string& value) {
    if (stated) item.text += fmt::format(",\n      \"{}\": {}", name, value);
  };
  add("predicted_us", e.predicted_us > 0.0, number(e.predicted_us));
  add("measured_us", e.measured_us > 0.0, number(e.measured_us));
  add("spread", e.measured_us > 0.0, number(e.spread));
  add("rows", e.rows > 0, std::to_string(e.rows));
  add("steps", e.steps > 0, std::to_string(e.steps));
  add("candidates", e.candidates > 0, std::to_string(e.candidates));
  add("effort", e.effort.has_value(),
      e.effort ? fmt::format("\"{}\"", to_string(*e.effort)) : std::string());
  add("version", !e.version.empty(), escaped(e.version));
  item.text += "\n    }";
  item.id = e.key.id();
  item.entry = e;
  return item;
}

}  // namespace deepcpu
