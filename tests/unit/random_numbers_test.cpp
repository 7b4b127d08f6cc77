// SPDX-License-Identifier: Apache-2.0
#include "src/model/random_numbers.hpp"

#include <algorithm>
#include <numeric>

#include "tests/catch.hpp"

using deepcpu::next_random;
using deepcpu::random_numbers;

TEST_CASE("random numbers: splitmix64") {
  std::uint64_t state = 1234567;
  CHECK(next_random(state) == 6457827717110365317U);
  CHECK(next_random(state) == 3203168211198807973U);
  state = 0;
  CHECK(next_random(state) == 0xe220a8397b1dcdafU);
}

TEST_CASE("random numbers: a function of name and seed, uniform within the bound") {
  const auto numbers = random_numbers("x", 10000, 0.5F, 1);
  REQUIRE(numbers.size() == 10000);
  CHECK(numbers == random_numbers("x", 10000, 0.5F, 1));
  CHECK(numbers != random_numbers("y", 10000, 0.5F, 1));
  CHECK(numbers != random_numbers("x", 10000, 0.5F, 2));
  const auto [least, greatest] = std::minmax_element(numbers.begin(), numbers.end());
  CHECK(*least >= -0.5F);
  CHECK(*least < -0.49F);
  CHECK(*greatest < 0.5F);
  CHECK(*greatest > 0.49F);
  const double sum = std::accumulate(numbers.begin(), numbers.end(), 0.0);
  CHECK(sum / 10000 == Approx(0.0).margin(0.015));  // five times its standard deviation
  CHECK(random_numbers("x", 0, 1.0F, 1).empty());
}
