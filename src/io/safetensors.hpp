// SPDX-License-Identifier: Apache-2.0
/// The safetensors format: 8 bytes with the length N of the header (little-endian), N bytes of
/// JSON, then the numbers of all tensors, little-endian and row-major. The header maps each name to
/// {"dtype", "shape", "data_offsets": [begin, end]}; `__metadata__` maps text to text. The tensors
/// cover the rest of the file exactly: no overlap, no hole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/io/file.hpp"

namespace deepcpu {

/// One tensor of a header. `begin` and `end` count bytes from the first byte after the header.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as the file spells it: "F32", "BF16", "I64" ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// Checks the JSON text of a header against `data_bytes`, the bytes that follow it, and returns the
/// tensors in the order of their data. Errors name the tensor and the rule.
Result<std::vector<SafetensorsEntry>> parse_safetensors_header(std::string_view header,
                                                               std::uint64_t data_bytes);

/// A safetensors file whose header is valid, open for reading.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  const std::vector<SafetensorsEntry>& entries() const noexcept { return entries_; }
  /// The numbers of an entry whose dtype is F32.
  Result<std::vector<float>> read_f32(const SafetensorsEntry& entry) const;

 private:
  SafetensorsFile(InputFile file, std::uint64_t data, std::vector<SafetensorsEntry> entries);
  InputFile file_;
  std::uint64_t data_;  ///< offset of the first byte after the header
  std::vector<SafetensorsEntry> entries_;
};

/// A float32 tensor to write; shape and data must agree.
struct SafetensorsTensor {
  std::string_view name;
  std::span<const std::int64_t> shape;
  std::span<const float> data;
};

/// Writes a file that is whole or unchanged, see write_file. Names must be UTF-8, different from
/// each other and from `__metadata__`.
Status write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors);

}  // namespace deepcpu
