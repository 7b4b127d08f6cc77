// SPDX-License-Identifier: Apache-2.0
/// Emitted kernels called by themselves: through the shim that fills every vector register with NaN
/// and checks the calling convention, with every buffer of the plan between guard pages, beside the
/// interpreter on buffers of its own.
#include <algorithm>
#include <cstring>
#include <optional>
#include <random>

#include "src/compile.hpp"
#include "src/runtime/flush_denormals.hpp"
#include "tests/catch.hpp"
#include "tests/support/call_shim.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/guarded_buffer.hpp"

namespace deepcpu {
namespace {

using jit::Space;
using lower::Role;
using test::GuardedBuffer;

constexpr std::int64_t kSteps = 5;

/// The memory of one plan, every piece of exactly the bytes that the plan may touch.
class Bench {
 public:
  Bench(const Compilation& c, const GuardedBuffer& weights, std::span<const float> x)
      : code_(c.layers.front()), batch_(c.spec.batch) {
    const auto& plan = code_.step.bound.plan;
    args_.weights = weights.data();
    args_.steps = kSteps;
    args_.rows = static_cast<std::uint64_t>(batch_);
    args_.participants = 1;
    args_.ranges = code_.serial_panels.step->of(0);
    rows_.resize(plan.buffers.size());
    for (std::size_t b = 0; b < plan.buffers.size(); ++b) {
      const bool is_x = code_.step.bound.roles[b].role == Role::input;
      const bool is_state = code_.step.bound.roles[b].role == Role::state;
      memory_.emplace_back(bytes_of(plan.buffers[b]), test::Against::end,
                           alignment_of(plan.buffers[b]));
      GuardedBuffer& memory = memory_.back();
      if (is_x) memory.fill(x);
      if (is_state) std::memset(memory.data(), 0, memory.bytes());
      args_.buffer[b] = memory.data();
      if (plan.buffers[b].space == Space::external) point_rows(b, plan.buffers[b].width);
    }
    if (code_.ahead) make_tiles(weights, x);
  }

  /// The hoisted products, then the time loop. Empty if both kept the calling convention.
  std::string run(bool by_code) {
    std::string broken;
    if (code_.hoist) {
      jit::KernelArgs hoist = hoist_args();
      broken += call(*code_.hoist, hoist, by_code);
    }
    return broken + call(code_.ahead ? *code_.ahead : code_.step, args_, by_code);
  }

  /// The sums of later rows, which tiles of the kernel with products ahead compute.
  std::span<const float> later_sums() const { return later_sums_->floats(); }

  bool intact() const {
    const auto whole = [](const GuardedBuffer& m) { return m.intact(); };
    const bool later = !later_x_ || (later_x_->intact() && later_sums_->intact());
    return later && std::all_of(memory_.begin(), memory_.end(), whole);
  }

  std::span<const float> y() const {
    for (std::size_t b = 0; b < memory_.size(); ++b) {
      if (code_.step.bound.roles[b].role == Role::output) return memory_[b].floats();
    }
    return {};
  }

 private:
  /// Tiles for all units, on rows of a later x and of sums that end at guard pages.
  void make_tiles(const GuardedBuffer& weights, std::span<const float> x) {
    const jit::KernelPlan& plan = code_.ahead->bound.plan;
    const std::size_t last = plan.ahead->rows - 1;
    const std::size_t k = code_.widths.of(Dim::input);
    later_x_ = GuardedBuffer(last * plan.ahead->from_stride + k * sizeof(float), test::Against::end,
                             sizeof(float));
    float* from = later_x_->floats().data();
    for (std::size_t row = 0; row <= last; ++row) {
      float* to = from + row * plan.ahead->from_stride / sizeof(float);
      const auto factor = static_cast<float>(row + 1);
      for (std::size_t i = 0; i < k; ++i) to[i] = factor * x[i];
    }
    later_sums_ =
        GuardedBuffer(last * plan.ahead->to_stride + code_.hoisted_row, test::Against::end, 64);
    std::memset(later_sums_->data(), 0, later_sums_->bytes());
    for (const lower::AheadSum& sum : code_.ahead_sums) add_tiles(sum, weights, from);
    args_.ahead = tiles_.data();
    args_.ahead_tiles = tiles_.size();
  }

  void add_tiles(const lower::AheadSum& sum, const GuardedBuffer& weights, const float* from) {
    const std::size_t lanes = code_.layout.lanes;
    for (std::size_t unit = 0; unit < sum.blocks; ++unit) {
      for (std::size_t chain = 0; chain < sum.chains; ++chain) {
        jit::AheadTile t{};
        t.from = from + chain;
        t.from_step = sum.chains * sizeof(float);
        t.end = t.from + (sum.k - chain + sum.chains - 1) / sum.chains * sum.chains;
        const bool last = unit + 1 == sum.blocks;
        const auto block = last ? sum.last_weights : sum.weights + unit * sum.block_stride;
        t.weights = weights.data() + block + chain * sum.weight_stride;
        t.weight_step = sum.chains * sum.weight_stride;
        const auto* bias = weights.data() + sum.init.value_or(0) + unit * lanes * sizeof(float);
        t.init = sum.init && chain == 0 ? reinterpret_cast<const float*>(bias) : zeros_;
        t.to = later_sums_->floats().data() + (sum.to / sizeof(float)) + unit * lanes;
        t.joins = chain;
        tiles_.push_back(t);
      }
    }
  }

