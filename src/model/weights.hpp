// SPDX-License-Identifier: Apache-2.0
/// Which tensors a model needs, and whether given ones are those.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"

namespace deepcpu {

/// `<tensor>_l<layer>`, with `_reverse` appended for the reverse direction of a bidirectional
/// model (`direction` 1). A model that only runs in reverse uses the plain names.
std::string tensor_name(std::string_view tensor, int layer, int direction);

struct RequiredTensor {
  std::string name;
  std::vector<std::int64_t> shape;  ///< [blocks * rows, cols], or [blocks * rows] of a vector
  int layer = 0;
  int direction = 0;  ///< 1: the reverse direction of a bidirectional model
};

/// Every tensor of a valid spec once: by layer, then direction, then the order of the cell's
/// parameters.
std::vector<RequiredTensor> required_tensors(const ModelSpec& spec);

/// That `weights` holds the required tensors with their shapes, and no others. Errors name every
/// tensor that is missing, in surplus, wrongly shaped or not float32, up to ten.
Status check_weights(const ModelSpec& spec, const Weights& weights);

}  // namespace deepcpu
