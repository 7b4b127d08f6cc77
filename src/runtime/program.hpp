// SPDX-License-Identifier: Apache-2.0
/// Program: in which order the kernels of a model run, and on which participants.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "deepcpu/schedule.hpp"
#include "src/lower/lower.hpp"
#include "src/runtime/blocks.hpp"

namespace deepcpu {

/// One layer and direction, for one block of time steps after the other.
struct ProgramStep {
  int layer = 0;
  int direction = 0;
  bool reversed = false;  ///< walks the sequence from its end
  int first = 0;          ///< its participants are first .. first + Program::group * row_parts - 1
  /// Steps whose output it reads, and steps that read its own: indices into Program::steps.
  std::vector<int> producers;
  std::vector<int> consumers;
};

/// Every participant runs its steps in order for block 0, then for block 1, and so on. A step waits
/// until its producers have finished the block and its consumers have left the memory it writes.
struct Program {
  std::vector<ProgramStep> steps;
  std::int64_t block = 0;       ///< most time steps of a block; 0 = a step takes the whole sequence
  bool full_blocks = false;     ///< all but the last of a run have the most (products ahead)
  bool whole_sequence = false;  ///< layers hand over whole sequences: bidirectional stacks
  int participants = 1;
  int group = 1;  ///< participants that share the panels of a step
  /// Parts of the batch rows of a step, each on a group of participants of its own; of the rows in
  /// the order of their lengths, part p has those at p, p + row_parts, ... One participant runs all
  /// of them, or, to measure one by itself, `only_part` if that is not negative.
  int row_parts = 1;
  int only_part = -1;
  /// Further participants, which only compute hoisted products (Parallel::hoist); they come last.
  int hoisters = 0;
  int handover_slots = 1;  ///< blocks that stand between two layers; 2 lets a layer run ahead

  static Program build(const ModelSpec& spec, const Schedule& schedule);
  /// The blocks of a run of `steps`; needs `block` > 0.
  Blocks blocks_of(std::int64_t steps) const {
    return full_blocks ? Blocks::full(steps, block) : Blocks::even(steps, block);
  }
  /// With hoisters, the hoisted products of a block are taken in two pieces for each participant,
  /// so that all are busy to the end. A piece is one of the parts that the panels are divided into,
  /// and where there are too few panels, some of the block's steps: so panels are read for as many
  /// steps at once as can be.
  std::int64_t pieces() const { return std::int64_t{2} * participants; }
  std::int64_t panel_parts(std::int64_t panels) const {
    return std::clamp<std::int64_t>(panels, 1, pieces());
  }
  /// Time steps of a piece of a block of `steps`, whose panels are divided into `parts`.
  std::int64_t piece_steps(std::int64_t steps, std::int64_t parts) const {
    const std::int64_t times = (pieces() - 1) / parts + 1;
    return std::max<std::int64_t>(1, (steps + times - 1) / times);
  }
  /// How a step's kernel shares its work.
  lower::Sharing sharing(Exchange exchange) const {
    return {static_cast<std::uint32_t>(group), exchange, hoisters > 0};
  }
  int participants_of_step() const { return group * row_parts; }
  bool runs_on(const ProgramStep& step, int participant) const {
    return participant >= step.first && participant < step.first + participants_of_step();
  }
  /// The most rows that a part has.
  std::int64_t part_rows(std::int64_t batch) const { return rows_of_part(0, batch); }
  std::int64_t rows_of_part(int part, std::int64_t rows) const {
    return (rows - part + row_parts - 1) / row_parts;
  }
  std::string to_text() const;
};

/// Whether work can be divided, and hoisted products computed, as the schedule says. Errors name
/// the field of the schedule.
Status check_division(const ModelSpec& spec, const Schedule& schedule);

}  // namespace deepcpu
