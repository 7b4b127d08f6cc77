// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace deepcpu {

constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

/// Parts of `part` that cover n; the last one may be smaller.
constexpr std::uint32_t parts_of(std::uint32_t n, std::uint32_t part) {
  return (n + part - 1) / part;
}

/// Vectors of `lanes` units that cover a width.
constexpr std::uint32_t unit_blocks(std::uint32_t width, std::uint32_t lanes) {
  return parts_of(width, lanes);
}

/// Keeps the distance of two rows off multiples of 4 KiB: such rows fall into the same cache set
/// and alias in the store buffer.
constexpr std::uint64_t off_page(std::uint64_t bytes) {
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

/// Bytes from one row of `elements` numbers to the next: whole vectors, off multiples of 4 KiB.
constexpr std::uint64_t row_bytes(std::uint64_t elements) {
  return off_page(align_up(elements * sizeof(float), 64));
}

}  // namespace deepcpu
