// SPDX-License-Identifier: Apache-2.0
#include "src/machine/machine_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>
#include <vector>

#include "src/io/file.hpp"
#include "src/io/json_guard.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxDepth = 8;
constexpr std::size_t kMaxBytes = 4 << 20;

// One description per structure serves both directions: `fields(visitor, value)` names every field
// once, a Writer puts them into an object and a Reader takes them out of one.

class Writer;
class Reader;

template <class V>
void fields(V& visit, Cache& c) {
  visit("bytes", c.bytes);
  visit("line", c.line);
  visit("shared_by", c.shared_by);
}

template <class V>
void fields(V& visit, Machine& m) {
  visit("vendor", m.vendor);
  visit("model_name", m.model_name);
  visit("family", m.family);
  visit("model", m.model);
  visit("stepping", m.stepping);
  visit("features", m.features);
  visit("isa", m.isa);
  visit("l1d", m.l1d);
  visit("l2", m.l2);
  visit("l3", m.l3);
  visit("cpus", m.cpus);
  visit("cpu_quota", m.cpu_quota);
  visit("tsc_hz", m.tsc_hz);
  visit("hypervisor", m.hypervisor);
  visit("notes", m.notes);
}

template <class V>
void fields(V& visit, Rates& r) {
  visit("isa", r.isa);
  visit("clock_ghz", r.clock_ghz);
  visit("fma_gflops", r.fma_gflops);
  visit("l1_gbytes_per_s", r.l1_gbytes_per_s);
  visit("l2_gbytes_per_s", r.l2_gbytes_per_s);
}

template <class V>
void fields(V& visit, CoreRates& r) {
  visit("one", r.one);
  visit("two", r.two);
  visit("all", r.all);
}

template <class V>
void fields(V& visit, IsaRates& r) {
  visit("isa", r.isa);
  visit("fma_gflops", r.fma_gflops);
  visit("load_l1_gbytes_per_s", r.load_l1_gbytes_per_s);
  visit("overlap", r.overlap);
  visit("strided", r.strided);
  visit("read_gbytes_per_s", r.read_gbytes_per_s);
}

template <class V>
void fields(V& visit, LevelCapacity& l) {
  visit("name", l.name);
  visit("stream_bytes", l.stream_bytes);
  visit("shared_by", l.shared_by);
  visit("forward_bytes", l.forward_bytes);
  visit("alternating_bytes", l.alternating_bytes);
  visit("measured", l.measured);
}

template <class V>
void fields(V& visit, CoreLatency& l) {
  visit("from", l.from);
  visit("to", l.to);
  visit("nanoseconds", l.nanoseconds);
}

template <class V>
void fields(V& visit, Calibration& c) {
  visit("machine", c.machine);
  visit("clock_ghz", c.clock_ghz);
  visit("isas", c.isas);
  visit("levels", c.levels);
  visit("latencies", c.latencies);
  visit("latency_ns", c.latency_ns);
  visit("wake_us", c.wake_us);
  visit("cores", c.cores);
  visit("seconds", c.seconds);
  visit("version", c.version);
}

template <class V>
void fields(V& visit, LevelModel& l) {
  visit("name", l.name);
  visit("gbytes_per_s", l.gbytes_per_s);
  visit("forward_bytes", l.forward_bytes);
  visit("alternating_bytes", l.alternating_bytes);
  visit("shared_by", l.shared_by);
  visit("measured", l.measured);
}

template <class V>
void fields(V& visit, IsaModel& m) {
  visit("isa", m.isa);
  visit("fma_gflops", m.fma_gflops);
  visit("overlap", m.overlap);
  visit("strided", m.strided);
  visit("levels", m.levels);
}

template <class V>
void fields(V& visit, MachineModel& m) {
  visit("source", m.source);
  visit("note", m.note);
  visit("clock_ghz", m.clock_ghz);
  visit("cores", m.cores);
  visit("exchange_ns", m.exchange_ns);
  visit("wake_us", m.wake_us);
  visit("isas", m.isas);
}

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

template <class T>
Json write(const T& value);

class Writer {
 public:
  template <class T>
  void operator()(const char* name, const T& value) {
    object_[name] = write(value);
  }
  Json take() { return std::move(object_); }

 private:
  Json object_ = Json::object();
};

