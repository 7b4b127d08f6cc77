// SPDX-License-Identifier: Apache-2.0
/// Reads the .npy files of the golden vectors, float64 too; the library's reader takes float32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deepcpu::test {

struct NpyArray {
  std::vector<std::int64_t> shape;
  std::vector<double> data;
};

/// Version 1.0, C order, '<f4', '<f8' or '<i4'. Throws std::runtime_error for anything else.
NpyArray read_npy(const std::string& path);

}  // namespace deepcpu::test
