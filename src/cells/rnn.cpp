// SPDX-License-Identifier: Apache-2.0
#include "src/cells/cells.hpp"
#include "src/cells/gates.hpp"

namespace deepcpu {

Result<Cell> build_rnn(const CellOptions& options, bool /*projection*/) {
  Result<CellOptions> all = complete_options(*find_cell("rnn"), options);
  if (!all) return all.error();
  const std::string& act = all->at("act");

  CellBuilder b("rnn");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value sum = Gate(b, "", 0, 1).sum(x, h);
  const Value next = act == "tanh" ? b.tanh(sum) : act == "relu" ? b.relu(sum) : b.sigmoid(sum);
  b.next(h, next);
  b.output(b.named("next_h", next));
  return b.build();
}

}  // namespace deepcpu
