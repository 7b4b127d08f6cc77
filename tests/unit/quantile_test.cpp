// SPDX-License-Identifier: Apache-2.0
#include "src/quantile.hpp"

#include <vector>

#include "tests/catch.hpp"

using deepcpu::median;
using deepcpu::median_of_sorted;
using deepcpu::nearest_rank;
using deepcpu::quantile;

TEST_CASE("quantile: always one of the values, of two equally near the greater one") {
  const std::vector<double> four = {40.0, 10.0, 30.0, 20.0};
  CHECK(quantile(four, 0.0) == 10.0);
  CHECK(quantile(four, 0.25) == 20.0);
  CHECK(quantile(four, 0.5) == 30.0);
  CHECK(quantile(four, 0.75) == 30.0);
  CHECK(quantile(four, 1.0) == 40.0);
  CHECK(median(four) == 30.0);
  CHECK(median({3.0, 1.0, 2.0}) == 2.0);
  CHECK(median({7.0}) == 7.0);
  CHECK(median({}) == 0.0);
}

TEST_CASE("quantile: the nearest rank is the least value that covers the share") {
  const std::vector<double> four = {10.0, 20.0, 30.0, 40.0};
  CHECK(nearest_rank(four, 0.0) == 10.0);
  CHECK(nearest_rank(four, 0.25) == 10.0);
  CHECK(nearest_rank(four, 0.26) == 20.0);
  CHECK(nearest_rank(four, 0.75) == 30.0);
  CHECK(nearest_rank(four, 0.99) == 40.0);
  CHECK(nearest_rank(four, 1.0) == 40.0);
}

TEST_CASE("quantile: the median of an even number that is printed lies in the middle") {
  CHECK(median_of_sorted({10.0, 20.0, 30.0, 40.0}) == 25.0);
  CHECK(median_of_sorted({10.0, 20.0, 40.0}) == 20.0);
}
