// SPDX-License-Identifier: Apache-2.0
/// oneDNN's own RNN primitives: vanilla_rnn, lstm (with peepholes and projection too), gru (reset
/// before) and lbr_gru (reset after). One primitive per layer for the whole sequence and both
/// directions, made once; weights in the layout that the primitive asks for (`any`); scratchpad of
/// our own; y in place. States are left out, which means zeros.
#include <omp.h>
#include <xmmintrin.h>

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "bench/peers/problem.hpp"
#include "bench/worker.hpp"

namespace {

using bench::PeerProblem;
using dnnl::memory;
using Desc = memory::desc;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

constexpr auto kFloat = memory::data_type::f32;
constexpr auto kInference = dnnl::prop_kind::forward_inference;

Desc desc(const memory::dims& dims, Tag tag) { return Desc(dims, kFloat, tag); }

/// Shapes of one layer, as oneDNN names them: L layers, D directions, T steps, N rows.
struct Sizes {
  Sizes(const PeerProblem& problem, int layer)
      : steps(problem.spec.steps),
        batch(problem.spec.batch),
        input(problem.input(layer)),
        hidden(problem.spec.hidden[static_cast<std::size_t>(layer)]),
        output(problem.output(layer)),
        directions(problem.directions()) {
    if (directions == 2) {
      direction = dnnl::rnn_direction::bidirectional_concat;
    } else if (problem.spec.direction == deepcpu::Direction::reverse) {
      direction = dnnl::rnn_direction::unidirectional_right2left;
    }
  }

  Desc x() const { return desc({steps, batch, input}, Tag::tnc); }
  Desc y() const { return desc({steps, batch, directions * output}, Tag::tnc); }
  Desc w(std::int64_t gates, Tag tag) const {
    return desc({1, directions, input, gates, hidden}, tag);
  }
  Desc u(std::int64_t gates, Tag tag) const {
    return desc({1, directions, output, gates, hidden}, tag);
  }
  Desc bias(std::int64_t gates) const { return desc({1, directions, gates, hidden}, Tag::ldgo); }
  Desc projection(Tag tag) const { return desc({1, directions, hidden, output}, tag); }

