// SPDX-License-Identifier: Apache-2.0
/// StepGraph: a cell's graph in the normal form that lowering works on.
///
/// Two rewrites make it, both functions of the cell alone, so that they fix the result's bits:
///   add tree with products  ->  one Sum: folded biases, then products, then the other addends
///   a * b + c               ->  fma(a, b, c)        (the product has no other user)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/cell.hpp"

namespace deepcpu::lower {

enum class Kind : std::uint8_t { input, state, parameter, constant, element, fma, sum };

/// One value of the normal form. Arguments precede users.
struct Expr {
  Kind kind = Kind::constant;
  Op op = Op::add;  ///< element
  Dim dim = Dim::one;
  int a = -1;
  int b = -1;
  int c = -1;
  float p = 0.0F;
  float q = 0.0F;
  int index = -1;  ///< input, state or parameter: its index in the cell; sum: index into sums
  int level = 0;   ///< 0 = computable before any product; n = needs the products of n stages
  std::string name;
};

/// One product of a sum: parameter matrix times a value.
struct SumProduct {
  int parameter = -1;
  int operand = -1;  ///< expr id
};

/// bias + products, accumulated in one chain: those of the sequence input first (lowering orders
/// them so, hoisted or not), then the others in the order of the packed matrices.
struct SumExpr {
  int expr = -1;            ///< the value that holds it
  std::vector<int> biases;  ///< parameter vectors, added up when the weights are packed
  std::vector<SumProduct> products;
};

struct StepGraph {
  std::vector<Expr> exprs;
  std::vector<SumExpr> sums;
  std::vector<int> state_next;  ///< expr id per state of the cell
  int output = -1;              ///< expr id

  static StepGraph build(const Cell& cell);
};

}  // namespace deepcpu::lower
