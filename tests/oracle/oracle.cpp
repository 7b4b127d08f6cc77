// SPDX-License-Identifier: Apache-2.0
#include "tests/oracle/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "tests/support/random.hpp"

namespace deepcpu::oracle {
namespace {

using Vec = std::vector<double>;

std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

void check_size(const std::string& what, std::size_t actual, std::int64_t expected) {
  if (actual == index(expected)) return;
  fail(what + " has " + std::to_string(actual) + " elements instead of " +
       std::to_string(expected));
}

/// Puts relative errors on results; without a seed it leaves them alone.
class Rounding {
 public:
  explicit Rounding(const Noise* noise) : on_(noise != nullptr), random_(on_ ? noise->seed : 0) {}

  /// An operation whose result may be off by `ulps` units in the last place of float32.
  double operation(double value, double ulps = 0.5) {
    return on_ ? value * (1.0 + unit() * ulps * 0x1p-23) : value;
  }
  /// A chain of FMAs: `squares` is the sum of the squares of its partial sums.
  double chain(double value, double squares) {
    return on_ ? value + unit() * std::sqrt(squares) * 0x1p-24 : value;
  }

 private:
  /// Uniform in [-2, 2): twice the permitted error, so that few draws are small everywhere.
  double unit() { return random_.uniform(-2.0, 2.0); }
  bool on_;
  test::Random random_;
};

bool either_nan(double a, double b) { return std::isnan(a) || std::isnan(b); }

double min_of(double a, double b) { return either_nan(a, b) ? std::nan("") : std::min(a, b); }
double max_of(double a, double b) { return either_nan(a, b) ? std::nan("") : std::max(a, b); }

/// Element-wise operations, from the formulas in cell.hpp.
double apply(Op op, double a, double b, double p, double q, Rounding& round) {
  switch (op) {
    case Op::add:
      return round.operation(a + b);
    case Op::sub:
      return round.operation(a - b);
    case Op::mul:
      return round.operation(a * b);
    case Op::neg:
      return -a;
    case Op::min:
      return min_of(a, b);
    case Op::max:
      return max_of(a, b);
    case Op::one_minus:
      return round.operation(1.0 - a);
    case Op::sigmoid:
      return round.operation(1.0 / (1.0 + std::exp(-a)), 3.0);
    case Op::tanh:
      return round.operation(std::tanh(a), 3.0);
    case Op::relu:
      return max_of(a, 0.0);
    case Op::leaky_relu:
      return a > 0.0 ? a : round.operation(p * a);
    case Op::hard_sigmoid: {
      const double line = round.operation(round.operation(p * a) + q);
      return min_of(1.0, max_of(0.0, line));
    }
    case Op::softsign:
      return round.operation(a / round.operation(1.0 + std::abs(a)));
    case Op::exp:
      return round.operation(std::exp(a), 1.5);
    case Op::clip:
      return min_of(q, max_of(p, a));
    default:
      fail("not an element-wise operation");
  }
}

/// A parameter's numbers in double: row-major [rows, cols], or [rows].
Vec load_parameter(const ModelSpec& spec, const Parameter& parameter, const Weights& weights,
                   int layer, int direction) {
  const std::string name =
      parameter.tensor + "_l" + std::to_string(layer) + (direction == 1 ? "_reverse" : "");
  const auto found = weights.tensors().find(name);
  if (found == weights.tensors().end()) fail("no tensor " + name);
  const std::int64_t rows = width_of(spec, parameter.rows, layer);
  const std::int64_t cols = parameter.is_matrix ? width_of(spec, parameter.cols, layer) : 1;
  const auto& data = found->second.data;
  check_size(name, data.size(), parameter.blocks * rows * cols);
  const auto first = data.begin() + parameter.block * rows * cols;
  return Vec(first, first + rows * cols);
}

/// One layer in one direction: the cell with its numbers.
class Walker {
 public:
  Walker(const ModelSpec& spec, const Weights& weights, int layer, int direction, Rounding& round)
      : spec_(spec), cell_(spec.cell), layer_(layer), round_(round) {
    for (const Parameter& p : cell_.parameters()) {
      parameters_.push_back(load_parameter(spec, p, weights, layer, direction));
    }
    values_.resize(cell_.nodes().size());
  }

