// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"

namespace deepcpu {

/// The schedule that is used when none is given: by rule from the bytes of the weights and the size
/// of a core's L2 cache, without measuring. Pure function of its arguments.
Schedule default_schedule(const ModelSpec& spec, Isa isa, int threads, std::uint64_t l2_bytes);

}  // namespace deepcpu
