// SPDX-License-Identifier: Apache-2.0
#include "src/cells/cells.hpp"
#include "src/cells/gates.hpp"

namespace deepcpu {

Result<Cell> build_lstm(const CellOptions& options, bool projection) {
  Result<CellOptions> all = complete_options(*find_cell("lstm"), options);
  if (!all) return all.error();
  const bool peephole = all->at("peephole") == "1";
  const bool coupled = all->at("coupled") == "1";
  const float limit = number_of(all->at("clip"));

  CellBuilder b("lstm");
  const Value x = b.input("x");
  const Value h = b.state("h", projection ? Dim::proj : Dim::hidden);
  const Value c = b.state("c");
  // The sum under a gate; `look` is the cell state that the gate's peephole sees.
  const auto gate = [&](const char* letter, int block, int peephole_block, Value look) {
    Value sum = Gate(b, letter, block, 4).sum(x, h);
    if (peephole && peephole_block >= 0) {
      const TensorBlock where{"weight_peephole", peephole_block, 3};
      sum = sum + b.bias(std::string("weight_peephole_") + letter, where) * look;
    }
    return limit > 0.0F ? b.clip(sum, -limit, limit) : sum;
  };
  const Value i = b.named("i", b.sigmoid(gate("i", 0, 0, c)));
  const Value f = b.named("f", coupled ? b.one_minus(i) : b.sigmoid(gate("f", 1, 1, c)));
  const Value g = b.named("g", b.tanh(gate("g", 2, -1, c)));
  const Value next_c = b.named("next_c", f * c + i * g);
  const Value o = b.named("o", b.sigmoid(gate("o", 3, 2, next_c)));
  Value next_h = o * b.tanh(next_c);
  if (projection) next_h = b.matmul("weight_hr", next_h, Dim::proj);
  b.next(h, next_h);
  b.next(c, next_c);
  b.output(b.named("next_h", next_h));
  return b.build();
}

}  // namespace deepcpu
