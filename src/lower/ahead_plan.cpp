// SPDX-License-Identifier: Apache-2.0
/// The time loop that computes the hoisted products of the next block among its own.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "src/lower/context.hpp"

namespace deepcpu::lower {
namespace {

using jit::KernelPlan;
using jit::Product;
using jit::Stage;

/// Weights are fetched so many steps over k before they are used: the prefetcher follows a stream
/// that leaves out the lines of the other gates less well. Tiles of eight rows, time against the
/// plain form with none, 8, 16, 32 and 64 steps: lstm i128h128 0.91, 0.86, 0.88, 0.90, 0.93;
/// i512h512 0.91, 0.92, 0.89, 0.93, 1.07. Tiles of 16 rows, whose steps take twice as long, with 6,
/// 8, 12 and 24 against 16: lstm i64h64 0.98, 0.99, 0.99, 1.01; i128h128 0.99, 0.99, 1.00, 1.02;
/// i256h256 0.97, 0.98, 0.96, 1.00; with 8 and 12 lstm i512h512t50 1.01 and 1.03, gru 1.00, 0.99.
constexpr std::uint64_t prefetch_steps(std::uint32_t rows) { return rows == kAheadRows ? 16 : 12; }

/// Where the vector of a sum begins in the last unit block, in lanes; absent if it has none there.
std::optional<std::uint64_t> last_vector(const Stage& stage, const Product& p, std::uint32_t sum,
                                         std::uint32_t lanes) {
  for (const jit::Term& term : jit::last_terms(stage, p, lanes)) {
    if (term.sum == sum) return term.lane;
  }
  return std::nullopt;
}

/// Where the sums of a hoisted stage stand. Its epilogue stores each sum, nothing else.
std::vector<AheadSum> sums_of(const BoundPlan& hoist, const Stage& stage) {
  const Product& p = stage.products.front();
  const std::uint64_t lanes = hoist.plan.lanes;
  std::vector<AheadSum> out;
  for (std::size_t g = 0; g < p.gate.size(); ++g) {
    const auto store =
        std::find_if(stage.epilogue.begin(), stage.epilogue.end(), [&](const jit::Instr& i) {
          return i.action == jit::Action::store && stage.epilogue[at(i.a)].gate == p.sum[g];
        });
    AheadSum sum;
    sum.k = p.k;
    sum.chains = p.chains;
    sum.weight_stride = p.gates_packed * lanes * sizeof(float);
    sum.weights = p.weights + p.gate[g] * lanes * sizeof(float);
    sum.block_stride = p.block_stride;
    sum.blocks = unit_blocks(stage.width, hoist.plan.lanes);
    const auto last = stage.keeps_places
                          ? last_vector(stage, p, p.sum[g], hoist.plan.lanes)
                          : std::optional(p.last.empty() ? p.gate[g] * lanes : p.last[g]);
    if (!last) --sum.blocks;
    if (sum.blocks == 0) continue;
    sum.last_weights = p.weights + (sum.blocks - 1) * p.block_stride +
                       last.value_or(p.gate[g] * lanes) * sizeof(float);
    const jit::Sum& start = stage.sums[p.sum[g]];
    if (start.init == jit::Sum::Init::load) {
      sum.init = sum.last_init = start.ref.offset;
      if (stage.keeps_places && last) sum.last_init = stage.places[p.sum[g]].from;
    }
    sum.to = store->ref.offset;
    out.push_back(sum);
  }
  return out;
}

/// Steps over k that a participant with all units does in one time step.
std::uint64_t steps_over_k(const KernelPlan& plan) {
  std::uint64_t steps = 0;
  for (const Stage& s : plan.stages) {
    for (const Product& p : s.products) steps += std::uint64_t{plan.panels(s)} * p.k;
  }
  return steps;
}

Error refused(const std::string& why) { return Error("hoist_ahead=true: " + why); }

/// Registers that the products of one row take for their sums.
std::uint32_t sum_registers(const Stage& stage) {
  std::uint32_t chains = 1;
  for (const Product& p : stage.products) chains = std::max(chains, p.chains);
  return stage.units_per_panel * static_cast<std::uint32_t>(stage.sums.size()) * chains;
}

/// The rules that do not ask what there is to compute.
Status check(const Context& ctx, const LayerPlans& plans) {
  if (!plans.hoist) return refused("needs hoist_block > 0 and products of the input");
  if (ctx.batch != 1) return refused("needs batch 1");
  if (ctx.isa == Isa::avx2) return refused("is not emitted for isa=avx2");
  if (plans.step.plan.weights_in_registers) return refused("needs weights=streamed");
  if (ctx.schedule.hoist_block % static_cast<int>(kAheadRows) != 0) {
    return refused(fmt::format("needs hoist_block to be a multiple of {}", kAheadRows));
  }
  // Two registers broadcast, one holds weights ahead.
  constexpr std::uint32_t kSumRegisters = 32 - 3 - kAheadRows;
  for (const Stage& s : plans.step.plan.stages) {
    if (sum_registers(s) <= kSumRegisters) continue;
    return refused(fmt::format("needs at most {} sums of a panel; stage {} has {}", kSumRegisters,
                               s.name, sum_registers(s)));
  }
  for (const Stage& s : plans.hoist->plan.stages) {
    const bool plain = s.products.size() == 1 && s.products.front().gate.size() == s.sums.size();
    if (!plain) return refused("needs one product of the input per sum");
    const Product& p = s.products.front();
    if (p.chains > 2 || p.k < p.chains) {
      return refused(fmt::format("needs at least {} inputs and at most 2 partial sums", p.chains));
    }
  }
  return {};
}

}  // namespace

Status build_ahead(const Context& ctx, const std::string& name, LayerPlans& plans) {
  if (auto st = check(ctx, plans); !st) return st;
  jit::Ahead ahead;
  std::uint32_t sums = 0;
  for (const Stage& s : plans.step.plan.stages) sums = std::max(sums, sum_registers(s));
  ahead.rows = ahead_rows(ctx.schedule.hoist_block, sums);
  const std::uint32_t inputs = ctx.widths.of(Dim::input);
  // An odd number of cache lines, so that the rows of a tile fall into different cache sets.
  ahead.from_stride = row_bytes(inputs) | 64;
  ahead.to_stride = ctx.hoist.row;
  // Displacements of emitted code.
  if (std::max(ahead.from_stride, ahead.to_stride) * ahead.rows > std::uint64_t{1} << 30) {
    return refused(
        fmt::format("needs {} rows of x and of hoisted sums within 1 GiB each", ahead.rows));
  }
  std::uint64_t beats = 0;  // of a tile of one row
  std::uint64_t gates = 1;  // most that stand side by side
  const auto& stages = plans.hoist->plan.stages;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    gates = std::max<std::uint64_t>(gates, stages[s].products.front().gates_packed);
    for (AheadSum& sum : sums_of(*plans.hoist, stages[s])) {
      sum.stage = s;
      beats += std::uint64_t{sum.blocks} * sum.k;
      plans.ahead_sums.push_back(sum);
    }
  }
  ahead.prefetch = prefetch_steps(ahead.rows) * gates * ctx.layout.lanes * sizeof(float);
  const std::uint64_t steps = steps_over_k(plans.step.plan);
  const std::uint64_t per = steps * ahead.rows;
  if (per == 0) return refused("needs products inside the time loop");
  if (beats > kMostAheadPace * steps * kAheadRows) {
    return refused(
        fmt::format("needs at most {} times as many products of the input as of the "
                    "state",
                    kMostAheadPace));
  }
  const std::uint64_t common = std::gcd(beats, per);
  ahead.beats = static_cast<std::uint32_t>(beats / common);
  ahead.per = static_cast<std::uint32_t>(per / common);
  plans.ahead = plans.step;
  plans.ahead->plan.name = name;
  plans.ahead->plan.ahead = ahead;
  return {};
}

}  // namespace deepcpu::lower
