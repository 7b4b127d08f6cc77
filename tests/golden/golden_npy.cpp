// SPDX-License-Identifier: Apache-2.0
#include "tests/golden/golden_npy.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace deepcpu::test {
namespace {

template <class T>
std::vector<double> convert(const std::string& bytes, std::size_t first) {
  std::vector<double> out((bytes.size() - first) / sizeof(T));
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + first + i * sizeof(T), sizeof(T));
    out[i] = static_cast<double>(value);
  }
  return out;
}

std::vector<std::int64_t> read_shape(const std::string& header) {
  std::vector<std::int64_t> shape;
  const std::size_t open = header.find('(');
  const std::size_t close = header.find(')', open);
  std::size_t at = open + 1;
  while (at < close) {
    if (header[at] >= '0' && header[at] <= '9') {
      std::size_t used = 0;
      shape.push_back(std::stoll(header.substr(at), &used));
      at += used;
    } else {
      ++at;
    }
  }
  return shape;
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (bytes.size() < 10 || bytes.compare(0, 8, std::string("\x93NUMPY\x01\0", 8)) != 0) {
    throw std::runtime_error(path + ": not an npy file of version 1.0");
  }
  const auto low = static_cast<unsigned char>(bytes[8]);
  const auto high = static_cast<unsigned char>(bytes[9]);
  const std::size_t first = 10 + low + 256U * high;
  const std::string header = bytes.substr(10, first - 10);
  NpyArray out;
  out.shape = read_shape(header);
  if (header.find("'fortran_order': False") == std::string::npos) {
    throw std::runtime_error(path + ": not in C order");
  }
  if (header.find("'<f8'") != std::string::npos) {
    out.data = convert<double>(bytes, first);
  } else if (header.find("'<f4'") != std::string::npos) {
    out.data = convert<float>(bytes, first);
  } else if (header.find("'<i4'") != std::string::npos) {
    out.data = convert<std::int32_t>(bytes, first);
  } else {
    throw std::runtime_error(path + ": not of type f4, f8 or i4");
  }
  std::size_t count = 1;
  for (const std::int64_t dim : out.shape) count *= static_cast<std::size_t>(dim);
  if (count != out.data.size()) throw std::runtime_error(path + ": wrong number of elements");
  return out;
}

}  // namespace deepcpu::test
