// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_check.hpp"

#include <fmt/format.h>

#include <utility>

#include "src/lower/lower.hpp"
#include "src/runtime/program.hpp"
#include "src/schedule/check.hpp"
#include "src/schedule/space.hpp"

namespace deepcpu {
namespace {

Status check_evidence(const WisdomEntry& e) {
  const bool timed = e.measured_us > 0.0;
  if (e.effort && *e.effort != Effort::estimate && !timed) {
    return Error(fmt::format("effort={}: needs measured_us", to_string(*e.effort)));
  }
  if (timed && e.steps == 0) return Error("measured_us: needs steps");
  if (timed && e.rows == 0) return Error("measured_us: needs rows");
  if (!timed && e.spread > 0.0) return Error("spread: needs measured_us");
  if (e.predicted_us > 0.0 && e.steps == 0) return Error("predicted_us: needs steps");
  if (e.rows != 0 && (e.rows < e.key.batch.low || e.rows > e.key.batch.high)) {
    return Error(fmt::format("rows={}: is not in batch={}", e.rows, e.key.batch.text));
  }
  if (e.steps != 0 && (e.steps < e.key.steps.low || e.steps > e.key.steps.high)) {
    return Error(fmt::format("steps={}: is not in key.steps={}", e.steps, e.key.steps.text));
  }
  return {};
}

}  // namespace

Error with_prefix(std::string_view prefix, const Error& error) {
  if (error.kind() == ErrorKind::memory) return error;
  return Error(std::string(prefix) + error.message());
}

Status check_lowering(const ModelSpec& spec, const Schedule& schedule) {
  if (auto st = check_division(spec, schedule); !st) return st;
  const lower::StepGraph graph = lower::StepGraph::build(spec.cell);
  const Program program = Program::build(spec, schedule);
  const lower::Sharing sharing = program.sharing(schedule.exchange);
  lower::Widths last;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    const auto at = static_cast<std::size_t>(layer);
    const lower::Widths widths = lower::widths_of(spec, layer);
    const bool same = layer > 0 && widths == last && schedule.layers[at] == schedule.layers[at - 1];
    if (same) continue;
    last = widths;
    const auto layout = lower::PackLayout::build(spec.cell, graph, widths,
                                                 static_cast<std::uint32_t>(lanes(schedule.isa)));
    const auto rows = static_cast<std::uint32_t>(program.part_rows(spec.batch));
    const auto plans = lower::lower_layer(
        {spec.cell, graph, widths, layout, schedule.layers[at], schedule.isa, rows, sharing},
        "check");
    if (!plans) return with_prefix(fmt::format("layers[{}].", layer), plans.error());
  }
  return {};
}

Status check_entry(const WisdomEntry& entry, std::size_t layers) {
  const Schedule& s = entry.schedule;
  if (auto status = check_schedule(s, layers); !status) {
    return with_prefix("schedule.", status.error());
  }
  if (s.threads > entry.key.threads) {
    return Error(fmt::format("schedule.threads={}: must be at most key.threads={}", s.threads,
                             entry.key.threads));
  }
  if (entry.key.isa && s.isa > *entry.key.isa) {
    return Error(fmt::format("schedule.isa={}: must be at most key.isa={}", to_string(s.isa),
                             to_string(*entry.key.isa)));
  }
  for (std::size_t l = 0; l < s.layers.size(); ++l) {
    if (s.layers[l].hoist_block <= kMostHoistBlock) continue;
    return Error(
        fmt::format("schedule.layers[{}].hoist_block={}: must be at most {}, so that scratch"
                    " stays small",
                    l, s.layers[l].hoist_block, kMostHoistBlock));
  }
  return check_evidence(entry);
}

Result<const FoundCell*> KnownCells::find(const std::string& name, const CellOptions& options,
                                          bool projection) {
  std::string key = name + (projection ? "\np" : "\n");
  for (const auto& [option, value] : options) key += fmt::format("\n{}={}", option, value);
  const auto known = found_.find(key);
  if (known != found_.end()) return &known->second;
  if (!is_known_cell(name)) return static_cast<const FoundCell*>(nullptr);
  auto cell = resolve_cell(name, options, projection);
  if (!cell) return cell.error();
  return &found_.emplace(std::move(key), std::move(*cell)).first->second;
}

}  // namespace deepcpu
