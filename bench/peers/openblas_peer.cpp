// SPDX-License-Identifier: Apache-2.0
/// Per-step BLAS: a recurrent layer as frameworks once ran it, with OpenBLAS. In every step one
/// call for W·x_t and one for U·h (two for a GRU that resets before its product), sgemv for a batch
/// of one and sgemm otherwise, then the gates in plain C++ that the compiler vectorises. Nothing is
/// taken out of the time loop.
///
/// The library reads a matrix by rows or by columns at different speeds, so load() times both forms
/// and keeps the faster one; the version says which.
#include <cblas.h>
#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/peers/problem.hpp"
#include "bench/worker.hpp"

namespace {

using bench::PeerProblem;
using Floats = std::vector<float>;

/// Rows of an array: `width` of them count, neighbours are `stride` apart.
struct Rows {
  float* data = nullptr;
  int stride = 0;
};

/// [outputs, inputs], stored by rows or, if `transposed`, by columns.
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::span<const float> values, std::int64_t inputs, bool transposed)
      : inputs_(static_cast<int>(inputs)),
        outputs_(static_cast<int>(values.size()) / static_cast<int>(inputs)),
        transposed_(transposed),
        values_(values.begin(), values.end()) {
    if (!transposed) return;
    const auto rows = static_cast<std::size_t>(outputs_), columns = values.size() / rows;
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t k = 0; k < columns; ++k) values_[k * rows + row] = values[row * columns + k];
    }
  }

  int outputs() const { return outputs_; }

  /// out += in times this matrix, for each row of the batch.
  void add_product(int batch, Rows in, Rows out) const {
    const int ld = transposed_ ? outputs_ : inputs_;
    if (batch == 1) {
      cblas_sgemv(CblasRowMajor, transposed_ ? CblasTrans : CblasNoTrans,
                  transposed_ ? inputs_ : outputs_, ld, 1.0F, values_.data(), ld, in.data, 1, 1.0F,
                  out.data, 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed_ ? CblasNoTrans : CblasTrans, batch,
                  outputs_, inputs_, 1.0F, in.data, in.stride, values_.data(), ld, 1.0F, out.data,
                  out.stride);
    }
  }

 private:
  int inputs_ = 0;
  int outputs_ = 0;
  bool transposed_ = false;
  Floats values_;
};

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

/// Gates of one batch row; all arrays hold `n` values per gate. `c` is updated, `h` is written.
void lstm_gates(int n, const float* __restrict g, float* __restrict c, float* __restrict h) {
  for (int j = 0; j < n; ++j) {
    const float kept = sigmoid(g[n + j]) * c[j];
    c[j] = kept + sigmoid(g[j]) * std::tanh(g[2 * n + j]);
    h[j] = sigmoid(g[3 * n + j]) * std::tanh(c[j]);
  }
}

/// r, z and n of W·x in `x`, those of U·h in `u`.
void gru_gates_reset_after(int n, const float* __restrict x, const float* __restrict u,
                           const float* __restrict before, float* __restrict h) {
  for (int j = 0; j < n; ++j) {
    const float r = sigmoid(x[j] + u[j]), z = sigmoid(x[n + j] + u[n + j]);
    const float candidate = std::tanh(x[2 * n + j] + r * u[2 * n + j]);
    h[j] = candidate + z * (before[j] - candidate);
  }
}

/// The operand of the second product, r * h.
void gru_reset(int n, const float* __restrict g, const float* __restrict before,
               float* __restrict out) {
  for (int j = 0; j < n; ++j) out[j] = sigmoid(g[j]) * before[j];
}

void gru_gates_reset_before(int n, const float* __restrict g, const float* __restrict before,
                            float* __restrict h) {
  for (int j = 0; j < n; ++j) {
    const float z = sigmoid(g[n + j]), candidate = std::tanh(g[2 * n + j]);
    h[j] = candidate + z * (before[j] - candidate);
  }
}

void rnn_gates(int n, const std::string& activation, const float* __restrict g,
               float* __restrict h) {
  if (activation == "relu") {
    for (int j = 0; j < n; ++j) h[j] = std::max(g[j], 0.0F);
  } else if (activation == "sigmoid") {
    for (int j = 0; j < n; ++j) h[j] = sigmoid(g[j]);
  } else {
    for (int j = 0; j < n; ++j) h[j] = std::tanh(g[j]);
  }
}

