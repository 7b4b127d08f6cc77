// SPDX-License-Identifier: Apache-2.0
/// Tensors of other frameworks: gates in another order, matrices transposed.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>

#include "deepcpu/model.hpp"
#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"

namespace deepcpu {
namespace {

/// The orders that the built-in cells stack their tensors in.
constexpr std::array<std::string_view, 3> kOwnOrders = {"ifgo", "rzn", "ifo"};

/// ONNX and Keras write c for the candidate of an LSTM and h for that of a GRU.
std::string own_letters(std::string_view gates) {
  std::string out(gates);
  std::replace(out.begin(), out.end(), 'c', 'g');
  std::replace(out.begin(), out.end(), 'h', 'n');
  return out;
}

/// The own order with the same letters, empty if there is none.
std::string_view find_order(const std::string& gates) {
  for (const std::string_view order : kOwnOrders) {
    if (std::is_permutation(gates.begin(), gates.end(), order.begin(), order.end())) return order;
  }
  return {};
}

struct Stack {
  std::int64_t gates;
  std::int64_t rows;  ///< of one gate
  std::int64_t cols;  ///< 1 for a vector
};

Result<Stack> measure(const std::string& name, std::int64_t gates,
                      const std::vector<std::int64_t>& shape, bool transposed) {
  const bool matrix = shape.size() == 2;
  if (!matrix && (shape.size() != 1 || transposed)) {
    return Error(fmt::format("tensor {}: has rank {}: must be {}", quote(name), shape.size(),
                             transposed ? "2" : "1 or 2"));
  }
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d <= 0; })) {
    return Error(fmt::format("tensor {}: has shape [{}], dimensions must be positive", quote(name),
                             fmt::join(shape, ", ")));
  }
  const std::int64_t stacked = transposed ? shape[1] : shape[0];
  if (stacked % gates != 0) {
    return Error(fmt::format("tensor {}: {} rows cannot be divided into {} gates", quote(name),
                             stacked, gates));
  }
  return Stack{gates, stacked / gates, matrix ? (transposed ? shape[0] : shape[1]) : 1};
}

/// Element (row of the stack, column) of the user's array.
float element(std::span<const float> data, const Stack& s, std::int64_t row, std::int64_t col,
              bool transposed) {
  const std::int64_t at = transposed ? col * s.gates * s.rows + row : row * s.cols + col;
  return data[static_cast<std::size_t>(at)];
}

}  // namespace

Status Weights::add_gates(std::string name, std::string_view gates, std::vector<std::int64_t> shape,
                          std::span<const float> data, bool transposed) {
  return guard_memory("add the tensor", [&] {
    return add_reordered(std::move(name), gates, std::move(shape), data, transposed);
  });
}

Status Weights::add_reordered(std::string name, std::string_view gates,
                              std::vector<std::int64_t> shape, std::span<const float> data,
                              bool transposed) {
  const std::string from = own_letters(gates);
  const std::string_view to = find_order(from);
  if (to.empty()) {
    return Error(
        fmt::format("gates={}: must hold the letters of one of ifgo, rzn, ifo (c for g, "
                    "h for n) once each",
                    quote(gates)));
  }
  const auto stack = measure(name, static_cast<std::int64_t>(to.size()), shape, transposed);
  if (!stack) return stack.error();
  std::int64_t total = 0;
  const bool overflow = __builtin_mul_overflow(stack->gates * stack->rows, stack->cols, &total);
  if (overflow || static_cast<std::int64_t>(data.size()) != total) {
    return Error(fmt::format("tensor {}: {} numbers given, the shape holds {}", quote(name),
                             data.size(),
                             overflow ? "more than can be counted" : std::to_string(total)));
  }
  std::vector<float> own;
  own.reserve(data.size());
  for (const char gate : to) {
    const auto block = static_cast<std::int64_t>(from.find(gate));
    for (std::int64_t row = 0; row < stack->rows; ++row) {
      for (std::int64_t col = 0; col < stack->cols; ++col) {
        own.push_back(element(data, *stack, block * stack->rows + row, col, transposed));
      }
    }
  }
  const bool matrix = shape.size() == 2;
  shape.assign(1, stack->gates * stack->rows);
  if (matrix) shape.push_back(stack->cols);
  return add_owned(std::move(name), std::move(shape), std::move(own));
}

}  // namespace deepcpu
