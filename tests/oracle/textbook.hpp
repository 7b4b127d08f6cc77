// SPDX-License-Identifier: Apache-2.0
/// LSTM, GRU and vanilla RNN written out by hand in float64, one layer, one row, one direction: an
/// independent check of the graph walker (oracle.hpp) and of the built-in cell graphs.
#pragma once

#include <cstddef>
#include <vector>

namespace deepcpu::oracle::textbook {

/// Row-major [rows, cols].
struct Matrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<double> data;
};

/// A sequence [T][width].
using Sequence = std::vector<std::vector<double>>;
using Vector = std::vector<double>;

/// Gates stacked by rows in PyTorch's order. `bias` is the input bias, `recurrent_bias` the other.
struct LayerWeights {
  Matrix input;           ///< [gates * H, I]
  Matrix recurrent;       ///< [gates * H, width of h]
  Vector bias;            ///< [gates * H], or empty
  Vector recurrent_bias;  ///< [gates * H], or empty
  Matrix projection;      ///< LSTM: [P, H], or empty
  Vector peephole_i;      ///< LSTM: [H] each, or all empty
  Vector peephole_f;
  Vector peephole_o;
};

/// LSTM, gates i f g o (Hochreiter and Schmidhuber 1997; Gers et al. 2000):
///     i = s(Wi x + Ui h + pi*c)   f = s(Wf x + Uf h + pf*c)   g = tanh(Wg x + Ug h)
///     c' = f*c + i*g              o = s(Wo x + Uo h + po*c')   h' = o*tanh(c'), then projected
/// `clip` > 0 limits the arguments of all activations of gates, as ONNX does; `coupled`: f = 1 - i.
struct LstmOptions {
  double clip = 0.0;
  bool coupled = false;
};
Sequence lstm(const LayerWeights& w, const Sequence& x, Vector& h, Vector& c,
              const LstmOptions& options = {});

/// GRU, gates r z n (Cho et al. 2014). reset_after: n = tanh(Wn x + bn + r*(Un h + un)), as
/// PyTorch and cuDNN; else n = tanh(Wn x + bn + Un (r*h) + un). h' = (1-z)*n + z*h.
Sequence gru(const LayerWeights& w, const Sequence& x, Vector& h, bool reset_after);

/// h' = act(W x + b + U h + u).
enum class Act { tanh, relu, sigmoid };
Sequence rnn(const LayerWeights& w, const Sequence& x, Vector& h, Act act);

}  // namespace deepcpu::oracle::textbook
