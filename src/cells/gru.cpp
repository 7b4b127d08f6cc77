// SPDX-License-Identifier: Apache-2.0
#include "src/cells/gru.hpp"

#include "src/cells/cells.hpp"

namespace deepcpu {

Result<Cell> build_gru(const CellOptions& options, bool /*projection*/) {
  Result<CellOptions> all = complete_options(*find_cell("gru"), options);
  if (!all) return all.error();

  CellBuilder b("gru");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const GruGates gates = gru_gates(b, x, h, all->at("reset") == "after");
  const Value next = gates.n + gates.z * (h - gates.n);
  b.next(h, next);
  b.output(b.named("next_h", next));
  return b.build();
}

GruGates gru_gates(CellBuilder& b, Value x, Value h, bool reset_after) {
  const Value r = b.named("r", b.sigmoid(Gate(b, "r", 0, 3).sum(x, h)));
  const Value z = b.named("z", b.sigmoid(Gate(b, "z", 1, 3).sum(x, h)));
  Gate n(b, "n", 2, 3);
  if (!reset_after) return {z, b.named("n", b.tanh(n.sum(x, r * h)))};
  const Value recurrent = n.bias_hh() + n.recurrent(h);
  return {z, b.named("n", b.tanh(n.bias_ih() + n.input(x) + r * recurrent))};
}

}  // namespace deepcpu
