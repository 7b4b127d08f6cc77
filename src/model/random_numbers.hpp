// SPDX-License-Identifier: Apache-2.0
/// Random numbers that are the same on every machine and with every compiler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace deepcpu {

/// 64 random bits per call: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014). `state` begins as the seed, any number.
std::uint64_t next_random(std::uint64_t& state) noexcept;

/// `count` numbers, uniform in [-bound, bound): a function of `name` and `seed`, so that a tensor's
/// numbers do not depend on which tensors come before it.
std::vector<float> random_numbers(std::string_view name, std::size_t count, float bound,
                                  std::uint64_t seed);

}  // namespace deepcpu