  /// One step of one row. `inputs`: one vector per Cell::inputs(); `states` is replaced.
  const Vec& step(const std::vector<Vec>& inputs, std::vector<Vec>& states) {
    for (std::size_t i = 0; i < inputs.size(); ++i) values_[index(cell_.inputs()[i])] = inputs[i];
    for (std::size_t i = 0; i < states.size(); ++i) {
      values_[index(cell_.states()[i].node)] = states[i];
    }
    for (std::size_t id = 0; id < values_.size(); ++id) compute(id);
    for (std::size_t i = 0; i < states.size(); ++i) {
      states[i] = widened(values_[index(cell_.states()[i].next)],
                          width_of(spec_, cell_.states()[i].dim, layer_));
    }
    return values_[index(cell_.output())];
  }

 private:
  /// One number stands for a whole vector where it meets a wider one.
  static Vec widened(const Vec& value, std::int64_t width) {
    return value.size() == 1 ? Vec(index(width), value[0]) : value;
  }

  void compute(std::size_t id) {
    const Node& node = cell_.nodes()[id];
    switch (node.op) {
      case Op::input:
      case Op::state:
        return;
      case Op::parameter:
        values_[id] = parameters_[index(node.parameter)];
        return;
      case Op::constant:
        values_[id] = Vec(1, static_cast<double>(node.p));
        return;
      case Op::matmul:
        values_[id] = product(node);
        return;
      default:
        values_[id] = elements(node);
        return;
    }
  }

  Vec product(const Node& node) {
    const Vec& matrix = parameters_[index(node.parameter)];
    const Vec& operand = values_[index(node.a)];
    const std::size_t rows = matrix.size() / operand.size();
    Vec out(rows);
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0.0;
      double squares = 0.0;
      for (std::size_t k = 0; k < operand.size(); ++k) {
        sum += matrix[r * operand.size() + k] * operand[k];
        squares += sum * sum;
      }
      out[r] = round_.chain(sum, squares);
    }
    return out;
  }

  Vec elements(const Node& node) {
    const Vec& a = values_[index(node.a)];
    const Vec& b = node.b >= 0 ? values_[index(node.b)] : a;
    Vec out(std::max(a.size(), b.size()));
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = apply(node.op, a[a.size() == 1 ? 0 : i], b[b.size() == 1 ? 0 : i],
                     static_cast<double>(node.p), static_cast<double>(node.q), round_);
    }
    return out;
  }

  const ModelSpec& spec_;
  const Cell& cell_;
  int layer_;
  Rounding& round_;
  std::vector<Vec> parameters_;
  std::vector<Vec> values_;
};

/// A whole run; holds what every layer and row needs.
class Run {
 public:
  Run(const ModelSpec& spec, const Weights& weights, const Input& input, const Noise* noise)
      : spec_(spec), weights_(weights), input_(input), round_(noise) {
    directions_ = spec.direction == Direction::bidirectional ? 2 : 1;
    check();
  }

  Output operator()() {
    for (const State& state : spec_.cell.states()) {
      output_.final[state.name] = initial(state);
    }
    Vec below = input_.x;
    for (int layer = 0; layer < spec_.layers(); ++layer) below = run_layer(layer, below);
    output_.y = std::move(below);
    return std::move(output_);
  }

 private:
  void check() const {
    const std::int64_t rows = input_.steps * spec_.batch;
    check_size("x", input_.x.size(), rows * spec_.input);
    if (input_.extra.size() + 1 != spec_.cell.inputs().size()) fail("wrong number of inputs");
    for (std::size_t i = 0; i < input_.extra.size(); ++i) {
      const Dim dim = spec_.cell.nodes()[index(spec_.cell.inputs()[i + 1])].dim;
      check_size("extra input", input_.extra[i].size(), rows * width_of(spec_, dim, 0));
    }
    if (!input_.lengths.empty()) check_size("lengths", input_.lengths.size(), spec_.batch);
  }

  std::int64_t state_elements(const State& state, int layers) const {
    std::int64_t sum = 0;
    for (int l = 0; l < layers; ++l) sum += width_of(spec_, state.dim, l);
    return sum * directions_ * spec_.batch;
  }