/// One direction of one layer.
class Layer {
 public:
  Layer(const PeerProblem& problem, int layer, int direction, bool transposed)
      : batch_(static_cast<int>(problem.spec.batch)),
        hidden_(static_cast<int>(problem.spec.hidden[static_cast<std::size_t>(layer)])),
        output_(static_cast<int>(problem.output(layer))),
        cell_(problem.cell()),
        activation_(problem.option("act")),
        reset_before_(problem.resets_before()),
        reversed_(direction == 1 || problem.spec.direction == deepcpu::Direction::reverse) {
    const auto tensor = [&](const char* name) { return problem.tensor(name, layer, direction); };
    w_ = Matrix(tensor("weight_ih"), problem.input(layer), transposed);
    load_recurrent(tensor("weight_hh"), transposed);
    if (problem.spec.projection != 0) {
      projection_ = Matrix(tensor("weight_hr"), hidden_, transposed);
    }
    load_biases(tensor("bias_ih"), tensor("bias_hh"));
    const auto rows = static_cast<std::size_t>(batch_);
    gates_.resize(rows * static_cast<std::size_t>(w_.outputs()));
    recurrent_.resize(gates_.size());
    c_.resize(rows * static_cast<std::size_t>(hidden_));
    wide_.resize(c_.size());
    zeros_.resize(rows * static_cast<std::size_t>(output_));
  }

  /// x and y hold `steps` steps; a step's rows follow each other at the given strides.
  void run(std::int64_t steps, Rows x, Rows y) {
    std::fill(c_.begin(), c_.end(), 0.0F);
    Rows before{zeros_.data(), output_};
    for (std::int64_t i = 0; i < steps; ++i) {
      const std::int64_t t = reversed_ ? steps - 1 - i : i;
      const Rows h{y.data + t * batch_ * y.stride, y.stride};
      step({x.data + t * batch_ * x.stride, x.stride}, before, h);
      before = h;
    }
  }

 private:
  bool is_gru() const { return cell_ == "gru"; }

  /// A GRU that resets first has U of the candidate as a matrix of its own.
  void load_recurrent(std::span<const float> u, bool transposed) {
    const std::size_t split = is_gru() && reset_before_ ? u.size() / 3 * 2 : u.size();
    u_ = Matrix(u.first(split), output_, transposed);
    if (split < u.size()) u_candidate_ = Matrix(u.subspan(split), output_, transposed);
  }

  /// The biases of W·x and U·h are one, except where r multiplies that of U·h.
  void load_biases(std::span<const float> w, std::span<const float> u) {
    if (is_gru() && !reset_before_) {
      bias_.assign(w.begin(), w.end());
      recurrent_bias_.assign(u.begin(), u.end());
    } else {
      bias_ = bench::sum_of(w, u);
    }
  }

  void fill(Floats& rows, const Floats& bias) const {
    for (int row = 0; row < batch_; ++row) {
      std::copy(bias.begin(), bias.end(),
                rows.begin() + row * static_cast<std::ptrdiff_t>(bias.size()));
    }
  }

  void step(Rows x, Rows before, Rows h) {
    const int width = w_.outputs();
    fill(gates_, bias_);
    w_.add_product(batch_, x, {gates_.data(), width});
    if (is_gru() && !reset_before_) {
      fill(recurrent_, recurrent_bias_);
      u_.add_product(batch_, before, {recurrent_.data(), width});
    } else {
      u_.add_product(batch_, before, {gates_.data(), width});
    }
    if (is_gru() && reset_before_) reset(before);
    const Rows out = projected() ? Rows{wide_.data(), hidden_} : h;
    for (int row = 0; row < batch_; ++row) finish_row(row, before, out);
    if (projected()) project(h);
  }

  bool projected() const { return projection_.outputs() != 0; }

  void reset(Rows before) {
    for (int row = 0; row < batch_; ++row) {
      gru_reset(hidden_, gates_.data() + row * w_.outputs(), before.data + row * before.stride,
                wide_.data() + row * hidden_);
    }
    u_candidate_.add_product(batch_, {wide_.data(), hidden_},
                             {gates_.data() + 2 * hidden_, w_.outputs()});
  }

