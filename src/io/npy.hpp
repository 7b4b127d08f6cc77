// SPDX-License-Identifier: Apache-2.0
/// numpy's .npy files: magic, version, the length of the header, the header (a Python dict with
/// descr, fortran_order and shape), the numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// An array as it stands in a file, row-major. Any rank; rank 0 has one element.
struct NpyArray {
  std::vector<std::int64_t> shape;
  std::variant<std::vector<float>, std::vector<std::int32_t>, std::vector<std::int64_t>> data;
};

/// Reads little-endian float32, int32 or int64 in C order, format versions 1, 2 and 3. Refused by
/// name: other types, Fortran order, a file that is shorter or longer than its shape says.
Result<NpyArray> read_npy(const std::string& path);

/// A float32 array of `rank` dimensions. Errors name the file, the type and the rank found.
struct NpyFloats {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};
Result<NpyFloats> read_npy_f32(const std::string& path, std::size_t rank);

/// An int32 or int64 array of one dimension, such as `lengths` [B].
Result<std::vector<std::int64_t>> read_npy_integers(const std::string& path);

/// Writes float32, version 1, C order. The file is whole or unchanged, see write_file.
Status write_npy(const std::string& path, std::span<const std::int64_t> shape,
                 std::span<const float> data);

/// What the header of an .npy file says.
struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};
/// Parses the Python dict literal of a header: the three keys, each once, and nothing else.
Result<NpyHeader> parse_npy_header(std::string_view text);

}  // namespace deepcpu
