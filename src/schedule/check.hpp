// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "deepcpu/schedule.hpp"

namespace deepcpu {

/// Every rule that a schedule must meet by itself: ranges, legal values, and that code is emitted
/// for each of its decisions. Errors name the field: "layers[2].group=0: must be ...". What depends
/// on the model's sizes and on the machine is checked where it is lowered.
Status check_schedule(const Schedule& schedule);

/// The same; that there is one entry per layer of a model with `layers` layers; and that weights
/// stay in registers on one thread only: an exchange's slow path is a call, which keeps none.
Status check_schedule(const Schedule& schedule, std::size_t layers);

}  // namespace deepcpu
