// SPDX-License-Identifier: Apache-2.0
/// How much a run computes and reads.
#pragma once

#include <cstdint>

#include "src/compile.hpp"

namespace deepcpu::cli {

struct Work {
  /// Of all matrix products, a multiply-add counted as two; gates are left out.
  double flops = 0.0;
  /// Bytes of weights that the kernels load: inside the time loop once per step and register tile
  /// of batch rows, hoisted ones once per block and register tile of rows.
  double weight_bytes = 0.0;
};

/// Of one run over `steps` steps.
Work count_work(const Compilation& compiled, std::int64_t steps);

}  // namespace deepcpu::cli
