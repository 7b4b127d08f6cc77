// SPDX-License-Identifier: Apache-2.0
/// Comparing float32 results: bit for bit with each other, within a bound with float64.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

namespace deepcpu::test {

/// The same bits, or both NaN (which NaN is not part of any promise). 0 and -0 differ.
inline bool bits_equal(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

/// Empty if all elements are bits_equal, else a sentence with the first difference and their count.
std::string bit_difference(std::span<const float> actual, std::span<const float> expected);

/// How far float32 results are from float64 ones.
struct ErrorReport {
  double max_error = 0.0;  ///< largest |actual - expected|
  double max_ratio = 0.0;  ///< largest |actual - expected| / bound
  std::size_t index = 0;   ///< where max_ratio stands
  std::string failure;     ///< empty if every element is within its bound
};

/// Compares element by element with a bound each. Where float64 gives NaN, float32 must too;
/// infinities (and values past the range of float32) must agree in sign.
ErrorReport compare_with_bound(std::span<const float> actual, std::span<const double> expected,
                               std::span<const double> bound);
/// The same with one bound for all: absolute + relative * |expected|.
ErrorReport compare_with_bound(std::span<const float> actual, std::span<const double> expected,
                               double absolute, double relative);

/// Distance of two float32 numbers in units of the last place of `exact` rounded to float32.
double ulp_error(float actual, double exact);

}  // namespace deepcpu::test
