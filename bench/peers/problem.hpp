// SPDX-License-Identifier: Apache-2.0
/// What the peers written in C++ need of a problem: sizes, options, weights by layer and direction.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/worker.hpp"
#include "deepcpu/deepcpu.hpp"

namespace bench {

/// The value of a result; its error becomes the answer to the command.
template <class T>
T value_of(deepcpu::Result<T> result) {
  if (!result) throw Refusal{"error", result.error().message()};
  return std::move(*result);
}

/// A parsed problem with its weights.
struct PeerProblem {
  explicit PeerProblem(const Request& request)
      : spec(value_of(deepcpu::ModelSpec::parse(request.problem))),
        weights(value_of(deepcpu::Weights::from_safetensors(request.weights))) {}

  std::string cell() const { return std::string(spec.cell.name()); }
  int directions() const { return spec.directions(); }
  /// Width of a layer's input and of one direction's output.
  std::int64_t input(int layer) const {
    return layer == 0 ? spec.input : directions() * output(layer - 1);
  }
  std::int64_t output(int layer) const {
    return spec.projection != 0 ? spec.projection : spec.hidden[static_cast<std::size_t>(layer)];
  }
  /// The value of an option; empty where the problem leaves its default.
  std::string option(const std::string& name) const {
    const auto found = spec.options.find(name);
    return found == spec.options.end() ? std::string() : found->second;
  }
  /// For a GRU: whether r multiplies h, and not the product with h, which is the default.
  bool resets_before() const { return option("reset") == "before"; }

  /// A tensor of one layer and direction, PyTorch's gate order and shape, as `weight_ih`.
  std::span<const float> tensor(const std::string& name, int layer, int direction) const {
    const std::string full =
        name + "_l" + std::to_string(layer) + (direction == 1 ? "_reverse" : "");
    const auto found = weights.tensors().find(full);
    if (found == weights.tensors().end()) throw Refusal{"error", full + ": no such tensor"};
    return found->second.data;
  }

  /// Throws `unsupported` unless the cell is one of `cells` and each option outside `handled` has
  /// the value that makes it the plain cell.
  void demand_cell(const std::set<std::string>& cells, const std::set<std::string>& handled,
                   const std::string& library) const {
    if (!cells.contains(cell())) throw Refusal{"unsupported", library + " has no " + cell()};
    for (const auto& [name, value] : spec.options) {
      if (!handled.contains(name) && value != "0") {
        throw Refusal{"unsupported", library + " has no " + name + "=" + value};
      }
    }
  }

  deepcpu::ModelSpec spec;
  deepcpu::Weights weights;
};

/// The blocks of rows of `tensor` in another order, as gates stand in another library's.
inline std::vector<float> reorder(std::span<const float> tensor, const std::vector<int>& order) {
  const std::size_t block = tensor.size() / order.size();
  std::vector<float> result;
  result.reserve(tensor.size());
  for (const int from : order) {
    const auto part = tensor.subspan(static_cast<std::size_t>(from) * block, block);
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

inline std::vector<float> sum_of(std::span<const float> a, std::span<const float> b) {
  std::vector<float> result(a.begin(), a.end());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] += b[i];
  return result;
}

}  // namespace bench
