// SPDX-License-Identifier: Apache-2.0
#include "src/dag/count.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace deepcpu {
namespace {

constexpr std::uint64_t kBase = 1000000000;

}  // namespace

Count::Count(std::uint64_t value) {
  for (; value > 0; value /= kBase) digits_.push_back(static_cast<std::uint32_t>(value % kBase));
}

/// Adds value * kBase^place.
void Count::carry(std::size_t place, std::uint64_t value) {
  for (; value > 0; ++place) {
    if (place >= digits_.size()) digits_.resize(place + 1, 0);
    value += digits_[place];
    digits_[place] = static_cast<std::uint32_t>(value % kBase);
    value /= kBase;
  }
}

Count& Count::operator+=(const Count& other) {
  for (std::size_t i = 0; i < other.digits_.size(); ++i) carry(i, other.digits_[i]);
  return *this;
}

Count operator*(const Count& a, const Count& b) {
  Count product;
  for (std::size_t i = 0; i < a.digits_.size(); ++i) {
    for (std::size_t j = 0; j < b.digits_.size(); ++j) {
      product.carry(i + j, static_cast<std::uint64_t>(a.digits_[i]) * b.digits_[j]);
    }
  }
  return product;
}

std::string Count::str() const {
  if (is_zero()) return "0";
  std::string text = fmt::format("{}", digits_.back());
  for (std::size_t i = digits_.size() - 1; i-- > 0;) text += fmt::format("{:09}", digits_[i]);
  return text;
}

double Count::log10() const {
  if (is_zero()) return -std::numeric_limits<double>::infinity();
  // Three digits of the base hold more than a double does.
  double top = 0.0;
  std::size_t used = 0;
  for (; used < 3 && used < digits_.size(); ++used) {
    top = top * static_cast<double>(kBase) + digits_[digits_.size() - 1 - used];
  }
  return std::log10(top) + 9.0 * static_cast<double>(digits_.size() - used);
}

}  // namespace deepcpu
