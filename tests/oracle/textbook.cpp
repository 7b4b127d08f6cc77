// SPDX-License-Identifier: Apache-2.0
#include "tests/oracle/textbook.hpp"

#include <algorithm>
#include <cmath>

namespace deepcpu::oracle::textbook {
namespace {

double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

/// Element `row` of W v, plus the bias if there is one.
double affine(const Matrix& w, const Vector& bias, std::size_t row, const Vector& v) {
  double sum = bias.empty() ? 0.0 : bias[row];
  for (std::size_t k = 0; k < w.cols; ++k) sum += w.data[row * w.cols + k] * v[k];
  return sum;
}

double gate(const LayerWeights& w, std::size_t row, const Vector& x, const Vector& h) {
  return affine(w.input, w.bias, row, x) + affine(w.recurrent, w.recurrent_bias, row, h);
}

double limited(double v, double clip) { return clip > 0.0 ? std::clamp(v, -clip, clip) : v; }

double peep(const Vector& weights, std::size_t j, double c) {
  return weights.empty() ? 0.0 : weights[j] * c;
}

}  // namespace

Sequence lstm(const LayerWeights& w, const Sequence& x, Vector& h, Vector& c,
              const LstmOptions& options) {
  const std::size_t hidden = w.input.rows / 4;
  Sequence y;
  for (const Vector& xt : x) {
    Vector m(hidden);
    for (std::size_t j = 0; j < hidden; ++j) {
      const double pre_i = gate(w, j, xt, h) + peep(w.peephole_i, j, c[j]);
      const double pre_f = gate(w, hidden + j, xt, h) + peep(w.peephole_f, j, c[j]);
      const double i = sigmoid(limited(pre_i, options.clip));
      const double f = options.coupled ? 1.0 - i : sigmoid(limited(pre_f, options.clip));
      const double g = std::tanh(limited(gate(w, 2 * hidden + j, xt, h), options.clip));
      c[j] = f * c[j] + i * g;
      const double pre_o = gate(w, 3 * hidden + j, xt, h) + peep(w.peephole_o, j, c[j]);
      m[j] = sigmoid(limited(pre_o, options.clip)) * std::tanh(c[j]);
    }
    if (w.projection.rows == 0) {
      h = m;
    } else {
      h.assign(w.projection.rows, 0.0);
      for (std::size_t p = 0; p < h.size(); ++p) h[p] = affine(w.projection, {}, p, m);
    }
    y.push_back(h);
  }
  return y;
}

Sequence gru(const LayerWeights& w, const Sequence& x, Vector& h, bool reset_after) {
  const std::size_t hidden = h.size();
  Sequence y;
  for (const Vector& xt : x) {
    Vector r(hidden);
    Vector z(hidden);
    Vector rh(hidden);
    for (std::size_t j = 0; j < hidden; ++j) {
      r[j] = sigmoid(gate(w, j, xt, h));
      z[j] = sigmoid(gate(w, hidden + j, xt, h));
      rh[j] = r[j] * h[j];
    }
    Vector next(hidden);
    for (std::size_t j = 0; j < hidden; ++j) {
      const std::size_t row = 2 * hidden + j;
      const double from_x = affine(w.input, w.bias, row, xt);
      const double from_h = reset_after ? r[j] * affine(w.recurrent, w.recurrent_bias, row, h)
                                        : affine(w.recurrent, w.recurrent_bias, row, rh);
      next[j] = (1.0 - z[j]) * std::tanh(from_x + from_h) + z[j] * h[j];
    }
    h = next;
    y.push_back(h);
  }
  return y;
}

Sequence rnn(const LayerWeights& w, const Sequence& x, Vector& h, Act act) {
  Sequence y;
  for (const Vector& xt : x) {
    Vector next(h.size());
    for (std::size_t j = 0; j < h.size(); ++j) {
      const double sum = gate(w, j, xt, h);
      if (act == Act::tanh) next[j] = std::tanh(sum);
      if (act == Act::relu) next[j] = std::max(sum, 0.0);
      if (act == Act::sigmoid) next[j] = sigmoid(sum);
    }
    h = next;
    y.push_back(h);
  }
  return y;
}

}  // namespace deepcpu::oracle::textbook
