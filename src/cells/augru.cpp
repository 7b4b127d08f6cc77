// SPDX-License-Identifier: Apache-2.0
#include "src/cells/cells.hpp"
#include "src/cells/gru.hpp"

namespace deepcpu {

Result<Cell> build_augru(const CellOptions& options, bool /*projection*/) {
  Result<CellOptions> all = complete_options(*find_cell("augru"), options);
  if (!all) return all.error();

  CellBuilder b("augru");
  const Value x = b.input("x");
  const Value attention = b.input("attention", Dim::one);
  const Value h = b.state("h");
  const GruGates gates = gru_gates(b, x, h, all->at("reset") == "after");
  const Value update = b.named("update", b.one_minus(attention) * gates.z);
  const Value next = gates.n + update * (h - gates.n);
  b.next(h, next);
  b.output(b.named("next_h", next));
  return b.build();
}

}  // namespace deepcpu
