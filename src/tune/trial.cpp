// SPDX-License-Identifier: Apache-2.0
#include "src/tune/trial.hpp"

#include <emmintrin.h>

#include <string>

#include "src/guard_memory.hpp"
#include "src/model/random_numbers.hpp"

namespace deepcpu {

Result<TrialData> TrialData::make(const ModelSpec& spec, std::uint64_t seed) {
  return guard_memory("make weights and inputs", [&]() -> Result<TrialData> {
    auto weights = Weights::random(spec, seed);
    if (!weights) return weights.error();
    TrialData out;
    out.spec = spec;
    out.weights = std::move(*weights);
    for (const int input : spec.cell.inputs()) {
      const Node& n = spec.cell.nodes()[static_cast<std::size_t>(input)];
      const std::int64_t width = out.inputs.empty() ? spec.input : spec.width(n.dim, 0);
      const auto count = static_cast<std::size_t>(spec.steps * spec.batch * width);
      out.inputs.push_back(random_numbers(n.name, count, 1.0F, seed));
    }
    out.outputs = static_cast<std::size_t>(spec.steps * spec.batch * spec.output_width());
    return out;
  });
}

Result<Trial> Trial::make(const TrialData& data, const Schedule& schedule,
                          std::shared_ptr<const PackedWeights>& packed) {
  return guard_memory("make a candidate", [&]() -> Result<Trial> {
    CompileOptions options;
    options.threads = schedule.threads;
    options.schedule = schedule;
    auto compiled = compile_program(data.spec, options);
    if (!compiled) return compiled.error();
    const bool emitted = schedule.isa != Isa::interpreter;
    for (const LayerCode& layer : compiled->layers) {
      const bool has_code = layer.step.code && (!layer.hoist || layer.hoist->code);
      // The interpreter would serve, and be timed in place of the schedule.
      if (emitted && !has_code) return Error(compiled->notes.back());
    }
    return make(data, std::move(*compiled), packed);
  });
}

Result<Trial> Trial::make(const TrialData& data, Compilation compiled,
                          std::shared_ptr<const PackedWeights>& packed) {
  return guard_memory("make a candidate", [&]() -> Result<Trial> {
    auto model = std::make_shared<CompiledModel>();
    model->compiled = std::move(compiled);
    if (!packed) {
      auto made = pack_weights(model->compiled, data.weights);
      if (!made) return made.error();
      packed = std::move(*made);
    }
    model->packed = packed;
    if (auto st =
            check_available("candidate: it takes", session_bytes(model->compiled, data.spec.steps));
        !st) {
      return st.error();
    }
    Trial t;
    t.data_ = &data;
    t.model_ = model;
    t.runner_ = std::make_unique<Runner>(model, Layout::time_major, data.spec.steps);
    if (!t.runner_->why_serial().empty()) return Error(std::string(t.runner_->why_serial()));
    for (std::size_t i = 1; i < data.inputs.size(); ++i) t.extra_.emplace_back(data.inputs[i]);
    t.y_.resize(data.outputs);
    return t;
  });
}

void Trial::run() noexcept {
  RunInput in;
  in.x = data_->inputs.front().data();
  in.y = y_.data();
  in.extra = extra_;
  in.steps = data_->spec.steps;
  runner_->run(in);
}

std::vector<float> Trial::result() {
  runner_->reset();
  run();
  std::vector<float> all = y_;
  const ModelSpec& spec = data_->spec;
  const auto& steps = model_->compiled.program.steps;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const auto& states = spec.cell.states();
    for (std::size_t i = 0; i < states.size(); ++i) {
      const std::int64_t width = spec.width(states[i].dim, steps[s].layer);
      const std::size_t first = all.size();
      all.resize(first + static_cast<std::size_t>(spec.batch * width));
      runner_->load_state(s, static_cast<int>(i), all.data() + first);
    }
  }
  return all;
}

void Trial::evict() const noexcept {
  const AlignedBytes& bytes = model_->packed->bytes;
  constexpr std::size_t kLine = 64;
  for (std::size_t at = 0; at < bytes.size(); at += kLine) _mm_clflush(bytes.data() + at);
  _mm_mfence();
}

}  // namespace deepcpu
