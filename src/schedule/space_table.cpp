// SPDX-License-Identifier: Apache-2.0
/// The table of a ScheduleSpace: its rows, its sizes, its text.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "src/dag/matmul_dag.hpp"
#include "src/dag/phases.hpp"
#include "src/schedule/space.hpp"

namespace deepcpu {
namespace {

/// Steps of a block that no register tile is too high for.
constexpr int kLongBlock = 1024;

/// What each pruning rule leaves out, in the order of ScheduleSpace::Rule.
struct RuleText {
  std::string_view rule;
  std::string_view may_lose;
};
constexpr RuleText kRuleTexts[] = {
    {"all layers decide alike",
     "a stack whose layers differ much in size and would each want blocks or tiles of their own"},
    {"gates are fused", "nothing known: unfused gates read the same bytes in more loops"},
    {"register tiles of hoisted products have 4 rows or more",
     "a block with few rows that lower tiles divide evenly"},
    {"of the tile heights that make equally many tiles the lowest, and no more than two tiles "
     "beyond the least",
     "a low tile that leaves more registers to a large epilogue"},
    {"hoisted blocks have 8 to 256 rows (steps x batch)",
     "a block of so few rows that hoisted sums stay in the L1 cache beside U"},
    {"hoisted sums are computed ahead in blocks of 16 steps at most, the first one in the highest "
     "tiles",
     "a W that the last level does not hold beside U, but does serve often enough"},
    {"sweeps alternate, by single panels or by groups of a quarter of L1 or L2",
     "a group size between"},
    {"thread counts are powers of two, all, or one per share of units or row, and none is without "
     "units",
     "a count between, where the shares divide evenly by it"},
};

/// Ways to write n as a product of three factors in order.
std::uint64_t factorings(int n) {
  std::uint64_t ways = 0;
  for (int a = 1; a <= n; ++a) {
    for (int b = 1; n % a == 0 && b <= n / a; ++b) ways += n / a % b == 0 ? 1U : 0U;
  }
  return ways;
}

bool fits_registers(const LayerWork& layer) {
  bool any = false;
  for (const LayerWork::Fits* fits : {&layer.narrow, &layer.wide}) {
    for (const auto& forms : fits->registers) any = any || forms[0] || forms[1];
  }
  return any;
}

/// For one participant, whose panels are the first to get wider.
bool widens(const LayerWork& layer) {
  bool any = false;
  for (const bool hoisted : {false, true}) {
    for (const bool fused : {false, true}) any = any || layer.widens(hoisted, fused, 1);
  }
  return any;
}

}  // namespace

std::vector<SpaceRow> ScheduleSpace::model_rows() const {
  std::uint64_t cuts = 0;
  for (int n = 1; n <= cap_; ++n) cuts += factorings(n);
  std::uint64_t splits = 0;
  for (int n = 1; n <= cap_; ++n) {
    for (int rows = 1; rows <= std::min<std::int64_t>(n, work_->spec.batch); ++rows) {
      splits += n % rows == 0 ? 1U : 0U;
    }
  }
  const auto cap = static_cast<std::uint64_t>(cap_);
  const std::uint64_t many = cap_ > 1 ? 2 : 1;
  const std::uint64_t ways = cap_ > 1 ? 5 : 1;
  const bool two_ways = work_->spec.directions() == 2;
  const bool side_by_side = cap_ > 1 && (two_ways || work_->spec.layers() > 1);
  const bool hoists = cap_ > 1 && may_share_hoist();
  return {
      {"threads", false, fmt::format("1..{}", cap_), cap, cap,
       "more caches, but mostly an exchange per step", ""},
      {"parallel", false, "none directions wavefront gates hoist", ways,
       1U + (side_by_side ? 1U : 0U) + (hoists ? 1U : 0U),
       "which parts run side by side: directions, layers of one direction, or x·W of later blocks "
       "beside the time loop",
       "gates"},
      {"split_rows x units x split_k", false, fmt::format("{} partitions Xi*Xj*Xk", cuts), cuts,
       splits, "which part of a product a participant computes", "split_k > 1"},
      {"exchange", false, "flag data", many, many, "how h travels between cores", ""},
      {"start", false, "zero own", many, 1, "what to compute while h travels (order=free)", "own"},
  };
}

std::vector<SpaceRow> ScheduleSpace::layer_rows() const {
  const LayerWork& first = work_->layers.front();
  const bool hoists = !first.hoist.stages.empty();
  const auto phases = count_schedules(MatmulDag::build(work_->spec.cell));
  const Count any_phases = phases && !phases->is_zero() ? *phases : Count(1);
  std::size_t tiles = 1;
  for (const auto& forms : first.step) {
    for (const KernelWork& form : forms)
      tiles = std::max(tiles, tile_heights(form, work_->spec.batch, 1, 0).size());
  }
  const bool registers = fits_registers(first);
  const std::size_t hoist_tiles = hoists ? hoist_heights(*work_, 0, kLongBlock, 1, 0).size() : 1;
  const std::size_t blocks = hoist_blocks(*work_, 0, 0).size();
  const bool wide = widens(first);
  bool ahead = false;
  for (const auto* fits : {&first.narrow, &first.wide}) {
    for (const std::vector<bool>& fit : fits->ahead) {
      ahead = ahead || std::find(fit.begin(), fit.end(), true) != fit.end();
    }
  }
  const std::uint64_t gates = first.one_gate_stages ? 1 : 2;
  const std::uint32_t panels = first.panels(1, Panel::narrow);
  const auto groups = static_cast<std::uint64_t>(std::bit_width(panels));
  // A group of all panels is walked as if there were none.
  const auto useful_groups = static_cast<std::uint64_t>(std::bit_width(std::max(panels - 1, 1U)));
  return {
      {"phases", true, "valid phased schedules of the MM-DAG", any_phases, hoists ? 2U : 1U,
       "which products are computed together and when",
       "hoisting whole sequences or single classes; products of x in a phase of their own"},
      {"fuse_gates", true, gates > 1 ? "true false" : "true", gates, gates,
       "one product for all gates of an operand", ""},
      {"hoist_block", true, hoists ? "0 and 1..1024 in powers of two" : "0", blocks, blocks,
       "W is read once per block instead of once per step", ""},
      {"hoist_ahead", true, ahead ? "false true" : "false", 2, ahead ? 2U : 1U,
       "the next block's x·W runs while the core waits for U",
       ahead ? "" : "true: AVX-512, batch 1, x known beforehand, not much more W than U"},
      {"tile_rows", true, fmt::format("1..{}", tiles), tiles, tiles,
       "weights are read once per register tile of batch rows", ""},
      {"hoist_rows", true, fmt::format("1..{}", hoist_tiles), hoist_tiles, hoist_tiles,
       "the same for hoisted products", ""},
      {"fetch_lines", true, "by tiles and rates", 1, 1,
       "weights that the next tiles need arrive while one multiplies", ""},
      {"cut_panels", true, "by the machine's overlap", 1, 1,
       "further tiles of rows read a piece of a panel from L1", ""},
      {"panel", true, wide ? "narrow wide" : "narrow", 2, wide ? 2U : 1U,
       "four sums at a time, or eight for two multiply-adds per cycle",
       wide ? "" : "wide: more than one row, or no panel gets wider"},
      {"sweep", true, "forward alternating", 2, panels > 1 ? 2U : 1U,
       "what the cache still holds is read first", ""},
      {"group", true, "panels in powers of two", groups, useful_groups,
       "which cache level the sweep turns at", ""},
      {"weights", true, "streamed registers", 2, registers ? 2U : 1U,
       "tiny cells keep their weights in registers",
       registers ? "" : "registers: too many weights or more than one row"},
  };
}

std::vector<SpaceRow> ScheduleSpace::rows() const {
  std::vector<SpaceRow> out = model_rows();
  for (SpaceRow& row : layer_rows()) out.push_back(std::move(row));
  return out;
}

SpaceSizes ScheduleSpace::sizes() const {
  SpaceSizes out;
  out.rows = rows();
  Count layer(1);
  out.raw = Count(1);
  for (const SpaceRow& row : out.rows) {
    Count& product = row.per_layer ? layer : out.raw;
    product = product * row.raw;
  }
  for (std::size_t l = 0; l < work_->layers.size(); ++l) out.raw = out.raw * layer;
  out.valid = size(0);
  for (int rule = 0; rule < kRules; ++rule) {
    const RuleText& text = kRuleTexts[rule];
    out.pruned.push_back({std::string(text.rule), std::string(text.may_lose), size(rule + 1)});
  }
  return out;
}

std::string to_text(const SpaceSizes& sizes, int layers) {
  std::string out = fmt::format("{:<30} {:>8} {:>8}  {}\n", "decision", "values", "emitted", "why");
  for (const SpaceRow& row : sizes.rows) {
    out += fmt::format("{:<30} {:>8} {:>8}  {}\n", row.name + (row.per_layer ? " *" : ""),
                       row.raw.str(), row.emitted, row.reason);
    if (!row.not_emitted.empty())
      out += fmt::format("{:<49} not emitted: {}\n", "", row.not_emitted);
  }
  const auto line = [&](std::string_view what, const Count& size) {
    const std::string digits = size.str();
    out += digits.size() <= 12
               ? fmt::format("{:>14}  {}\n", digits, what)
               : fmt::format("{:>14}  {}\n", fmt::format("10^{:.1f}", size.log10()), what);
  };
  out += fmt::format("* for each of {} layers\n", layers);
  line("schedules, all combinations", sizes.raw);
  line("valid and emitted", sizes.valid);
  for (const PrunedSize& p : sizes.pruned) {
    line(p.rule, p.size);
    out += fmt::format("{:>14}  may lose: {}\n", "", p.may_lose);
  }
  return out;
}

}  // namespace deepcpu