template <class T>
Json write(const T& value) {
  if constexpr (std::is_same_v<T, Isa> || std::is_same_v<T, ModelSource>) {
    return std::string(to_string(value));
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (IsVector<T>::value) {
    Json array = Json::array();
    for (const auto& item : value) array.push_back(write(item));
    return array;
  } else {
    Writer writer;
    T copy = value;
    fields(writer, copy);
    return writer.take();
  }
}

/// Takes fields out of one object. The first mistake is kept; the rest is skipped.
class Reader {
 public:
  Reader(const nlohmann::json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) fail(path_, "must be an object");
  }

  template <class T>
  void operator()(const char* name, T& value) {
    if (!error_.empty()) return;
    const auto found = object_.find(name);
    if (found == object_.end()) return fail(join(name), "is missing");
    seen_.emplace_back(name);
    read(join(name), *found, value);
  }

  /// A field that may be there and is not read.
  void skip(const char* name) { seen_.emplace_back(name); }

  /// After all fields: what is left over is unknown.
  std::string finish() {
    if (!error_.empty()) return error_;
    for (const auto& [key, value] : object_.items()) {
      if (std::find(seen_.begin(), seen_.end(), key) == seen_.end()) {
        return fmt::format("{}: is not a known field", join(quote(key)));
      }
    }
    return {};
  }

 private:
  std::string join(const std::string& name) const {
    return path_.empty() ? name : path_ + "." + name;
  }
  void fail(const std::string& where, const std::string& rule) {
    if (error_.empty()) error_ = fmt::format("{}: {}", where.empty() ? "file" : where, rule);
  }

  void read(const std::string& at, const nlohmann::json& in, std::string& out) {
    if (!in.is_string()) return fail(at, "must be a string");
    out = in.get<std::string>();
  }
  void read(const std::string& at, const nlohmann::json& in, bool& out) {
    if (!in.is_boolean()) return fail(at, "must be true or false");
    out = in.get<bool>();
  }
  void read(const std::string& at, const nlohmann::json& in, double& out) {
    if (!in.is_number()) return fail(at, "must be a number");
    out = in.get<double>();
  }
  void read(const std::string& at, const nlohmann::json& in, Isa& out) {
    std::string text;
    read(at, in, text);
    if (!error_.empty()) return;
    const Result<Isa> isa = parse_isa(text);
    if (!isa.ok()) return fail(at, "must be one of interpreter, avx2, avx512");
    out = *isa;
  }
  template <class T>
  requires std::is_integral_v<T>
  void read(const std::string& at, const nlohmann::json& in, T& out) {
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
    if (!in.is_number_unsigned() || in.get<std::uint64_t>() > kMost) {
      return fail(at, fmt::format("must be a whole number between 0 and {}", kMost));
    }
    out = static_cast<T>(in.get<std::uint64_t>());
  }
  template <class T>
  void read(const std::string& at, const nlohmann::json& in, std::vector<T>& out) {
    if (!in.is_array()) return fail(at, "must be an array");
    for (const auto& item : in) {
      T value{};
      read(fmt::format("{}[{}]", at, out.size()), item, value);
      if (!error_.empty()) return;
      out.push_back(std::move(value));
    }
  }
  template <class T>
  requires std::is_class_v<T>
  void read(const std::string& at, const nlohmann::json& in, T& out) {
    Reader inner(in, at);
    fields(inner, out);
    if (std::string error = inner.finish(); error_.empty()) error_ = std::move(error);
  }

  const nlohmann::json& object_;
  std::string path_;
  std::string error_;
  std::vector<std::string> seen_;
};

/// Machine text of unknown origin can hold bytes that are no UTF-8; they are replaced.
std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// Format and key, which must be those of this version and of the machine's own fields.
struct Head {
  std::uint32_t format = 0;
  std::string key;

  void read(Reader& reader) {
    reader("format", format);
    reader("key", key);
  }
  Status check(const Machine& machine) const {
    if (format != kMachineFormat) {
      return Error(fmt::format("format={}: must be {}", format, kMachineFormat));
    }
    if (key != machine_key(machine)) {
      return Error(fmt::format("key={}: must be {}, which the machine's fields give", quote(key),
                               quote(machine_key(machine))));
    }
    return {};
  }
};

Json head_of(const Machine& machine) {
  Json json;
  json["format"] = kMachineFormat;
  json["key"] = machine_key(machine);
  return json;
}

Result<Calibration> read_calibration(const nlohmann::json& json) {
  Calibration out;
  Head head;
  Reader reader(json, "");
  head.read(reader);
  reader("calibration", out);
  // `deepcpu machine --json` prints these too; the calibration has its own machine.
  reader.skip("machine");
  reader.skip("rates");
  if (const std::string error = reader.finish(); !error.empty()) return Error(error);
  if (const Status status = head.check(out.machine); !status.ok()) return status.error();
  if (const Status status = check_calibration(out); !status.ok()) return status.error();
  return out;
}

Result<MachineModel> read_estimate(const nlohmann::json& json) {
  Machine machine;
  Head head;
  Reader reader(json, "");
  head.read(reader);
  reader("machine", machine);
  reader.skip("rates");
  reader.skip("calibration");
  if (const std::string error = reader.finish(); !error.empty()) return Error(error);
  if (const Status status = head.check(machine); !status.ok()) return status.error();
  if (const Status status = check_machine(machine); !status.ok()) return status.error();
  return MachineModel::estimate(machine);
}

}  // namespace

std::string to_json(const Machine& machine, const Rates* rates, const Calibration* calibration) {
  Json json = head_of(machine);
  json["machine"] = write(machine);
  json["rates"] = rates == nullptr ? Json(nullptr) : write(*rates);
  json["calibration"] = calibration == nullptr ? Json(nullptr) : write(*calibration);
  return dump(json);
}

std::string to_json(const MachineModel& model) {
  Json json;
  json["format"] = kMachineFormat;
  json["key"] = model.key;
  json["model"] = write(model);
  return dump(json);
}

std::string to_json(const Calibration& calibration) {
  Json json = head_of(calibration.machine);
  json["calibration"] = write(calibration);
  return dump(json);
}

Result<Calibration> calibration_from_json(std::string_view text) {
  const Result<JsonTree> json = parse_json(text, kMaxDepth, kMaxBytes);
  if (!json.ok()) return json.error();
  return read_calibration(*json);
}

Result<MachineModel> model_from_json(std::string_view text) {
  const Result<JsonTree> json = parse_json(text, kMaxDepth, kMaxBytes);
  if (!json.ok()) return json.error();
  const bool described_only = json->is_object() && json->contains("machine") &&
                              json->value("calibration", nlohmann::json()).is_null();
  if (described_only) return read_estimate(*json);
  const Result<Calibration> calibration = read_calibration(*json);
  if (!calibration.ok()) return calibration.error();
  return MachineModel::from(*calibration);
}

Result<std::string> read_machine_file(const std::string& path) {
  return read_text_file(path, kMaxBytes);
}

}  // namespace deepcpu
