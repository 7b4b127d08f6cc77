// SPDX-License-Identifier: Apache-2.0
/// The few rates of one core that bound every kernel, measured in well under a second.
#pragma once

#include <string>

#include "deepcpu/result.hpp"
#include "src/machine/machine.hpp"

namespace deepcpu {

/// Of one core that has the machine to itself as far as it can; by emitted loops of `isa`.
struct Rates {
  Isa isa = Isa::interpreter;
  double clock_ghz = 0.0;   ///< while running
  double fma_gflops = 0.0;  ///< float32, in registers; an FMA counts as two
  /// FMA with a memory operand, data in the first and second level: the rate at which a product
  /// can read its weights. GB = 10^9 bytes.
  double l1_gbytes_per_s = 0.0;
  double l2_gbytes_per_s = 0.0;
};

/// Measures on the calling thread, about 0.2 s. Errors: Isa::interpreter (no code to measure), an
/// ISA that `machine` has not, no executable memory.
Result<Rates> measure_rates(const Machine& machine, Isa isa);

/// A few lines of text for people, ending in a newline.
std::string to_text(const Rates& rates);

}  // namespace deepcpu
