// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"

namespace deepcpu {

/// The schedule that is used when none is given: by rule from sizes and caches, without measuring.
/// Pure function of its arguments.
Schedule default_schedule(const ModelSpec& spec, Isa isa, int threads);

}  // namespace deepcpu
