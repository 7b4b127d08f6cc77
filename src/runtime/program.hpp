// SPDX-License-Identifier: Apache-2.0
/// Program: in which order the kernels of a model run, and on which participants.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"

namespace deepcpu {

/// One layer and direction for one block of steps.
struct ProgramStep {
  int layer = 0;
  int direction = 0;
  bool reversed = false;  ///< walks the sequence from its end
  int first = 0;          ///< first participant
  int participants = 1;
};

/// The steps run in order for block 0, then for block 1, and so on.
struct Program {
  std::vector<ProgramStep> steps;
  std::int64_t block = 0;      ///< time steps per block; 0 = a step takes the whole sequence
  bool whole_sequence = false;  ///< layers hand over whole sequences: bidirectional stacks
  int participants = 1;

  static Program build(const ModelSpec& spec, const Schedule& schedule);
  std::string to_text() const;
};

}  // namespace deepcpu
