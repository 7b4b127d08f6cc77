// SPDX-License-Identifier: Apache-2.0
#include "src/io/npy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "src/guard_memory.hpp"
#include "src/io/checked.hpp"
#include "src/io/file.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "\x93NUMPY";
/// Magic, major version, minor version.
constexpr std::size_t kPreamble = 8;
/// Real headers take 128 bytes; this bounds what a false length can ask for.
constexpr std::uint64_t kLongestHeader = 1 << 20;
constexpr std::size_t kAlignment = 64;

struct Preamble {
  std::uint64_t header = 0;  ///< offset of the header
  std::uint64_t length = 0;  ///< its length
};

/// Little-endian unsigned integer.
std::uint64_t read_unsigned(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

Result<Preamble> read_preamble(const InputFile& file) {
  std::array<std::byte, kPreamble + 4> bytes{};
  const std::size_t available = std::min<std::uint64_t>(file.size(), bytes.size());
  if (auto status = file.read(0, std::span(bytes).first(available)); !status) {
    return status.error();
  }
  for (std::size_t i = 0; i < kMagic.size(); ++i) {
    if (bytes[i] != static_cast<std::byte>(kMagic[i])) return Error("is not an npy file");
  }
  const unsigned major = std::to_integer<unsigned>(bytes[6]);
  if (major < 1 || major > 3) {
    return Error(fmt::format("format version {}: must be 1, 2 or 3", major));
  }
  const std::size_t width = major == 1 ? 2 : 4;
  if (available < kPreamble + width) return Error("is truncated inside the header");
  Preamble preamble;
  preamble.header = kPreamble + width;
  preamble.length = read_unsigned(std::span(bytes).subspan(kPreamble, width));
  if (preamble.length > file.size() - preamble.header) {
    return Error(fmt::format("header length {}: the file holds only {} bytes after it",
                             preamble.length, file.size() - preamble.header));
  }
  if (preamble.length > kLongestHeader) {
    return Error(
        fmt::format("header length {}: must be at most {}", preamble.length, kLongestHeader));
  }
  return preamble;
}

template <class T>
Result<NpyArray> read_data(const InputFile& file, std::uint64_t offset,
                           std::vector<std::int64_t> shape) {
  const auto count = element_count(shape);
  const auto bytes = count ? checked_mul(*count, sizeof(T)) : std::nullopt;
  const std::uint64_t present = file.size() - offset;
  if (!bytes || *bytes != present) {
    const std::string wanted = bytes ? std::to_string(*bytes) : "more than 2^63";
    return Error(fmt::format("shape ({}) takes {} bytes, the file holds {}", fmt::join(shape, ", "),
                             wanted, present));
  }
  std::vector<T> data(static_cast<std::size_t>(*count));
  if (auto status = file.read(offset, std::as_writable_bytes(std::span(data))); !status) {
    return status.error();
  }
  return NpyArray{std::move(shape), std::move(data)};
}

struct Type {
  std::string_view descr;
  Result<NpyArray> (*read)(const InputFile&, std::uint64_t, std::vector<std::int64_t>);
};
constexpr std::array kTypes = {
    Type{"<f4", read_data<float>},
    Type{"<i4", read_data<std::int32_t>},
    Type{"<i8", read_data<std::int64_t>},
};

/// `types`: what the caller can use, as an error says it.
Result<NpyArray> read_array(const InputFile& file, std::string_view types) {
  const auto preamble = read_preamble(file);
  if (!preamble) return preamble.error();
  std::string text(static_cast<std::size_t>(preamble->length), ' ');
  if (auto status = file.read(preamble->header, std::as_writable_bytes(std::span(text))); !status) {
    return status.error();
  }
  auto header = parse_npy_header(text);
  if (!header) return header.error();
  if (header->fortran_order) return Error("fortran_order=True: must be False (C order)");
  for (const Type& type : kTypes) {
    if (type.descr == header->descr) {
      return type.read(file, preamble->header + preamble->length, std::move(header->shape));
    }
  }
  return Error(fmt::format("descr={}: must be {}", quote(header->descr), types));
}

Error with_path(const std::string& path, const Error& error) {
  if (error.message().starts_with(path + ": ")) return error;
  return Error(fmt::format("{}: {}", path, error.message()));
}

std::string_view type_name(const NpyArray& array) {
  constexpr std::array<std::string_view, 3> kNames = {"float32", "int32", "int64"};
  return kNames[array.data.index()];
}

Result<NpyArray> read_file(const std::string& path, std::string_view types) {
  return guard_memory("read the array", [&]() -> Result<NpyArray> {
    const auto file = InputFile::open(path);
    if (!file) return file.error();
    auto array = read_array(*file, types);
    if (!array) return with_path(path, array.error());
    return array;
  });
}

}  // namespace

Result<NpyArray> read_npy(const std::string& path) {
  return read_file(path, "'<f4', '<i4' or '<i8' (float32, int32 or int64, little-endian)");
}

Result<NpyFloats> read_npy_f32(const std::string& path, std::size_t rank) {
  auto array = read_file(path, "'<f4' (float32, little-endian)");
  if (!array) return array.error();
  auto* data = std::get_if<std::vector<float>>(&array->data);
  if (data == nullptr) {
    return Error(fmt::format("{}: type {}: must be float32", path, type_name(*array)));
  }
  if (array->shape.size() != rank) {
    return Error(fmt::format("{}: shape ({}): must have {} dimensions", path,
                             fmt::join(array->shape, ", "), rank));
  }
  return NpyFloats{std::move(array->shape), std::move(*data)};
}

Result<std::vector<std::int64_t>> read_npy_integers(const std::string& path) {
  auto array = read_file(path, "'<i4' or '<i8' (int32 or int64, little-endian)");
  if (!array) return array.error();
  if (array->shape.size() != 1) {
    return Error(
        fmt::format("{}: shape ({}): must have 1 dimension", path, fmt::join(array->shape, ", ")));
  }
  if (auto* wide = std::get_if<std::vector<std::int64_t>>(&array->data)) return std::move(*wide);
  if (auto* narrow = std::get_if<std::vector<std::int32_t>>(&array->data)) {
    return std::vector<std::int64_t>(narrow->begin(), narrow->end());
  }
  return Error(fmt::format("{}: type {}: must be int32 or int64", path, type_name(*array)));
}

Status write_npy(const std::string& path, std::span<const std::int64_t> shape,
                 std::span<const float> data) {
  if (element_count(shape) != data.size()) {
    return Error(fmt::format("{}: shape ({}) does not have {} elements", path,
                             fmt::join(shape, ", "), data.size()));
  }
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{}), }}",
                                   fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const std::size_t start = kPreamble + 2;
  const std::size_t end = (start + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  if (end - start > UINT16_MAX) {
    return Error(fmt::format("{}: {} dimensions are too many", path, shape.size()));
  }
  header.resize(end - start - 1, ' ');
  header.push_back('\n');
  std::string preamble(kMagic);
  preamble += {'\x01', '\x00', static_cast<char>(header.size() & 0xff),
               static_cast<char>(header.size() >> 8)};
  const std::array<std::span<const std::byte>, 3> parts = {
      std::as_bytes(std::span(preamble)), std::as_bytes(std::span(header)), std::as_bytes(data)};
  return write_file(path, parts);
}

}  // namespace deepcpu
