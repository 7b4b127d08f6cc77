// SPDX-License-Identifier: Apache-2.0
/// Problem strings where the cell need not be known, and without what a run decides.
#pragma once

#include <string>
#include <string_view>

#include "deepcpu/model.hpp"

namespace deepcpu {

/// What a problem string says besides its cell.
struct Shape {
  std::string cell;  ///< the name as given; whether there is such a cell is not asked
  /// Sizes within their ranges, direction, options as given; the cell is empty.
  ModelSpec spec;
  bool has_batch = false;
  bool has_steps = false;
};

/// Reads any problem string whose form and sizes are legal. Errors name the field.
Result<Shape> parse_shape(std::string_view problem);

/// The canonical problem string without batch and steps: `gru:i40h256l3bi,reset=before`.
std::string shape_text(std::string_view cell, const ModelSpec& spec);

}  // namespace deepcpu
