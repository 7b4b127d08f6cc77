// SPDX-License-Identifier: Apache-2.0
/// Schedules as JSON. Both directions walk the same tables of fields.
#include <fmt/format.h>

#include <limits>
#include <tuple>

#include "deepcpu/schedule.hpp"
#include "src/guard_memory.hpp"
#include "src/io/json_guard.hpp"
#include "src/io/quote.hpp"
#include "src/schedule/check.hpp"
#include "src/schedule/names.hpp"

namespace deepcpu {
namespace {

using nlohmann::json;

/// A schedule nests three deep: the schedule, its layers, one layer.
constexpr std::size_t kDepth = 3;
constexpr std::size_t kLongest = 1 << 20;

/// A field: its name in JSON and where its value stands.
template <class S, class T>
struct Field {
  std::string_view name;
  T S::*member;
};
template <class S, class T>
Field(const char*, T S::*) -> Field<S, T>;

constexpr std::tuple kScheduleFields{
    Field{"isa", &Schedule::isa},
    Field{"threads", &Schedule::threads},
    Field{"parallel", &Schedule::parallel},
    Field{"exchange", &Schedule::exchange},
    Field{"order", &Schedule::order},
    Field{"start", &Schedule::start},
    Field{"split_rows", &Schedule::split_rows},
    Field{"split_k", &Schedule::split_k},
    Field{"layers", &Schedule::layers},
};
constexpr std::tuple kLayerFields{
    Field{"fuse_gates", &LayerSchedule::fuse_gates},
    Field{"hoist_block", &LayerSchedule::hoist_block},
    Field{"hoist_ahead", &LayerSchedule::hoist_ahead},
    Field{"tile_rows", &LayerSchedule::tile_rows},
    Field{"hoist_rows", &LayerSchedule::hoist_rows},
    Field{"panel", &LayerSchedule::panel},
    Field{"sweep", &LayerSchedule::sweep},
    Field{"group", &LayerSchedule::group},
    Field{"fetch_lines", &LayerSchedule::fetch_lines},
    Field{"cut_panels", &LayerSchedule::cut_panels},
    Field{"weights", &LayerSchedule::weights},
    Field{"phases", &LayerSchedule::phases},
};

template <class S, class Fields>
std::string write_fields(const S& from, const Fields& fields);

std::string write_value(bool value) { return value ? "true" : "false"; }
std::string write_value(int value) { return std::to_string(value); }
template <class E>
requires std::is_enum_v<E> std::string write_value(E value) {
  return fmt::format("\"{}\"", word(value));
}
std::string write_value(const std::vector<LayerSchedule>& layers) {
  std::string array;
  for (const auto& layer : layers) {
    array += (array.empty() ? "" : ",") + write_fields(layer, kLayerFields);
  }
  return "[" + array + "]";
}

/// Words and the names of fields need no escapes.
template <class S, class Fields>
std::string write_fields(const S& from, const Fields& fields) {
  std::string object;
  const auto write = [&](const auto& field) {
    object += fmt::format("{}\"{}\":{}", object.empty() ? "" : ",", field.name,
                          write_value(from.*field.member));
  };
  std::apply([&](const auto&... field) { (write(field), ...); }, fields);
  return "{" + object + "}";
}

Error wrong_value(const std::string& where, const json& value, std::string_view rule) {
  return Error(fmt::format("{}={}: {}", where, quote(value.dump()), rule));
}

template <class S, class Fields>
Status read_fields(const std::string& prefix, const json& object, const Fields& fields, S& into);

Status read_value(const std::string& where, const json& value, bool& into) {
  if (!value.is_boolean()) return wrong_value(where, value, "must be true or false");
  into = value.get<bool>();
  return {};
}

Status read_value(const std::string& where, const json& value, int& into) {
  if (!value.is_number_integer()) return wrong_value(where, value, "must be a whole number");
  constexpr int kHigh = std::numeric_limits<int>::max();
  const bool too_large = value.is_number_unsigned() ? value.get<std::uint64_t>() > kHigh
                                                    : value.get<std::int64_t>() < -kHigh;
  if (too_large) return wrong_value(where, value, "is out of range");
  into = value.get<int>();
  return {};
}

template <class E>
requires std::is_enum_v<E> Status read_value(const std::string& where, const json& value, E& into) {
  std::string legal;
  for (const auto& row : kWords<E>) {
    if (value.is_string() && value.get_ref<const std::string&>() == row.text) {
      into = row.value;
      return {};
    }
    legal += fmt::format("{}\"{}\"", legal.empty() ? "" : ", ", row.text);
  }
  return wrong_value(where, value, "must be one of " + legal);
}

Status read_value(const std::string& where, const json& value, std::vector<LayerSchedule>& into) {
  if (!value.is_array()) return wrong_value(where, value, "must be an array of objects");
  for (std::size_t i = 0; i < value.size(); ++i) {
    LayerSchedule layer;
    const std::string name = fmt::format("{}[{}]", where, i);
    if (!value[i].is_object()) return wrong_value(name, value[i], "must be an object");
    if (auto status = read_fields(name + ".", value[i], kLayerFields, layer); !status) {
      return status;
    }
    into.push_back(layer);
  }
  return {};
}

/// Reads the fields that `object` has; the others keep their defaults. A key that is no field is
/// an error.
template <class S, class Fields>
Status read_fields(const std::string& prefix, const json& object, const Fields& fields, S& into) {
  for (const auto& [key, value] : object.items()) {
    Status status = Error(fmt::format("{}{}: is unknown", prefix, quote(key)));
    const auto read = [&, &key = key, &value = value](const auto& field) {
      if (field.name == key) status = read_value(prefix + key, value, into.*field.member);
    };
    std::apply([&](const auto&... field) { (read(field), ...); }, fields);
    if (!status) return status;
  }
  return {};
}

Result<Schedule> read_schedule(std::string_view text) {
  const auto parsed = parse_json(text, kDepth, kLongest);
  if (!parsed) return Error("schedule: " + parsed.error().message());
  if (!parsed->is_object()) return Error("schedule: must be a JSON object");
  for (const char* key : {"isa", "layers"}) {
    if (!parsed->contains(key)) return Error(fmt::format("schedule: {} is missing", key));
  }
  Schedule schedule;
  if (auto status = read_fields("", *parsed, kScheduleFields, schedule); !status) {
    return status.error();
  }
  if (auto status = check_schedule(schedule); !status) return status.error();
  return schedule;
}

}  // namespace

std::string Schedule::to_json() const { return write_fields(*this, kScheduleFields); }

Result<Schedule> Schedule::from_json(std::string_view text) {
  return guard_memory("read the schedule", [&] { return read_schedule(text); });
}

}  // namespace deepcpu
