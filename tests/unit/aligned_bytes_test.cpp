// SPDX-License-Identifier: Apache-2.0
#include "src/aligned_bytes.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <fstream>
#include <new>
#include <utility>

#include "tests/catch.hpp"

namespace {

using namespace deepcpu;

constexpr std::size_t kMiB = std::size_t{1} << 20;

bool all_zero(const AlignedBytes& memory) {
  return std::all_of(memory.data(), memory.data() + memory.size(),
                     [](std::byte b) { return b == std::byte{0}; });
}

/// Of the whole process.
std::size_t mapped_pages() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages;
}

TEST_CASE("memory is zero and aligned to its size, up to 2 MiB") {
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{4096}, std::size_t{4097}, 100 * kMiB / 1024, kMiB, kMiB + 1,
        2 * kMiB, 2 * kMiB + 1, 5 * kMiB + 4095}) {
    const AlignedBytes memory(bytes);
    REQUIRE(memory.data() != nullptr);
    CHECK(memory.size() == bytes);
    const std::size_t wanted = std::clamp(std::bit_ceil(bytes), std::size_t{4096}, 2 * kMiB);
    CHECK(reinterpret_cast<std::uintptr_t>(memory.data()) % wanted == 0);
    CHECK(all_zero(memory));
    std::fill_n(memory.data(), bytes, std::byte{1});  // all of it may be written
  }
}

TEST_CASE("memory moves with its owner and is given back once") {
  AlignedBytes a(3 * kMiB);
  std::byte* const at = a.data();
  AlignedBytes b(std::move(a));
  CHECK(b.data() == at);
  AlignedBytes c(4096);
  c = std::move(b);
  CHECK(c.data() == at);
  CHECK(c.size() == 3 * kMiB);
  c = AlignedBytes(16 * kMiB);
  const std::size_t before = mapped_pages();
  for (int i = 0; i < 20; ++i) c = AlignedBytes(16 * kMiB);
  CHECK(mapped_pages() < before + 2 * 16 * kMiB / 4096);
  CHECK(all_zero(c));
}

TEST_CASE("no memory for none, and an exception for more than there is") {
  CHECK(AlignedBytes(0).data() == nullptr);
  CHECK_THROWS_AS(AlignedBytes(SIZE_MAX), std::bad_alloc);
  CHECK_THROWS_AS(AlignedBytes(SIZE_MAX / 4), std::bad_alloc);
}

}  // namespace
