// SPDX-License-Identifier: Apache-2.0
#include "src/io/safetensors.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "src/io/checked.hpp"
#include "src/io/json_guard.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kLengthBytes = 8;
/// The limit of the format's own reader.
constexpr std::uint64_t kLongestHeader = 100'000'000;
/// A header nests three deep: header, tensor, shape.
constexpr std::size_t kHeaderDepth = 3;
constexpr std::string_view kMetadata = "__metadata__";

struct Dtype {
  std::string_view name;
  unsigned bits;
};
constexpr std::array kDtypes = {
    Dtype{"BOOL", 8},    Dtype{"U8", 8},      Dtype{"I8", 8},      Dtype{"F4", 4},
    Dtype{"F6_E2M3", 6}, Dtype{"F6_E3M2", 6}, Dtype{"F8_E5M2", 8}, Dtype{"F8_E4M3", 8},
    Dtype{"F8_E8M0", 8}, Dtype{"I16", 16},    Dtype{"U16", 16},    Dtype{"F16", 16},
    Dtype{"BF16", 16},   Dtype{"I32", 32},    Dtype{"U32", 32},    Dtype{"F32", 32},
    Dtype{"C64", 64},    Dtype{"F64", 64},    Dtype{"I64", 64},    Dtype{"U64", 64},
};

Error tensor_error(const std::string& name, std::string_view what) {
  return Error(fmt::format("tensor {}: {}", quote(name), what));
}

/// A JSON number as an unsigned integer; absent for negative ones, fractions and other types.
std::optional<std::uint64_t> as_unsigned(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<std::uint64_t>();
}

Status check_metadata(const json& metadata) {
  if (!metadata.is_object()) return Error("__metadata__: must be an object of strings");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return Error(fmt::format("__metadata__: {} must be a string", quote(key)));
    }
  }
  return {};
}

Status read_shape(const std::string& name, const json& shape, SafetensorsEntry& entry) {
  if (!shape.is_array()) return tensor_error(name, "shape must be an array");
  for (const json& dim : shape) {
    const auto value = as_unsigned(dim);
    if (!value || *value > static_cast<std::uint64_t>(INT64_MAX)) {
      return tensor_error(name, fmt::format("shape has the dimension {}: must be an integer from "
                                            "0 to 2^63 - 1",
                                            quote(dim.dump())));
    }
    entry.shape.push_back(static_cast<std::int64_t>(*value));
  }
  return {};
}

Status read_offsets(const std::string& name, const json& offsets, std::uint64_t data_bytes,
                    SafetensorsEntry& entry) {
  constexpr std::string_view kRule = "data_offsets must be two integers, [begin, end]";
  if (!offsets.is_array() || offsets.size() != 2) return tensor_error(name, kRule);
  const auto begin = as_unsigned(offsets[0]);
  const auto end = as_unsigned(offsets[1]);
  if (!begin || !end) return tensor_error(name, kRule);
  if (*begin > *end) {
    return tensor_error(
        name, fmt::format("data_offsets [{}, {}]: begin must not be after end", *begin, *end));
  }
  if (*end > data_bytes) {
    return tensor_error(name, fmt::format("data_offsets [{}, {}]: the file holds only {} bytes of "
                                          "data",
                                          *begin, *end, data_bytes));
  }
  entry.begin = *begin;
  entry.end = *end;
  return {};
}

/// The bytes that shape and dtype ask for must be the bytes between the offsets.
Status check_size(const SafetensorsEntry& entry) {
  const auto* dtype = std::find_if(kDtypes.begin(), kDtypes.end(),
                                   [&](const Dtype& d) { return d.name == entry.dtype; });
  if (dtype == kDtypes.end()) {
    return tensor_error(entry.name, fmt::format("dtype {} is unknown", quote(entry.dtype)));
  }
  const auto count = element_count(entry.shape);
  const auto bits = count ? checked_mul(*count, dtype->bits) : std::nullopt;
  if (!bits) return tensor_error(entry.name, "the product of its shape passes 2^63 bits");
  if (*bits % 8 != 0 || *bits / 8 != entry.end - entry.begin) {
    return tensor_error(
        entry.name, fmt::format("shape [{}] of {} takes {} bytes, data_offsets [{}, {}] give {}",
                                fmt::join(entry.shape, ", "), entry.dtype, (*bits + 7) / 8,
                                entry.begin, entry.end, entry.end - entry.begin));
  }
  return {};
}

Result<SafetensorsEntry> read_entry(const std::string& name, const json& fields,
                                    std::uint64_t data_bytes) {
  if (!fields.is_object()) return tensor_error(name, "must be an object");
  for (const auto& [key, value] : fields.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return tensor_error(name, fmt::format("field {} is unknown", quote(key)));
    }
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!fields.contains(key)) return tensor_error(name, fmt::format("{} is missing", key));
  }
  if (!fields["dtype"].is_string()) return tensor_error(name, "dtype must be a string");
  SafetensorsEntry entry;
  entry.name = name;
  entry.dtype = fields["dtype"].get<std::string>();
  if (auto status = read_shape(name, fields["shape"], entry); !status) return status.error();
  if (auto status = read_offsets(name, fields["data_offsets"], data_bytes, entry); !status) {
    return status.error();
  }
  if (auto status = check_size(entry); !status) return status.error();
  return entry;
}