  Vec initial(const State& state) const {
    const std::int64_t count = state_elements(state, spec_.layers());
    const auto found = input_.initial.find(state.name);
    if (found == input_.initial.end()) return Vec(index(count), 0.0);
    check_size("initial " + state.name, found->second.size(), count);
    return found->second;
  }

  Vec run_layer(int layer, const Vec& below) {
    const std::int64_t width = width_of(spec_, spec_.cell.output_dim(), layer);
    Vec out(index(input_.steps * spec_.batch * width * directions_), 0.0);
    for (int d = 0; d < directions_; ++d) {
      const bool reverse = spec_.direction == Direction::reverse || d == 1;
      Walker walker(spec_, weights_, layer, d, round_);
      for (std::int64_t row = 0; row < spec_.batch; ++row) {
        run_row(walker, {layer, d, row, reverse}, below, out);
      }
    }
    return out;
  }

  struct Place {
    int layer;
    int direction;
    std::int64_t row;
    bool reverse;
  };

  void run_row(Walker& walker, const Place& place, const Vec& below, Vec& out) {
    std::vector<Vec> states;
    for (const State& s : spec_.cell.states()) states.push_back(state_row(s, place));
    const std::int64_t length =
        input_.lengths.empty() ? input_.steps : input_.lengths[index(place.row)];
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t t = place.reverse ? length - 1 - i : i;
      const Vec& y = walker.step(inputs_at(place, t, below), states);
      const auto width = static_cast<std::int64_t>(y.size());
      const std::int64_t row = t * spec_.batch + place.row;
      const std::int64_t at = (row * directions_ + place.direction) * width;
      std::copy(y.begin(), y.end(), out.begin() + at);
    }
    for (std::size_t i = 0; i < states.size(); ++i) {
      const State& s = spec_.cell.states()[i];
      std::copy(states[i].begin(), states[i].end(),
                output_.final[s.name].begin() + state_offset(s, place));
    }
  }

  std::int64_t state_offset(const State& state, const Place& place) const {
    const std::int64_t width = width_of(spec_, state.dim, place.layer);
    return state_elements(state, place.layer) + (place.direction * spec_.batch + place.row) * width;
  }

  Vec state_row(const State& state, const Place& place) const {
    const auto first = output_.final.at(state.name).begin() + state_offset(state, place);
    return Vec(first, first + width_of(spec_, state.dim, place.layer));
  }

  std::vector<Vec> inputs_at(const Place& place, std::int64_t t, const Vec& below) const {
    const auto slice = [&](const Vec& from, std::int64_t width) {
      const auto first = from.begin() + (t * spec_.batch + place.row) * width;
      return Vec(first, first + width);
    };
    std::vector<Vec> out{slice(below, width_of(spec_, Dim::input, place.layer))};
    for (std::size_t i = 0; i < input_.extra.size(); ++i) {
      const Dim dim = spec_.cell.nodes()[index(spec_.cell.inputs()[i + 1])].dim;
      const std::int64_t width = width_of(spec_, dim, place.layer);
      if (width != width_of(spec_, dim, 0)) fail("an extra input needs one width in all layers");
      out.push_back(slice(input_.extra[i], width));
    }
    return out;
  }

  const ModelSpec& spec_;
  const Weights& weights_;
  const Input& input_;
  Rounding round_;
  int directions_ = 1;
  Output output_;
};

}  // namespace

std::int64_t width_of(const ModelSpec& spec, Dim dim, int layer) {
  switch (dim) {
    case Dim::one:
      return 1;
    case Dim::hidden:
      return spec.hidden[index(layer)];
    case Dim::proj:
      return spec.projection;
    case Dim::input:
      break;
  }
  if (layer == 0) return spec.input;
  const std::int64_t below = width_of(spec, spec.cell.output_dim(), layer - 1);
  return spec.direction == Direction::bidirectional ? 2 * below : below;
}

std::int64_t output_width(const ModelSpec& spec) {
  const int last = static_cast<int>(spec.hidden.size()) - 1;
  const std::int64_t one = width_of(spec, spec.cell.output_dim(), last);
  return spec.direction == Direction::bidirectional ? 2 * one : one;
}

Output evaluate(const ModelSpec& spec, const Weights& weights, const Input& input,
                const Noise* noise) {
  return Run(spec, weights, input, noise)();
}

}  // namespace deepcpu::oracle
