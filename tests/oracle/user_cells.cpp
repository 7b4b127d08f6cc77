// SPDX-License-Identifier: Apache-2.0
#include "tests/oracle/user_cells.hpp"

namespace deepcpu::oracle {

Result<Cell> mgu() {
  CellBuilder b("mgu");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value f =
      b.sigmoid(b.bias("bias_f") + b.matmul("weight_f", x) + b.matmul("recurrent_f", h));
  const Value n =
      b.tanh(b.bias("bias_n") + b.matmul("weight_n", x) + b.matmul("recurrent_n", f * h));
  const Value next = h + f * (n - h);
  b.next(h, next);
  b.output(next);
  return b.build();
}

Result<Cell> sru() {
  CellBuilder b("sru");
  const Value x = b.input("x");
  const Value c = b.state("c");
  const Value f = b.sigmoid(b.bias("bias_f") + b.matmul("weight_f", x));
  const Value r = b.sigmoid(b.bias("bias_r") + b.matmul("weight_r", x));
  const Value next = f * c + b.one_minus(f) * b.matmul("weight", x);
  b.next(c, next);
  b.output(r * next + b.one_minus(r) * x);
  return b.build();
}

Result<Cell> skip() {
  CellBuilder b("skip");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value a = b.relu(b.bias("bias_a") + b.matmul("weight_a", x) + b.matmul("recurrent_a", h));
  const Value next = b.tanh(b.bias("bias_n") + b.matmul("recurrent_n", a) + h);
  b.next(h, next);
  b.output(next);
  return b.build();
}

}  // namespace deepcpu::oracle