/// Tensors sorted by their data must follow each other without overlap or hole up to the end.
Status check_coverage(const std::vector<SafetensorsEntry>& entries, std::uint64_t data_bytes) {
  std::uint64_t expected = 0;
  const SafetensorsEntry* before = nullptr;
  for (const auto& entry : entries) {
    if (entry.begin < expected) {
      return tensor_error(
          entry.name, fmt::format("data_offsets [{}, {}] overlap those of tensor {}", entry.begin,
                                  entry.end, quote(before->name)));
    }
    if (entry.begin > expected) {
      return tensor_error(entry.name,
                          fmt::format("data_offsets [{}, {}] leave the bytes {} to {} to no tensor",
                                      entry.begin, entry.end, expected, entry.begin));
    }
    expected = entry.end;
    before = &entry;
  }
  if (expected != data_bytes) {
    return Error(
        fmt::format("the bytes {} to {} of the data belong to no tensor", expected, data_bytes));
  }
  return {};
}

Result<std::vector<SafetensorsEntry>> parse_header(std::string_view header,
                                                   std::uint64_t data_bytes) {
  if (header.empty() || header.front() != '{') return Error("header: must start with {");
  auto parsed = parse_json(header, kHeaderDepth, kLongestHeader);
  if (!parsed) return Error("header: " + parsed.error().message());
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, fields] : parsed->items()) {
    if (name == kMetadata) {
      if (auto status = check_metadata(fields); !status) return status.error();
      continue;
    }
    auto entry = read_entry(name, fields, data_bytes);
    if (!entry) return entry.error();
    entries.push_back(std::move(*entry));
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  if (auto status = check_coverage(entries, data_bytes); !status) return status.error();
  return entries;
}

Result<std::string> read_header(const InputFile& file) {
  std::uint64_t length = 0;
  if (file.size() < kLengthBytes) {
    return Error(fmt::format("{}: has {} bytes: a safetensors file has at least 8", file.path(),
                             file.size()));
  }
  if (auto status = file.read(0, std::as_writable_bytes(std::span(&length, 1))); !status) {
    return status.error();
  }
  if (length > file.size() - kLengthBytes) {
    return Error(
        fmt::format("{}: header length {}: the file holds only {} bytes after it, so "
                    "it is cut short or no safetensors file",
                    file.path(), length, file.size() - kLengthBytes));
  }
  if (length > kLongestHeader) {
    return Error(fmt::format("{}: header length {}: must be at most {}", file.path(), length,
                             kLongestHeader));
  }
  std::string header(static_cast<std::size_t>(length), ' ');
  auto status = file.read(kLengthBytes, std::as_writable_bytes(std::span(header)));
  if (!status) return status.error();
  return header;
}

/// The header of `tensors` in the order given, padded with spaces so that the data is aligned.
Result<std::string> build_header(std::span<const SafetensorsTensor> tensors) {
  std::string text = "{";
  std::set<std::string_view> names;
  std::uint64_t begin = 0;
  for (const auto& tensor : tensors) {
    const std::string name(tensor.name);
    if (name == kMetadata || !names.insert(tensor.name).second) {
      return tensor_error(name, "this name is reserved or given twice");
    }
    if (element_count(tensor.shape) != tensor.data.size()) {
      return tensor_error(name, fmt::format("shape [{}] does not have {} elements",
                                            fmt::join(tensor.shape, ", "), tensor.data.size()));
    }
    const std::uint64_t end = begin + tensor.data.size_bytes();
    text += fmt::format(R"({}{}:{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                        names.size() > 1 ? "," : "", json(name).dump(),
                        fmt::join(tensor.shape, ","), begin, end);
    begin = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Result<std::vector<SafetensorsEntry>> parse_safetensors_header(std::string_view header,
                                                               std::uint64_t data_bytes) {
  return parse_header(header, data_bytes);
}

SafetensorsFile::SafetensorsFile(InputFile file, std::uint64_t data,
                                 std::vector<SafetensorsEntry> entries)
    : file_(std::move(file)), data_(data), entries_(std::move(entries)) {}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  auto file = InputFile::open(path);
  if (!file) return file.error();
  const auto header = read_header(*file);
  if (!header) return header.error();
  const std::uint64_t data = kLengthBytes + header->size();
  auto entries = parse_safetensors_header(*header, file->size() - data);
  if (!entries) return Error(fmt::format("{}: {}", path, entries.error().message()));
  return SafetensorsFile(std::move(*file), data, std::move(*entries));
}

Result<std::vector<float>> SafetensorsFile::read_f32(const SafetensorsEntry& entry) const {
  if (entry.dtype != "F32") {
    return tensor_error(entry.name, fmt::format("dtype {}: must be F32", quote(entry.dtype)));
  }
  std::vector<float> values(static_cast<std::size_t>((entry.end - entry.begin) / sizeof(float)));
  auto status = file_.read(data_ + entry.begin, std::as_writable_bytes(std::span(values)));
  if (!status) return status.error();
  return values;
}

Status write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors) {
  try {
    const auto header = build_header(tensors);
    if (!header) return header.error();
    const std::uint64_t length = header->size();
    std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(&length, 1)),
                                                     std::as_bytes(std::span(*header))};
    for (const auto& tensor : tensors) parts.push_back(std::as_bytes(tensor.data));
    return write_file(path, parts);
  } catch (const nlohmann::json::exception&) {
    return Error(fmt::format("{}: cannot be written: a tensor's name is not UTF-8", path));
  }
}

}  // namespace deepcpu
