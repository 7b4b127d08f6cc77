// SPDX-License-Identifier: Apache-2.0
#include "tests/support/compare.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <vector>

namespace deepcpu::test {
namespace {

std::string describe(const char* what, std::size_t index, double actual, double expected,
                     double bound) {
  char text[200];
  std::snprintf(text, sizeof text, "%s at [%zu]: actual %.9g, expected %.17g, bound %.3g", what,
                index, actual, expected, bound);
  return text;
}

/// NaN and infinity: true if this pair is settled, with `ok` saying how.
bool special(double actual, double expected, bool& ok) {
  if (std::isnan(expected) || std::isnan(actual)) {
    ok = std::isnan(expected) && std::isnan(actual);
    return true;
  }
  const double top = static_cast<double>(std::numeric_limits<float>::max());
  if (std::abs(expected) > top) {
    ok = std::abs(actual) >= top && (actual > 0) == (expected > 0);
    return true;
  }
  return false;
}

}  // namespace

std::string bit_difference(std::span<const float> actual, std::span<const float> expected) {
  if (actual.size() != expected.size()) {
    return std::to_string(actual.size()) + " elements instead of " +
           std::to_string(expected.size());
  }
  std::size_t count = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (bits_equal(actual[i], expected[i])) continue;
    if (count++ == 0) first = i;
  }
  if (count == 0) return {};
  char text[200];
  std::snprintf(text, sizeof text,
                "%zu of %zu elements differ, the first at [%zu]: %a (%.9g) "
                "instead of %a (%.9g)",
                count, actual.size(), first, static_cast<double>(actual[first]),
                static_cast<double>(actual[first]), static_cast<double>(expected[first]),
                static_cast<double>(expected[first]));
  return text;
}

ErrorReport compare_with_bound(std::span<const float> actual, std::span<const double> expected,
                               std::span<const double> bound) {
  ErrorReport report;
  if (actual.size() != expected.size() || bound.size() != expected.size()) {
    report.failure =
        std::to_string(actual.size()) + " elements instead of " + std::to_string(expected.size());
    return report;
  }
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto a = static_cast<double>(actual[i]);
    bool ok = true;
    if (special(a, expected[i], ok)) {
      if (!ok && report.failure.empty()) {
        report.failure = describe("not the same kind of number", i, a, expected[i], bound[i]);
      }
      continue;
    }
    const double error = std::abs(a - expected[i]);
    report.max_error = std::max(report.max_error, error);
    const double ratio = error == 0.0 ? 0.0 : error / bound[i];
    if (ratio > report.max_ratio) {
      report.max_ratio = ratio;
      report.index = i;
    }
  }
  if (report.failure.empty() && report.max_ratio > 1.0) {
    const std::size_t i = report.index;
    report.failure =
        describe("past the bound", i, static_cast<double>(actual[i]), expected[i], bound[i]);
  }
  return report;
}

ErrorReport compare_with_bound(std::span<const float> actual, std::span<const double> expected,
                               double absolute, double relative) {
  std::vector<double> bound(expected.size());
  for (std::size_t i = 0; i < bound.size(); ++i) {
    bound[i] = absolute + relative * std::abs(expected[i]);
  }
  return compare_with_bound(actual, expected, bound);
}

double ulp_error(float actual, double exact) {
  if (std::isnan(exact) || std::isnan(actual)) {
    return std::isnan(exact) == std::isnan(actual) ? 0.0 : std::numeric_limits<double>::infinity();
  }
  if (static_cast<double>(actual) == exact) return 0.0;
  int exponent = 0;
  std::frexp(exact, &exponent);  // |exact| in [2^(exponent-1), 2^exponent)
  const double ulp = std::ldexp(1.0, std::max(exponent - 24, -149));
  return std::abs(static_cast<double>(actual) - exact) / ulp;
}

}  // namespace deepcpu::test
