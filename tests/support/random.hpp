// SPDX-License-Identifier: Apache-2.0
/// A small random generator that gives the same numbers on every machine and compiler (the
/// distributions of <random> do not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepcpu::test {

/// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  /// Uniform in [low, high], both included.
  std::int64_t range(std::int64_t low, std::int64_t high) {
    const auto count = static_cast<std::uint64_t>(high - low) + 1;
    return low + static_cast<std::int64_t>(next() % count);
  }
  int integer(int low, int high) { return static_cast<int>(range(low, high)); }
  /// Uniform in [low, high).
  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(next() >> 11U) * 0x1p-53);
  }
  bool chance(double probability) { return uniform(0.0, 1.0) < probability; }
  template <class T>
  const T& pick(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(next() % values.size())];
  }

 private:
  std::uint64_t state_;
};

/// `count` float32 numbers, uniform in [low, high).
inline std::vector<float> random_floats(Random& random, std::size_t count, double low = -1.0,
                                        double high = 1.0) {
  std::vector<float> out(count);
  for (float& v : out) v = static_cast<float>(random.uniform(low, high));
  return out;
}

}  // namespace deepcpu::test
