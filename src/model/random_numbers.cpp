// SPDX-License-Identifier: Apache-2.0
#include "src/model/random_numbers.hpp"

#include "jit/fnv.hpp"

namespace deepcpu {
namespace {

std::uint64_t hash_name(std::string_view name) noexcept {
  Fnv1a hash;
  for (const char c : name) hash.add(static_cast<unsigned char>(c), 1);
  return hash.value();
}

}  // namespace

std::uint64_t next_random(std::uint64_t& state) noexcept {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t z = state;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

std::vector<float> random_numbers(std::string_view name, std::size_t count, float bound,
                                  std::uint64_t seed) {
  std::uint64_t state = next_random(seed) ^ hash_name(name);
  std::vector<float> numbers(count);
  for (float& number : numbers) {
    // The upper 24 bits: as many as a float32 holds.
    const auto bits = static_cast<std::int32_t>(next_random(state) >> 40U);
    number = static_cast<float>(bits - (1 << 23)) * 0x1p-23F * bound;
  }
  return numbers;
}

}  // namespace deepcpu