  void finish_row(int row, Rows before, Rows out) {
    const float* g = gates_.data() + row * w_.outputs();
    const float* last = before.data + row * before.stride;
    float* h = out.data + row * out.stride;
    if (cell_ == "lstm") {
      lstm_gates(hidden_, g, c_.data() + row * hidden_, h);
    } else if (cell_ == "rnn") {
      rnn_gates(hidden_, activation_, g, h);
    } else if (reset_before_) {
      gru_gates_reset_before(hidden_, g, last, h);
    } else {
      gru_gates_reset_after(hidden_, g, recurrent_.data() + row * w_.outputs(), last, h);
    }
  }

  void project(Rows h) {
    for (int row = 0; row < batch_; ++row) std::fill_n(h.data + row * h.stride, output_, 0.0F);
    projection_.add_product(batch_, {wide_.data(), hidden_}, h);
  }

  int batch_;
  int hidden_;
  int output_;
  std::string cell_;
  std::string activation_;
  bool reset_before_;
  bool reversed_;
  Matrix w_, u_, u_candidate_, projection_;
  Floats bias_, recurrent_bias_;
  Floats gates_, recurrent_, c_, wide_, zeros_;
};

/// All layers; the output of one is the input of the next, directions side by side.
class Stack {
 public:
  Stack(const PeerProblem& problem, bool transposed) : steps_(problem.spec.steps) {
    const std::int64_t rows = problem.spec.steps * problem.spec.batch;
    for (int layer = 0; layer < problem.spec.layers(); ++layer) {
      const std::int64_t width = problem.output(layer);
      Level& level = levels_.emplace_back();
      level.width = static_cast<int>(width);
      level.input = static_cast<int>(problem.input(layer));
      level.y.resize(static_cast<std::size_t>(rows * width * problem.directions()));
      for (int direction = 0; direction < problem.directions(); ++direction) {
        level.directions.emplace_back(problem, layer, direction, transposed);
      }
    }
  }

  void run(const Floats& x) {
    float* input = const_cast<float*>(x.data());  // only read
    for (Level& level : levels_) {
      const int stride = level.width * static_cast<int>(level.directions.size());
      float* y = level.y.data();
      for (Layer& direction : level.directions) {
        direction.run(steps_, {input, level.input}, {y, stride});
        y += level.width;
      }
      input = level.y.data();
    }
  }

  const Floats& output() const { return levels_.back().y; }

 private:
  struct Level {
    int width = 0;
    int input = 0;
    std::vector<Layer> directions;
    Floats y;
  };
  std::int64_t steps_;
  std::vector<Level> levels_;
};

class OpenBlas final : public bench::Contestant {
 public:
  /// Without OpenBLAS's list of build options.
  std::string version() const override {
    std::istringstream words(openblas_get_config());
    std::string name, number;
    words >> name >> number;
    return name + " " + number + " " + openblas_get_corename() + ", per step" +
           (transposed_ ? ", weights by columns" : ", weights by rows");
  }

  void load(const bench::Request& request) override {
    _mm_setcsr(_mm_getcsr() | 0x8040U);  // denormals are zero, as in our kernels
    stack_.reset();
    const PeerProblem problem(request);
    problem.demand_cell({"lstm", "gru", "rnn"}, {"reset", "act"}, "this per-step loop");
    openblas_set_num_threads(request.threads);
    x_ = request.x;
    y_.shape = {problem.spec.steps, problem.spec.batch, problem.spec.output_width()};
    std::array<std::unique_ptr<Stack>, 2> forms;
    std::array<double, 2> least{};
    for (std::size_t form = 0; form < 2; ++form) {
      forms[form] = std::make_unique<Stack>(problem, form == 1);
      least[form] = least_time(*forms[form]);
    }
    transposed_ = least[1] < least[0];
    stack_ = std::move(forms[transposed_ ? 1 : 0]);
  }

  void call() noexcept override { stack_->run(x_.data); }

  const bench::Array& output() override {
    y_.data = stack_->output();
    return y_;
  }

 private:
  double least_time(Stack& stack) const {
    stack.run(x_.data);
    const auto samples = bench::timed_calls([&] { stack.run(x_.data); }, 0.1, 1e9);
    return *std::min_element(samples.begin(), samples.end());
  }

  std::unique_ptr<Stack> stack_;
  bool transposed_ = false;
  bench::Array x_;
  bench::Array y_;
};

}  // namespace

int main() {
  OpenBlas peer;
  return bench::Worker(peer).serve();
}
