// SPDX-License-Identifier: Apache-2.0
#include "src/schedule/space.hpp"

#include <algorithm>
#include <numeric>

#include "src/schedule/check.hpp"

namespace deepcpu {
namespace {

/// Steps per hoisted block are powers of two up to this: W is read once per block, so a block twice
/// as long saves at most half of what is left of that, and longer ones save nothing one can time.
constexpr int kMostBlock = 1024;
/// Rows of the highest register tile.
constexpr int kHighestTile = 6;

// Figures of the pruning rules; `bench/cost_model --pruning` shows what they lose.
/// Fewest and most rows (steps x batch) of a hoisted block.
constexpr std::int64_t kFewestBlockRows = 8;
constexpr std::int64_t kMostBlockRows = 256;
/// Lowest register tile of hoisted products: lower ones read W from the cache more often.
constexpr int kLowestHoistTile = 4;
/// A sweep turns round by single panels, or by groups of this part of a cache.
constexpr std::uint64_t kGroupShare = 4;

template <class T>
int int_of(T n) {
  return static_cast<int>(n);
}

std::vector<int> powers_of_two(int most) {
  std::vector<int> out;
  for (int n = 1; n <= most; n *= 2) out.push_back(n);
  return out;
}

/// Whether code is emitted for a decision, by the one list of those that are not.
bool emitted(const Schedule& probe) {
  Schedule s = probe;
  if (s.layers.empty()) s.layers.emplace_back();
  return check_schedule(s).ok();
}

}  // namespace

ScheduleSpace::ScheduleSpace(const ModelWork& work, const MachineModel& machine, int threads)
    : work_(&work), machine_(&machine), cap_(std::max(threads, 1)) {}

std::vector<ScheduleSpace::Global> ScheduleSpace::globals(int rules) const {
  std::vector<Global> out;
  Schedule data;
  data.threads = 2;
  data.exchange = Exchange::data;
  const bool polls_data = emitted(data);
  for (int threads = 1; threads <= cap_; ++threads) {
    const bool power = (threads & (threads - 1)) == 0;
    if (rules > kThreads && !power && threads != cap_) continue;
    const auto add = [&](Parallel parallel, int groups) {
      if (groups > threads || threads % groups != 0) return;
      const int sharers = threads / groups;
      out.push_back({threads, parallel, Exchange::flag, sharers});
      if (sharers > 1 && polls_data) out.push_back({threads, parallel, Exchange::data, sharers});
    };
    add(Parallel::none, 1);
    if (threads > 1 && work_->spec.directions() == 2) add(Parallel::directions, 2);
    const int layers = work_->spec.layers();
    if (threads > 1 && layers > 1) add(Parallel::wavefront, std::min(layers, threads));
  }
  return out;
}

std::vector<int> ScheduleSpace::tile_heights(std::size_t layer, int rules) const {
  std::uint32_t most = 1;
  for (const StageWork& s : work_->layers[layer].step[1][1].stages) {
    most = std::max(most, s.most_tile_rows);
  }
  const int batch = int_of(work_->spec.batch);
  const int highest = std::min({kHighestTile, int_of(most), batch});
  std::vector<int> out;
  for (int h = 1; h <= highest; ++h) {
    // The lowest of those that make the same number of tiles is the most even.
    const bool fewer = h == 1 || (batch + h - 1) / h < (batch + h - 2) / (h - 1);
    const bool last_three = (batch + h - 1) / h <= (batch + highest - 1) / highest + 2;
    if (rules <= kTile || (fewer && last_three)) out.push_back(h);
  }
  return out;
}

std::vector<int> ScheduleSpace::hoist_blocks(std::size_t layer, int rules) const {
  std::vector<int> out = {0};
  if (work_->layers[layer].hoist.stages.empty()) return out;
  for (const int n : powers_of_two(kMostBlock)) {
    const std::int64_t rows = n * work_->spec.batch;
    const bool fits =
        (rows >= kFewestBlockRows && rows <= kMostBlockRows) || (n == 1 && rows > kMostBlockRows);
    if (rules <= kBlock || fits) out.push_back(n);
  }
  return out;
}

void ScheduleSpace::add_sweeps(std::vector<Layer>& out, Layer base, std::size_t layer, int sharers,
                               int rules) const {
  const LayerWork& work = work_->layers[layer];
  const KernelWork& kernel = work.step[base.hoist_block > 0][base.fuse_gates];
  const double panel = kernel.weight_bytes / std::max(1U, work.panels);
  const int panels = (int_of(work.panels) + sharers - 1) / sharers;
  base.group = 1;
  base.sweep = Sweep::forward;
  if (rules <= kSweep || panels == 1) out.push_back(base);
  if (rules > kSweep && panels == 1) return;
  base.sweep = Sweep::alternating;
  for (const int group : powers_of_two(std::max(1, int_of(work.panels)))) {
    bool useful = group == 1;
    for (std::size_t level = 0; level < 2; ++level) {
      const double part = static_cast<double>(
          machine_->usable_bytes(work_->isa, level, true, sharers) / kGroupShare);
      useful = useful || (group * panel <= part && 2 * group * panel > part);
    }
    if (rules > kSweep && (!useful || group >= panels)) continue;
    base.group = group;
    out.push_back(base);
  }
}

std::vector<LayerSchedule> ScheduleSpace::layer_choices(std::size_t layer, const Global& g,
                                                        int rules) const {
  const LayerWork& work = work_->layers[layer];
  std::vector<Layer> out;
  for (const int block : hoist_blocks(layer, rules)) {
    for (const bool fused : {true, false}) {
      if (!fused && (rules > kFused || work.one_gate_stages)) continue;
      for (const int rows : tile_heights(layer, rules)) {
        for (int hoist = block > 0 ? kHighestTile : 1; hoist >= 1; --hoist) {
          if (rules > kHoistTile && block > 0 && hoist < kLowestHoistTile) continue;
          Layer l;
          l.hoist_block = block;
          l.fuse_gates = fused;
          l.tile_rows = rows;
          l.hoist_rows = hoist;
          add_sweeps(out, l, layer, g.sharers, rules);
          if (!work.fits_registers || g.threads > 1 || block == 0 || !fused) continue;
          l.sweep = Sweep::forward;
          l.weights = Residency::registers;
          out.push_back(l);
        }
      }
    }
  }
  return out;
}

Schedule ScheduleSpace::start(const Global& g) const {
  Schedule s;
  s.isa = work_->isa;
  s.threads = g.threads;
  s.parallel = g.parallel;
  s.exchange = g.exchange;
  s.layers.resize(work_->layers.size());
  return s;
}

Count ScheduleSpace::size(int rules) const {
  Count all(0);
  for (const Global& g : globals(rules)) {
    if (rules > kAlike) {
      Schedule s = start(g);
      std::uint64_t n = 0;
      visit_alike(s, g, rules, [&](const Schedule&) { return ++n > 0; });
      all += Count(n);
      continue;
    }
    Count product(1);
    for (std::size_t l = 0; l < work_->layers.size(); ++l) {
      product = product * Count(layer_choices(l, g, rules).size());
    }
    all += product;
  }
  return all;
}

bool ScheduleSpace::visit_layers(Schedule& s, std::size_t layer, const Global& g, int rules,
                                 const std::function<bool(const Schedule&)>& visit) const {
  if (layer == work_->layers.size()) return visit(s);
  for (const Layer& choice : layer_choices(layer, g, rules)) {
    s.layers[layer] = choice;
    if (!visit_layers(s, layer + 1, g, rules, visit)) return false;
  }
  return true;
}

/// Every layer takes the choice of the largest one, as far as it is legal for it.
bool ScheduleSpace::visit_alike(Schedule& s, const Global& g, int rules,
                                const std::function<bool(const Schedule&)>& visit) const {
  std::size_t largest = 0;
  const auto bytes = [&](std::size_t l) { return work_->layers[l].step[0][1].weight_bytes; };
  for (std::size_t l = 1; l < work_->layers.size(); ++l) {
    if (bytes(l) > bytes(largest)) largest = l;
  }
  for (const Layer& choice : layer_choices(largest, g, rules)) {
    for (std::size_t l = 0; l < s.layers.size(); ++l) {
      s.layers[l] = choice;
      if (!work_->layers[l].fits_registers) s.layers[l].weights = Residency::streamed;
    }
    if (!visit(s)) return false;
  }
  return true;
}

bool ScheduleSpace::for_each(const std::function<bool(const Schedule&)>& visit) const {
  for (const Global& g : globals(kRules)) {
    Schedule s = start(g);
    if (!visit_alike(s, g, kRules, visit)) return false;
  }
  return true;
}

bool ScheduleSpace::for_each_valid(const std::function<bool(const Schedule&)>& visit) const {
  for (const Global& g : globals(0)) {
    Schedule s = start(g);
    if (!visit_layers(s, 0, g, 0, visit)) return false;
  }
  return true;
}

Schedule ScheduleSpace::sample(const std::function<std::uint64_t(std::uint64_t)>& next) const {
  // A choice for the model is as likely as it has choices for the layers.
  const std::vector<Global> all = globals(0);
  std::vector<std::vector<std::vector<Layer>>> layers(all.size());
  std::vector<double> weight;
  for (std::size_t i = 0; i < all.size(); ++i) {
    double product = 1.0;
    for (std::size_t l = 0; l < work_->layers.size(); ++l) {
      layers[i].push_back(layer_choices(l, all[i], 0));
      product *= static_cast<double>(layers[i].back().size());
    }
    weight.push_back(product);
  }
  constexpr std::uint64_t kParts = 1U << 30;
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  double left = static_cast<double>(next(kParts)) / static_cast<double>(kParts) * sum;
  std::size_t i = 0;
  while (i + 1 < all.size() && left >= weight[i]) left -= weight[i++];
  Schedule s = start(all[i]);
  for (std::size_t l = 0; l < s.layers.size(); ++l) {
    s.layers[l] = layers[i][l][static_cast<std::size_t>(next(layers[i][l].size()))];
  }
  return s;
}

}  // namespace deepcpu