  std::size_t bytes_of(const jit::Buffer& b) const {
    switch (b.space) {
      case Space::external:
        return static_cast<std::size_t>(kSteps * batch_) * b.width * sizeof(float);
      case Space::slots:
        return b.slot_stride * b.slots;
      case Space::block:
        return static_cast<std::size_t>(kSteps) * b.step_stride;
      case Space::strided:
      case Space::params:
        break;
    }
    return 64;
  }

  static std::size_t alignment_of(const jit::Buffer& b) {
    return b.space == Space::external ? 4 : 64;
  }

  void point_rows(std::size_t b, std::uint32_t width) {
    const auto row = static_cast<std::int64_t>(width * sizeof(float));
    args_.stride[b] = row * batch_;
    for (std::int64_t r = 0; r < batch_; ++r) rows_[b].push_back(memory_[b].data() + r * row);
    args_.buffer[b] = rows_[b].data();
  }

  jit::KernelArgs hoist_args() const {
    jit::KernelArgs hoist{};
    hoist.weights = args_.weights;
    hoist.steps = 1;
    hoist.participants = 1;
    hoist.rows = static_cast<std::uint64_t>(kSteps * batch_);
    hoist.ranges = code_.serial_panels.hoist->of(0);
    const auto& roles = code_.hoist->bound.roles;
    for (std::size_t b = 0; b < roles.size(); ++b) {
      for (std::size_t s = 0; s < code_.step.bound.roles.size(); ++s) {
        if (code_.step.bound.roles[s].role != roles[b].role) continue;
        hoist.buffer[b] = memory_[s].data();
        hoist.stride[b] = roles[b].role == Role::input
                              ? args_.stride[s] / batch_
                              : static_cast<std::int64_t>(code_.hoisted_row);
      }
    }
    return hoist;
  }

  static std::string call(const Kernel& kernel, const jit::KernelArgs& args, bool by_code) {
    if (by_code) return test::checked_call(kernel.code->entry(), &args);
    const FlushDenormals guard;
    jit::interpret(kernel.bound.plan, args);
    return {};
  }

  const LayerCode& code_;
  std::int64_t batch_;
  jit::KernelArgs args_{};
  std::vector<GuardedBuffer> memory_;
  std::vector<std::vector<unsigned char*>> rows_;
  std::vector<jit::AheadTile> tiles_;
  std::optional<GuardedBuffer> later_x_;
  std::optional<GuardedBuffer> later_sums_;
  alignas(64) float zeros_[16] = {};
};

void check_kernels(const std::string& problem, Isa isa, int hoist_block, bool ahead = false) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  CompileOptions options;
  options.isa = isa;
  options.schedule = compile_program(spec, options).value().schedule;
  options.schedule->layers[0].hoist_block = hoist_block;
  options.schedule->layers[0].hoist_ahead = ahead;
  if (ahead) options.schedule->layers[0].weights = Residency::streamed;
  const Compilation c = compile_program(spec, options).value();
  INFO(problem << " " << to_string(isa) << " hoist_block=" << hoist_block);
  REQUIRE(c.layers[0].step.code != nullptr);
  const Weights weights = Weights::random(spec, 1).value();
  const GuardedBuffer packed(c.layers[0].layout.bytes, test::Against::end, 64);
  lower::pack(spec.cell, c.layers[0].layout, c.layers[0].widths, weights, "_l0",
              reinterpret_cast<std::byte*>(packed.data()));
  packed.make_read_only();
  std::mt19937 generator(3);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> x(static_cast<std::size_t>(kSteps * spec.batch * spec.input));
  for (float& v : x) v = uniform(generator);
  Bench code(c, packed, x);
  Bench interpreter(c, packed, x);
  CHECK(code.run(true).empty());
  CHECK(interpreter.run(false).empty());
  CHECK(test::bit_difference(code.y(), interpreter.y()).empty());
  CHECK(code.intact());
  CHECK(interpreter.intact());
  if (!ahead) return;
  CHECK(test::bit_difference(code.later_sums(), interpreter.later_sums()).empty());
  const auto sums = code.later_sums();
  CHECK(std::any_of(sums.begin(), sums.end(), [](float v) { return v != 0.0F; }));
}

TEST_CASE("emitted kernels keep the calling convention and stay inside their buffers") {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const int hoist_block : {0, static_cast<int>(kSteps)}) {
      for (const char* problem :
           {"lstm:i5h19", "lstm:i33h64b7,peephole=1", "lstm:i16h40p24b3", "gru:i9h35b4",
            "gru:i3h50b2,reset=before", "rnn:i7h70b5", "rnn:i1h1", "lstm:i64h128b13",
            "lstm:i40h10b5", "lstm:i9h27b2", "gru:i40h9b3", "gru:i9h26b2"}) {
        check_kernels(problem, isa, hoist_block);
      }
    }
  }
}

TEST_CASE("a kernel with products ahead stays inside the rows of its tiles") {
  if (host_isa() < Isa::avx512) return;
  for (const char* problem : {"lstm:i5h19", "lstm:i33h64,peephole=1", "lstm:i16h40p24", "gru:i9h35",
                              "gru:i3h50,reset=before", "rnn:i7h70", "rnn:i2h17", "lstm:i9h27",
                              "lstm:i40h10", "gru:i9h26"}) {
    for (const int block : {8, 16}) check_kernels(problem, Isa::avx512, block, true);
  }
}

}  // namespace
}  // namespace deepcpu
