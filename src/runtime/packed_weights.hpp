// SPDX-License-Identifier: Apache-2.0
/// All packed weights of a model in one block.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "src/compile.hpp"
#include "src/runtime/memory.hpp"

namespace deepcpu {

/// Immutable. Depends on the spec, the weights and the ISA's lanes, not on the schedule: programs
/// with other schedules of the same spec and ISA may share it.
struct PackedWeights {
  AlignedBytes bytes;
  std::vector<std::uint64_t> at;  ///< per program step: offset of its weights
};

/// Errors: more memory than there is. May throw bad_alloc. The weights have been checked against
/// the spec.
Result<std::shared_ptr<const PackedWeights>> pack_weights(const Compilation& compiled,
                                                          const Weights& weights);

}  // namespace deepcpu
