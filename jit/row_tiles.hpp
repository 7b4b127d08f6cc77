// SPDX-License-Identifier: Apache-2.0
/// How the rows of a call are divided into register tiles.
#pragma once

#include <cstdint>

namespace deepcpu::jit {

/// Tiles of one row less than `height`, so that no lower ones are needed: 16 rows in tiles of up to
/// 6 are 6 + 5 + 5. None where even lower ones are needed.
constexpr std::uint64_t shorter_tiles(std::uint64_t rows, std::uint64_t height) {
  const std::uint64_t tiles = (rows + height - 1) / height;
  const std::uint64_t lack = tiles * height - rows;
  return lack <= tiles ? lack : 0;
}

/// A tile of full height is taken as long as so many rows are left.
constexpr std::uint64_t least_for_full(std::uint64_t rows, std::uint64_t height) {
  const std::uint64_t kept = shorter_tiles(rows, height) * (height - 1);
  return kept < height ? height : kept + 1;
}

/// Rows that pass over a panel together, piece by piece, when so many are left and `most` can: all,
/// or about half as many as can, in full tiles, so that those of one row less are in the last
/// group.
constexpr std::uint64_t group_rows(std::uint64_t left, std::uint64_t height, std::uint64_t most) {
  return left <= most ? left : most / 2 / height * height;
}

/// Full tiles, then those of one row less, then halves, quarters ... of the height for what is
/// left. Calls visit(height, count).
template <class Visit>
constexpr void each_tile(std::uint64_t rows, std::uint64_t height, Visit visit) {
  const auto some = [&](std::uint64_t h, std::uint64_t count) {
    if (h > 0 && count > 0) visit(h, count);
  };
  const std::uint64_t shorter = shorter_tiles(rows, height);
  std::uint64_t left = rows - shorter * (height - 1);
  some(height, left / height);
  some(height - 1, shorter);
  left %= height;
  for (std::uint64_t h = height / 2; h > 0 && left > 0; h /= 2) {
    some(h, left / h);
    left %= h;
  }
}

/// Tiles of two rows and more among those of each_tile.
constexpr std::uint64_t tiles_of_several_rows(std::uint64_t rows, std::uint64_t height) {
  std::uint64_t tiles = 0;
  each_tile(rows, height,
            [&](std::uint64_t h, std::uint64_t count) { tiles += h > 1 ? count : 0; });
  return tiles;
}

}  // namespace deepcpu::jit
