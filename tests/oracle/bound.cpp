// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "tests/oracle/oracle.hpp"

namespace deepcpu::oracle {
namespace {

constexpr double kFactor = 8.0;
constexpr double kUlps = 4.0 * 0x1p-23;
constexpr double kTiny = 1e-30;

/// Elements of one row at one step, `steps` of which follow each other `stride` apart.
struct Rows {
  std::size_t steps;
  std::size_t rows;
  std::size_t width;
};

/// Largest deviation of any sample in each row and step, the running maximum over the steps.
std::vector<double> bound_of(const std::vector<double>& exact,
                             const std::vector<std::vector<double>>& samples, const Rows& shape) {
  std::vector<double> bound(exact.size());
  for (std::size_t row = 0; row < shape.rows; ++row) {
    double deviation = 0.0;
    double largest = 0.0;
    for (std::size_t t = 0; t < shape.steps; ++t) {
      const std::size_t first = (t * shape.rows + row) * shape.width;
      for (std::size_t i = first; i < first + shape.width; ++i) {
        largest = std::max(largest, std::abs(exact[i]));
        for (const auto& sample : samples) {
          deviation = std::max(deviation, std::abs(sample[i] - exact[i]));
        }
      }
      const double limit = kFactor * deviation + kUlps * largest + kTiny;
      std::fill_n(bound.begin() + static_cast<std::ptrdiff_t>(first), shape.width, limit);
    }
  }
  return bound;
}

}  // namespace

Bounded evaluate_with_bound(const ModelSpec& spec, const Weights& weights, const Input& input,
                            int samples) {
  Bounded out;
  out.exact = evaluate(spec, weights, input);
  std::vector<std::vector<double>> y;
  std::map<std::string, std::vector<std::vector<double>>> final;
  for (int i = 0; i < samples; ++i) {
    const Noise noise{static_cast<std::uint64_t>(i) + 1};
    Output sample = evaluate(spec, weights, input, &noise);
    y.push_back(std::move(sample.y));
    for (auto& [name, values] : sample.final) final[name].push_back(std::move(values));
  }
  const auto rows = static_cast<std::size_t>(spec.batch);
  const auto steps = static_cast<std::size_t>(input.steps);
  out.y_bound =
      bound_of(out.exact.y, y, {steps, rows, static_cast<std::size_t>(output_width(spec))});
  for (const auto& [name, values] : out.exact.final) {
    // All layers, directions and rows of a state share one bound: widths differ between layers.
    out.final_bound[name] = bound_of(values, final[name], {1, 1, values.size()});
  }
  return out;
}

}  // namespace deepcpu::oracle
