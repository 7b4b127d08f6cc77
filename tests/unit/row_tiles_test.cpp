// SPDX-License-Identifier: Apache-2.0
/// How rows are divided into register tiles: examples, and that the rule which emitted code follows
/// row by row makes the tiles that each_tile() counts.
#include "jit/row_tiles.hpp"

#include <string>
#include <vector>

#include "tests/catch.hpp"

namespace deepcpu::jit {
namespace {

std::string tiles(std::uint64_t rows, std::uint64_t height) {
  std::string out;
  each_tile(rows, height, [&](std::uint64_t h, std::uint64_t count) {
    for (; count > 0; --count) out += std::to_string(h) + " ";
  });
  return out;
}

/// As RowTilesEmitter does: the highest tile that is meant for what is left.
std::string emitted(std::uint64_t rows, std::uint64_t height) {
  std::vector<std::uint64_t> heights{height};
  if (height > 2) heights.push_back(height - 1);
  for (std::uint64_t h = height / 2; h > 0; h /= 2) heights.push_back(h);
  std::string out;
  const std::uint64_t full = least_for_full(rows, height);
  while (rows > 0) {
    for (const std::uint64_t h : heights) {
      if (rows < (h == height ? full : h)) continue;
      out += std::to_string(h) + " ";
      rows -= h;
      break;
    }
  }
  return out;
}

TEST_CASE("row tiles: the last ones have one row less where that divides the rows evenly") {
  CHECK(tiles(16, 6) == "6 5 5 ");
  CHECK(tiles(64, 6) == "6 6 6 6 6 6 6 6 6 5 5 ");
  CHECK(tiles(12, 6) == "6 6 ");
  CHECK(tiles(10, 6) == "5 5 ");
  CHECK(tiles(7, 4) == "4 3 ");
  CHECK(tiles(5, 6) == "5 ");
  CHECK(tiles(3, 2) == "2 1 ");
  CHECK(tiles(4, 1) == "1 1 1 1 ");
  CHECK(tiles(0, 4).empty());
  // Where it does not: halves of the height.
  CHECK(tiles(7, 6) == "6 1 ");
  CHECK(tiles(4, 6) == "3 1 ");
  CHECK(tiles(2, 6) == "1 1 ");
}

TEST_CASE("row tiles: what emitted code takes one after the other is what is counted") {
  for (std::uint64_t height = 1; height <= 6; ++height) {
    for (std::uint64_t rows = 0; rows <= 200; ++rows) {
      INFO(rows << " rows in tiles of up to " << height);
      std::uint64_t sum = 0;
      each_tile(rows, height, [&](std::uint64_t h, std::uint64_t count) { sum += h * count; });
      CHECK(sum == rows);
      CHECK(emitted(rows, height) == tiles(rows, height));
    }
  }
}

TEST_CASE("row tiles: groups end where full tiles do, and the last one has those of one row less") {
  // As many rows as 20 KiB hold sums of: 3 to 28 vectors of a row, at most 31 registers in a tile.
  for (std::uint64_t height = 2; height <= 6; ++height) {
    for (const std::uint64_t most : {11U, 26U, 40U, 80U, 106U, 213U}) {
      if (height * (320 / most) > 30) continue;  // such tiles do not fit registers
      for (std::uint64_t rows = 1; rows <= 700; ++rows) {
        INFO(rows << " rows, at most " << most << " at once, in tiles of up to " << height);
        const std::uint64_t full = least_for_full(rows, height);
        std::uint64_t left = rows;
        while (left > most) {
          const std::uint64_t group = group_rows(left, height, most);
          REQUIRE(group > 0);
          REQUIRE(group % height == 0);
          left -= group;
          // Every tile of the group is a full one: so many rows are left before its last.
          REQUIRE(left + height >= full);
        }
        REQUIRE(group_rows(left, height, most) == left);
      }
    }
  }
}

}  // namespace
}  // namespace deepcpu::jit
