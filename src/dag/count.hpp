// SPDX-License-Identifier: Apache-2.0
/// Exact counts of schedules, which outgrow 64 bits quickly.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deepcpu {

/// A whole number >= 0 of any size.
class Count {
 public:
  Count(std::uint64_t value = 0);  // NOLINT(*-explicit-*): counts start from plain numbers

  Count& operator+=(const Count& other);
  friend Count operator+(Count a, const Count& b) { return a += b; }
  friend Count operator*(const Count& a, const Count& b);
  bool operator==(const Count&) const = default;

  bool is_zero() const noexcept { return digits_.empty(); }
  /// All decimal digits.
  std::string str() const;
  /// Decimal logarithm; -infinity for 0.
  double log10() const;

 private:
  void carry(std::size_t place, std::uint64_t value);

  std::vector<std::uint32_t> digits_;  ///< base 10^9, least significant first, no leading zeros
};

}  // namespace deepcpu
