// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/program.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "src/lower/lower.hpp"

namespace deepcpu {
namespace {

/// Steps per block of a stack whose schedule hoists nothing: long enough that calls between
/// kernels do not show, short enough that what one layer hands to the next stays in the L2 cache.
constexpr std::int64_t kPlainBlock = 64;

std::int64_t longest_block(const ModelSpec& spec, const Schedule& schedule) {
  std::int64_t block = 0;
  for (const LayerSchedule& l : schedule.layers)
    block = std::max<std::int64_t>(block, l.hoist_block);
  if (block == 0 && spec.layers() > 1) block = kPlainBlock;
  return block;
}

/// How many groups the participants are divided into: one per direction, or one per range of
/// layers.
int groups_of(const ModelSpec& spec, const Schedule& schedule) {
  switch (schedule.parallel) {
    case Parallel::none:
    case Parallel::gates:
    case Parallel::hoist:
      return 1;
    case Parallel::directions:
      return std::min(spec.directions(), schedule.threads);
    case Parallel::wavefront:
      return std::min(spec.layers(), schedule.threads);
  }
  return 1;
}

void connect(Program& p) {
  for (std::size_t to = 0; to < p.steps.size(); ++to) {
    for (std::size_t from = 0; from < p.steps.size(); ++from) {
      if (p.steps[from].layer + 1 != p.steps[to].layer) continue;
      p.steps[to].producers.push_back(static_cast<int>(from));
      p.steps[from].consumers.push_back(static_cast<int>(to));
    }
  }
}

}  // namespace

Program Program::build(const ModelSpec& spec, const Schedule& schedule) {
  Program p;
  const int groups = groups_of(spec, schedule);
  p.block = longest_block(spec, schedule);
  p.full_blocks = std::any_of(schedule.layers.begin(), schedule.layers.end(),
                              [](const LayerSchedule& l) { return l.hoist_ahead; });
  p.whole_sequence = spec.directions() == 2 && spec.layers() > 1;
  if (schedule.parallel == Parallel::hoist) p.hoisters = schedule.threads - 1;
  p.row_parts = schedule.split_rows;
  // One thread runs all parts.
  p.group = std::max(1, (schedule.threads - p.hoisters) / groups / p.row_parts);
  p.participants = std::min(schedule.threads, p.group * p.row_parts * groups + p.hoisters);
  p.handover_slots = schedule.parallel == Parallel::wavefront && groups > 1 ? 2 : 1;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    for (int d = 0; d < spec.directions(); ++d) {
      ProgramStep step;
      step.layer = layer;
      step.direction = d;
      step.reversed = spec.direction == Direction::reverse || d == 1;
      int group = 0;
      if (schedule.parallel == Parallel::directions) group = d % groups;
      if (schedule.parallel == Parallel::wavefront) group = layer * groups / spec.layers();
      step.first = group * p.participants_of_step();
      p.steps.push_back(step);
    }
  }
  connect(p);
  return p;
}

namespace {

Status check_split(const ModelSpec& spec, const Schedule& schedule) {
  const int parts = schedule.split_rows;
  if (parts == 1) return {};
  const int groups = groups_of(spec, schedule);
  const char* why = nullptr;
  if (schedule.parallel == Parallel::hoist)
    why = "needs another value of parallel than hoist";
  else if (schedule.threads < groups * parts)
    why = "needs a thread for each part of each direction or range of layers";
  else if (std::any_of(schedule.layers.begin(), schedule.layers.end(),
                       [](const LayerSchedule& l) { return l.hoist_ahead; }))
    why = "needs hoist_ahead=false";
  if (why != nullptr) return Error(fmt::format("split_rows={}: {}", parts, why));
  return {};
}

}  // namespace

Status check_division(const ModelSpec& spec, const Schedule& schedule) {
  if (auto st = check_split(spec, schedule); !st) return st;
  if (schedule.parallel == Parallel::hoist) {
    const LayerSchedule& l = schedule.layers.front();
    const char* why = nullptr;
    if (spec.layers() > 1 || spec.directions() > 1)
      why = "needs one layer and one direction";
    else if (schedule.threads < 2)
      why = "needs threads > 1";
    else if (l.hoist_block == 0)
      why = "needs hoist_block > 0";
    else if (l.hoist_ahead)
      why = "needs hoist_ahead=false";
    else if (!lower::hoists(lower::StepGraph::build(spec.cell)))
      why = "needs products of the input";
    if (why != nullptr) return Error(fmt::format("parallel=hoist: {}", why));
  }
  const std::int64_t block = longest_block(spec, schedule);
  for (int layer = 0; layer < spec.layers(); ++layer) {
    const LayerSchedule& own = schedule.layers[static_cast<std::size_t>(layer)];
    if (!own.hoist_ahead) continue;
    const char* why = nullptr;
    if (!lower::knows_its_input(spec, layer))
      why = "needs the first layer, or a bidirectional stack";
    if (block % lower::kAheadRows != 0) why = "needs the longest hoist_block to be a multiple of 8";
    if (lower::ahead_rows(own.hoist_block) > lower::ahead_rows(block))
      why = "needs the longest hoist_block to be a multiple of 16, as its own";
    if (why != nullptr) return Error(fmt::format("layers[{}].hoist_ahead=true: {}", layer, why));
  }
  return {};
}

std::string Program::to_text() const {
  std::string out =
      whole_sequence ? "for the whole sequence:\n"
                     : (block == 0 ? std::string("for all steps at once:\n")
                                   : fmt::format("for each block of at most {} steps:\n", block));
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const ProgramStep& s = steps[i];
    out += fmt::format("  step {}: layer {} direction {}{} on participants {}..{}", i, s.layer,
                       s.direction, s.reversed ? " (reversed)" : "", s.first,
                       s.first + participants_of_step() - 1);
    if (row_parts > 1) {
      out += fmt::format(", every {} with one of {} parts of the rows",
                         group == 1 ? "one" : fmt::format("group of {}", group), row_parts);
    }
    if (hoisters > 0) {
      out += fmt::format(", hoisted products by all of {} participants", participants);
    }
    if (!s.producers.empty() && participants > 1) {
      out += fmt::format(", after step {}", fmt::join(s.producers, ", "));
    }
    out += "\n";
  }
  return out;
}

}  // namespace deepcpu
