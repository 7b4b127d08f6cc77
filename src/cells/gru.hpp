// SPDX-License-Identifier: Apache-2.0
/// The part of the gated recurrent unit that gru and augru share.
#pragma once

#include "deepcpu/cell.hpp"
#include "src/cells/gates.hpp"

namespace deepcpu {

struct GruGates {
  Value z;  ///< update gate
  Value n;  ///< candidate state
};

/// Gates r, z and n of build_gru's equations.
GruGates gru_gates(CellBuilder& b, Value x, Value h, bool reset_after);

}  // namespace deepcpu
