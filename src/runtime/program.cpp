// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/program.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace deepcpu {
namespace {

/// Steps per block of a stack whose schedule hoists nothing: long enough that calls between
/// kernels do not show, short enough that what one layer hands to the next stays in the L2 cache.
constexpr std::int64_t kPlainBlock = 64;

std::int64_t block_of(const ModelSpec& spec, const Schedule& schedule) {
  std::int64_t block = 0;
  for (const LayerSchedule& l : schedule.layers) block = std::max<std::int64_t>(block, l.hoist_block);
  if (block == 0 && spec.layers() > 1) block = kPlainBlock;
  return block;
}

}  // namespace

Program Program::build(const ModelSpec& spec, const Schedule& schedule) {
  Program p;
  p.block = block_of(spec, schedule);
  p.whole_sequence = spec.directions() == 2 && spec.layers() > 1;
  p.participants = schedule.threads;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    for (int d = 0; d < spec.directions(); ++d) {
      const bool reversed = spec.direction == Direction::reverse || d == 1;
      p.steps.push_back({layer, d, reversed, 0, schedule.threads});
    }
  }
  return p;
}

std::string Program::to_text() const {
  std::string out = whole_sequence
                        ? "for the whole sequence:\n"
                        : (block == 0 ? std::string("for all steps at once:\n")
                                      : fmt::format("for each block of {} steps:\n", block));
  for (const ProgramStep& s : steps) {
    out += fmt::format("  layer {} direction {}{} on participants {}..{}\n", s.layer, s.direction,
                       s.reversed ? " (reversed)" : "", s.first, s.first + s.participants - 1);
  }
  return out;
}

}  // namespace deepcpu
