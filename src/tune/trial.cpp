// SPDX-License-Identifier: Apache-2.0
#include "src/tune/trial.hpp"

#include <emmintrin.h>
#include <fmt/format.h>

#include <optional>
#include <string>

#include "src/guard_memory.hpp"
#include "src/io/checked.hpp"
#include "src/model/random_numbers.hpp"

namespace deepcpu {
namespace {

/// Of input number `input` of the cell; 0 is x.
std::int64_t input_width(const ModelSpec& spec, std::size_t input) {
  if (input == 0) return spec.input;
  const auto node = static_cast<std::size_t>(spec.cell.inputs()[input]);
  return spec.width(spec.cell.nodes()[node].dim, 0);
}

/// Numbers of all inputs and of `outputs` copies of y, in bytes; absent: over 2^64.
std::optional<std::uint64_t> array_bytes(const ModelSpec& spec, std::uint64_t outputs) {
  // A valid spec has at most 2^31 steps, 2^10 rows and widths of 2^21.
  const auto rows = static_cast<std::uint64_t>(spec.steps) * static_cast<std::uint64_t>(spec.batch);
  auto bytes =
      checked_mul(rows * static_cast<std::uint64_t>(spec.output_width()), outputs * sizeof(float));
  for (std::size_t i = 0; bytes && i < spec.cell.inputs().size(); ++i) {
    const auto width = static_cast<std::uint64_t>(input_width(spec, i));
    const auto more = checked_mul(rows * width, sizeof(float));
    bytes = more ? checked_add(*bytes, *more) : std::nullopt;
  }
  return bytes;
}

}  // namespace

Result<TrialData> TrialData::make(const ModelSpec& spec, std::uint64_t seed) {
  return guard_memory("make weights and inputs", [&]() -> Result<TrialData> {
    auto weights = Weights::random(spec, seed);
    if (!weights) return weights.error();
    // What is compared are two whole results, and a trial has a y of its own.
    constexpr std::uint64_t kOutputs = 3;
    const auto what =
        fmt::format("steps={}, batch={}: inputs and outputs take", spec.steps, spec.batch);
    if (auto st = check_available(what, array_bytes(spec, kOutputs)); !st) return st.error();
    TrialData out;
    out.spec = spec;
    out.weights = std::move(*weights);
    for (std::size_t i = 0; i < spec.cell.inputs().size(); ++i) {
      const auto node = static_cast<std::size_t>(spec.cell.inputs()[i]);
      const auto count = static_cast<std::size_t>(spec.steps * spec.batch * input_width(spec, i));
      out.inputs.push_back(random_numbers(spec.cell.nodes()[node].name, count, 1.0F, seed));
    }
    out.outputs = static_cast<std::size_t>(spec.steps * spec.batch * spec.output_width());
    return out;
  });
}

Result<Trial> Trial::make(const TrialData& data, const Schedule& schedule, TrialShare& share) {
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
      const bool as_asked = compiled->schedule == schedule;  // not so without code for hoist_ahead
      if (emitted && !(has_code && as_asked)) return Error(compiled->notes.back());
    }
    return make(data, std::move(*compiled), share);
  });
}

Result<Trial> Trial::make(const TrialData& data, Compilation compiled, TrialShare& share) {
  return guard_memory("make a candidate", [&]() -> Result<Trial> {
    auto model = std::make_shared<CompiledModel>();
    model->compiled = std::move(compiled);
    if (!share.packed) {
      auto made = pack_weights(model->compiled, data.weights);
      if (!made) return made.error();
      share.packed = std::move(*made);
    }
    model->packed = share.packed;
    const auto scratch = session_bytes(model->compiled, data.spec.steps);
    const auto bytes = scratch ? checked_add(*scratch, data.outputs * sizeof(float)) : std::nullopt;
    if (auto st = check_available("candidate: it takes", bytes); !st) return st.error();
    Trial t;
    t.data_ = &data;
    t.model_ = model;
    auto& team = share.teams[model->compiled.program.participants];
    t.runner_ = std::make_unique<Runner>(model, Layout::time_major, data.spec.steps, team);
    team = t.runner_->team();
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
