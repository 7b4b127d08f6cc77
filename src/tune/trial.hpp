// SPDX-License-Identifier: Apache-2.0
/// Trial: one schedule of a problem, compiled and ready to be run and compared.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/runtime/runner.hpp"

namespace deepcpu {

/// A problem with random weights and inputs, the same for all its trials.
struct TrialData {
  ModelSpec spec;
  Weights weights;
  std::vector<std::vector<float>> inputs;  ///< per input of the cell, [T,B,width]
  std::size_t outputs = 0;                 ///< numbers in y

  /// Errors: an illegal spec; no memory for its weights; less memory available than inputs and
  /// outputs take, which is looked up before they are made.
  static Result<TrialData> make(const ModelSpec& spec, std::uint64_t seed);
};

/// What trials of one problem have in common, of one ISA; the first that needs it makes it. With
/// the same helpers all of them run on the same processors.
struct TrialShare {
  std::shared_ptr<const PackedWeights> packed;
  std::map<int, std::shared_ptr<ThreadTeam>> teams;  ///< by number of threads
};

/// Runs on the thread that calls it, with helpers where the schedule has them. One at a time of
/// those that have a TrialShare in common.
class Trial {
 public:
  /// Errors: an illegal schedule, no memory, helpers that could not be started.
  static Result<Trial> make(const TrialData& data, const Schedule& schedule, TrialShare& share);

  /// The same with kernels that the caller compiled for this spec, whatever they compute.
  static Result<Trial> make(const TrialData& data, Compilation compiled, TrialShare& share);

  /// One run over all steps from the state that the last one left.
  void run() noexcept;
  /// From zero states: y, then all final states.
  std::vector<float> result();
  /// Drives the weights out of all caches.
  void evict() const noexcept;
  const Schedule& schedule() const noexcept { return model_->compiled.schedule; }

 private:
  Trial() = default;
  const TrialData* data_ = nullptr;
  std::shared_ptr<const CompiledModel> model_;
  std::unique_ptr<Runner> runner_;
  std::vector<std::span<const float>> extra_;
  std::vector<float> y_;
};

}  // namespace deepcpu
