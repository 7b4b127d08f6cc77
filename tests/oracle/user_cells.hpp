// SPDX-License-Identifier: Apache-2.0
/// Three cells that are not shipped, built as a user would build them: through the public header
/// alone.
#pragma once

#include "deepcpu/cell.hpp"

namespace deepcpu::oracle {

/// Minimal gated unit, `mgu`:
///   f = sigmoid(W_f x + U_f h + b_f)
///   n = tanh(W_n x + U_n (f * h) + b_n)
///   y = h' = h + f * (n - h)
/// Tensors weight_f, weight_n [H, I], recurrent_f, recurrent_n [H, H], bias_f, bias_n [H].
Result<Cell> mgu();

/// A simple recurrent unit, `sru`; its products see only x and its output is not its state. I == H.
///   f = sigmoid(W_f x + b_f)       r = sigmoid(W_r x + b_r)
///   c' = f * c + (1 - f) * (W x)
///   y = r * c' + (1 - r) * x
/// Tensors weight, weight_f, weight_r [H, I], bias_f, bias_r [H].
Result<Cell> sru();

/// Two products in a row and a skip of h around both, `skip`:
///   a = relu(W_a x + U_a h + b_a)
///   y = h' = tanh(U_n a + b_n + h)
/// Tensors weight_a [H, I], recurrent_a, recurrent_n [H, H], bias_a, bias_n [H].
Result<Cell> skip();

}  // namespace deepcpu::oracle