  std::int64_t steps, batch, input, hidden, output, directions;
  dnnl::rnn_direction direction = dnnl::rnn_direction::unidirectional_left2right;
};

dnnl::algorithm activation(const std::string& name) {
  if (name == "relu") return dnnl::algorithm::eltwise_relu;
  if (name == "sigmoid") return dnnl::algorithm::eltwise_logistic;
  return dnnl::algorithm::eltwise_tanh;
}

/// Tensors of both directions one after the other, gates in the library's order.
std::vector<float> stacked(const PeerProblem& problem, int layer, const std::string& name,
                           const std::vector<int>& order) {
  std::vector<float> result;
  for (int direction = 0; direction < problem.directions(); ++direction) {
    const std::vector<float> part = bench::reorder(problem.tensor(name, layer, direction), order);
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

/// One primitive with its arguments in place.
class Layer {
 public:
  Layer(const dnnl::engine& engine, const PeerProblem& problem, int layer)
      : engine_(engine), stream_(engine), problem_(problem), layer_(layer), sizes_(problem, layer) {
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const std::string cell = problem.cell();
    if (cell == "lstm") {
      make_lstm();
    } else if (cell == "rnn") {
      make_rnn();
    } else if (problem.resets_before()) {
      make_gru();
    } else {
      make_lbr_gru();
    }
  }

  /// x and y stay where they are from now on.
  memory connect(const memory& x) {
    arguments_[DNNL_ARG_SRC_LAYER] = x;
    memory y(sizes_.y(), engine_);
    arguments_[DNNL_ARG_DST_LAYER] = y;
    return y;
  }

  Desc x() const { return sizes_.x(); }
  void run(dnnl::stream& stream) const { primitive_.execute(stream, arguments_); }
  const std::string& implementation() const { return implementation_; }

 private:
  void make_lstm() {
    const bool peephole = problem_.option("peephole") == "1";
    const bool projected = problem_.spec.projection != 0;
    const Desc peepholes = peephole ? sizes_.bias(3) : Desc();
    const Desc projection = projected ? sizes_.projection(Tag::any) : Desc();
    const dnnl::lstm_forward::primitive_desc made(
        engine_, kInference, sizes_.direction, sizes_.x(), Desc(), Desc(), sizes_.w(4, Tag::any),
        sizes_.u(4, Tag::any), peepholes, projection, sizes_.bias(4), sizes_.y(), Desc(), Desc(),
        attributes_);
    finish(made, dnnl::lstm_forward(made), {0, 1, 2, 3});
    if (peephole) {
      put(DNNL_ARG_WEIGHTS_PEEPHOLE, stacked(problem_, layer_, "weight_peephole", {0, 1, 2}),
          peepholes, made.weights_peephole_desc());
    }
    if (projected) {
      put(DNNL_ARG_WEIGHTS_PROJECTION, stacked(problem_, layer_, "weight_hr", {0}),
          sizes_.projection(Tag::ldoi), made.weights_projection_desc());
    }
  }

  void make_rnn() {
    const dnnl::vanilla_rnn_forward::primitive_desc made(
        engine_, kInference, activation(problem_.option("act")), sizes_.direction, sizes_.x(),
        Desc(), sizes_.w(1, Tag::any), sizes_.u(1, Tag::any), sizes_.bias(1), sizes_.y(), Desc(),
        attributes_);
    finish(made, dnnl::vanilla_rnn_forward(made), {0});
  }

  void make_gru() {
    const dnnl::gru_forward::primitive_desc made(
        engine_, kInference, sizes_.direction, sizes_.x(), Desc(), sizes_.w(3, Tag::any),
        sizes_.u(3, Tag::any), sizes_.bias(3), sizes_.y(), Desc(), attributes_);
    finish(made, dnnl::gru_forward(made), kUpdateFirst);
  }

  void make_lbr_gru() {
    const dnnl::lbr_gru_forward::primitive_desc made(
        engine_, kInference, sizes_.direction, sizes_.x(), Desc(), sizes_.w(3, Tag::any),
        sizes_.u(3, Tag::any), sizes_.bias(4), sizes_.y(), Desc(), attributes_);
    finish(made, dnnl::lbr_gru_forward(made), kUpdateFirst);
  }

  /// Weights, bias and scratchpad of the primitive that was made.
  template <class Made>
  void finish(const Made& made, dnnl::primitive primitive, const std::vector<int>& order) {
    primitive_ = std::move(primitive);
    implementation_ = made.impl_info_str();
    const auto gates = static_cast<std::int64_t>(order.size());
    put(DNNL_ARG_WEIGHTS_LAYER, stacked(problem_, layer_, "weight_ih", order),
        sizes_.w(gates, Tag::ldgoi), made.weights_layer_desc());
    put(DNNL_ARG_WEIGHTS_ITER, stacked(problem_, layer_, "weight_hh", order),
        sizes_.u(gates, Tag::ldgoi), made.weights_iter_desc());
    put_bias(made.bias_desc(), order);
    arguments_[DNNL_ARG_SCRATCHPAD] = memory(made.scratchpad_desc(), engine_);
  }

  /// The two biases are one, except that the candidate of lbr_gru keeps that of U·h as a fourth.
  void put_bias(const Desc& wanted, const std::vector<int>& order) {
    std::vector<float> bias;
    const std::size_t hidden = static_cast<std::size_t>(sizes_.hidden);
    const bool fourth = wanted.get_dims()[2] > static_cast<std::int64_t>(order.size());
    for (int direction = 0; direction < problem_.directions(); ++direction) {
      const auto w = bench::reorder(problem_.tensor("bias_ih", layer_, direction), order);
      const auto u = bench::reorder(problem_.tensor("bias_hh", layer_, direction), order);
      std::vector<float> sum = bench::sum_of(w, u);
      if (fourth) {
        sum.resize(2 * hidden);
        sum.insert(sum.end(), w.end() - static_cast<std::ptrdiff_t>(hidden), w.end());
        sum.insert(sum.end(), u.end() - static_cast<std::ptrdiff_t>(hidden), u.end());
      }
      bias.insert(bias.end(), sum.begin(), sum.end());
    }
    put(DNNL_ARG_BIAS, std::move(bias), sizes_.bias(wanted.get_dims()[2]), wanted);
  }

  /// Reorders `values` into the wanted layout, once.
  void put(int argument, std::vector<float> values, const Desc& given, const Desc& wanted) {
    memory from(given, engine_, values.data());
    memory to(wanted, engine_);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    arguments_[argument] = to;
  }

  /// PyTorch's r z n as oneDNN's u r o.
  inline static const std::vector<int> kUpdateFirst = {1, 0, 2};

  dnnl::engine engine_;
  dnnl::stream stream_;
  const PeerProblem& problem_;
  int layer_;
  Sizes sizes_;
  dnnl::primitive_attr attributes_;
  dnnl::primitive primitive_;
  std::string implementation_;
  Arguments arguments_;
};

class OneDnn final : public bench::Contestant {
 public:
  std::string version() const override {
    const dnnl_version_t* v = dnnl_version();
    std::string text = "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
                       std::to_string(v->patch);
    return layers_.empty() ? text : text + " " + layers_.front().implementation();
  }

  void load(const bench::Request& request) override {
    // Before the first parallel region: helpers inherit that denormals are zero.
    _mm_setcsr(_mm_getcsr() | 0x8040U);
    omp_set_num_threads(request.threads);
    layers_.clear();
    problem_.emplace(request);
    problem_->demand_cell({"lstm", "gru", "rnn"}, {"reset", "act", "peephole"}, "oneDNN");
    try {
      make_layers(request.x);
    } catch (const dnnl::error& error) {
      if (error.status == dnnl_unimplemented) throw bench::Refusal{"unsupported", error.message};
      throw bench::Refusal{"error", error.message};
    }
  }

  void call() noexcept override {
    try {
      for (const Layer& layer : layers_) layer.run(stream_);
      stream_.wait();
    } catch (const dnnl::error& error) {
      failure_ = error.message;
    }
  }

  const bench::Array& output() override {
    if (!failure_.empty()) throw bench::Refusal{"error", failure_};
    const float* values = static_cast<const float*>(last_.get_data_handle());
    y_.data.assign(values, values + last_.get_desc().get_size() / sizeof(float));
    return y_;
  }

 private:
  void make_layers(const bench::Array& x) {
    failure_.clear();
    x_ = x.data;
    for (int layer = 0; layer < problem_->spec.layers(); ++layer) {
      layers_.emplace_back(engine_, *problem_, layer);
    }
    last_ = memory(layers_.front().x(), engine_, x_.data());
    for (Layer& layer : layers_) last_ = layer.connect(last_);
    y_.shape = {problem_->spec.steps, problem_->spec.batch, problem_->spec.output_width()};
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::optional<PeerProblem> problem_;
  std::vector<Layer> layers_;
  std::vector<float> x_;
  memory last_;
  bench::Array y_;
  std::string failure_;
};

}  // namespace

int main() {
  OneDnn peer;
  return bench::Worker(peer).serve();
}
