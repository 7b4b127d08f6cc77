// SPDX-License-Identifier: Apache-2.0
#include "src/schedule/space.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "jit/row_tiles.hpp"
#include "src/lower/lower.hpp"
#include "src/schedule/check.hpp"

namespace deepcpu {
namespace {

/// Rows of the highest register tile.
constexpr int kHighestTile = 6;

// Figures of the pruning rules; `bench/cost_model --pruning` shows what they lose.
/// Fewest and most rows (steps x batch) of a hoisted block.
constexpr std::int64_t kFewestBlockRows = 8;
constexpr std::int64_t kMostBlockRows = 256;
/// Lowest register tile of hoisted products: lower ones read W from the cache more often.
constexpr int kLowestHoistTile = 4;
/// Longest block of hoisted sums that are computed ahead: the first block and a last one that is
/// short are computed by themselves, and a longer block leaves more to them.
constexpr int kLongestAhead = 16;
/// A sweep turns round by single panels, or by groups of this part of a cache.
constexpr double kGroupShare = 4.0;

/// Lines that a tile of several rows asks for in four steps over k: what its followers need so that
/// each finds its panel in L2, at most what arrives meanwhile from the level beyond L2, and within
/// these bounds. Experiment: DESIGN, 20.
constexpr double kFewestLines = LayerSchedule{}.fetch_lines;
constexpr double kMostLines = 12.0;

/// Panels are cut unless multiply-adds and reading from L2 hide each other to this part, at least
/// (IsaModel::overlap): then to read a panel again costs less than to keep its sums. Experiment:
/// DESIGN, 25.
constexpr double kHidesReading = 0.9;

template <class T>
int int_of(T n) {
  return static_cast<int>(n);
}

std::vector<int> powers_of_two(int most) {
  std::vector<int> out;
  for (int n = 1; n <= most; n *= 2) out.push_back(n);
  return out;
}

/// Rows of the highest register tile that any of the kernel's stages has room for; a higher one in
/// a schedule means the same. Several rows have narrow panels.
int highest_tile(const KernelWork& kernel, Isa isa, int sharers) {
  std::uint32_t most = 1;
  for (const StageWork& s : kernel.stages) {
    most = std::max(most, s.highest_tile(isa, sharers, Panel::narrow));
  }
  return std::min(kHighestTile, int_of(most));
}

/// Panels of a layer that the busiest of `sharers` participants walks.
int panels_of(const LayerWork& layer, int sharers, Panel panel) {
  return int_of(layer.own_panels(sharers, panel));
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

int ScheduleSpace::most_shares(int sharers) const {
  std::uint32_t most = 1;
  for (const LayerWork& layer : work_->layers) most = std::max(most, layer.shares(sharers));
  return int_of(most);
}

bool ScheduleSpace::may_share_hoist() const {
  return work_->spec.layers() == 1 && work_->spec.directions() == 1 &&
         !work_->layers.front().hoist.stages.empty();
}

std::vector<ScheduleSpace::Global> ScheduleSpace::globals(int rules) const {
  std::vector<Global> out;
  Schedule data;
  data.threads = 2;
  data.exchange = Exchange::data;
  const bool polls_data = emitted(data);
  for (int threads = 1; threads <= cap_; ++threads) {
    const bool power = (threads & (threads - 1)) == 0;
    const bool one_each = threads == most_shares(threads) || threads == work_->spec.batch;
    if (rules > kThreads && !power && threads != cap_ && !one_each) continue;
    const auto divide = [&](Parallel parallel, int each, int parts) {
      const int sharers = each / parts;
      if (rules > kThreads && sharers > most_shares(sharers)) return;
      out.push_back({threads, parallel, Exchange::flag, parts, sharers});
      if (sharers < 2 || !polls_data) return;
      out.push_back({threads, parallel, Exchange::data, parts, sharers});
    };
    const auto add = [&](Parallel parallel, int groups) {
      if (groups > threads || threads % groups != 0) return;
      const int each = threads / groups;
      for (int parts = 1; parts <= std::min<std::int64_t>(each, work_->spec.batch); ++parts) {
        if (each % parts == 0) divide(parallel, each, parts);
      }
    };
    add(Parallel::none, 1);
    if (threads > 1 && work_->spec.directions() == 2) add(Parallel::directions, 2);
    // A layer that is walked both ways has no output before its input is there as a whole: layers
    // of a bidirectional stack cannot lag behind each other.
    const bool one_way = work_->spec.directions() == 1;
    const int layers = work_->spec.layers();
    if (threads > 1 && layers > 1 && one_way) add(Parallel::wavefront, std::min(layers, threads));
    if (threads > 1 && may_share_hoist()) {
      out.push_back({threads, Parallel::hoist, Exchange::flag, 1, 1});
    }
  }
  return out;
}

std::vector<int> ScheduleSpace::tile_heights(const KernelWork& kernel, std::int64_t rows,
                                             int sharers, int rules) const {
  const int batch = int_of(rows);
  const int highest = std::min(highest_tile(kernel, work_->isa, sharers), batch);
  std::vector<int> out;
  for (int h = 1; h <= highest; ++h) {
    // The lowest of those that make the same number of tiles is the most even.
    const bool fewer = h == 1 || (batch + h - 1) / h < (batch + h - 2) / (h - 1);
    const bool last_three = (batch + h - 1) / h <= (batch + highest - 1) / highest + 2;
    if (rules <= kTile || (fewer && last_three)) out.push_back(h);
  }
  return out;
}

std::vector<int> ScheduleSpace::hoist_heights(const ModelWork& work, std::size_t layer, int block,
                                              int sharers, int rules) {
  if (block == 0) return {1};
  const int fit = highest_tile(work.layers[layer].hoist, work.isa, sharers);
  const int highest = int_of(std::min<std::int64_t>(fit, block * work.spec.batch));
  std::vector<int> out;
  for (int h = highest; h >= 1; --h) {
    if (rules <= kHoistTile || h >= std::min(kLowestHoistTile, highest)) out.push_back(h);
  }
  return out;
}

std::vector<int> ScheduleSpace::hoist_blocks(const ModelWork& work, std::size_t layer, int rules) {
  std::vector<int> out = {0};
  if (work.layers[layer].hoist.stages.empty()) return out;
  for (const int n : powers_of_two(kMostHoistBlock)) {
    const std::int64_t rows = n * work.spec.batch;
    const bool fits =
        (rows >= kFewestBlockRows && rows <= kMostBlockRows) || (n == 1 && rows > kMostBlockRows);
    if (rules <= kBlock || fits) out.push_back(n);
  }
  return out;
}

void ScheduleSpace::add_sweeps(std::vector<Layer>& out, Layer base, const LayerWork& work,
                               int sharers, int rules) const {
  const KernelWork& kernel = work.step[base.hoist_block > 0][base.fuse_gates];
  const double panel = kernel.weight_bytes / work.panels(sharers, base.panel);
  const int panels = panels_of(work, sharers, base.panel);
  base.group = 1;
  base.sweep = Sweep::forward;
  if (rules <= kSweep || panels == 1) out.push_back(base);
  // A group of all panels is the forward sweep.
  if (panels == 1) return;
  base.sweep = Sweep::alternating;
  for (const int group : powers_of_two(panels - 1)) {
    bool useful = group == 1;
    for (std::size_t level = 0; level < 2; ++level) {
      const auto usable =
          static_cast<double>(machine_->usable_bytes(work_->isa, level, true, sharers));
      const double part = usable / kGroupShare;
      useful = useful || (group * panel <= part && 2 * group * panel > part);
    }
    if (rules > kSweep && !useful) continue;
    base.group = group;
    out.push_back(base);
  }
}

void ScheduleSpace::add_panels(std::vector<Layer>& out, Layer base, const LayerWork& work,
                               const Global& g, int rules) const {
  const bool hoisted = base.hoist_block > 0;
  for (const Panel panel : {Panel::narrow, Panel::wide}) {
    // Where no panel gets wider both mean the same.
    if (panel == Panel::wide && !work.widens(hoisted, base.fuse_gates, g.sharers)) continue;
    Layer l = base;
    l.panel = panel;
    add_sweeps(out, l, work, g.sharers, rules);
    if (!work.fits(panel).registers[hoisted][l.fuse_gates] || g.threads > 1) continue;
    l.sweep = Sweep::forward;
    l.weights = Residency::registers;
    out.push_back(l);
  }
}

std::vector<LayerSchedule> ScheduleSpace::layer_choices(std::size_t layer, const Global& g,
                                                        int rules) const {
  const ModelWork& part = work_->part(g.split_rows);
  const LayerWork& work = part.layers[layer];
  const auto heights = [&](const KernelWork& kernel) {
    return tile_heights(kernel, part.spec.batch, g.sharers, rules);
  };
  std::vector<Layer> out;
  for (const int block : hoist_blocks(part, layer, rules)) {
    if (block == 0 && g.parallel == Parallel::hoist) continue;
    for (const bool fused : {true, false}) {
      if (!fused && (rules > kFused || work.one_gate_stages)) continue;
      for (const int rows : heights(work.step[block > 0][fused])) {
        for (const int hoist : hoist_heights(part, layer, block, g.sharers, rules)) {
          Layer l;
          l.hoist_block = block;
          l.fuse_gates = fused;
          l.tile_rows = rows;
          l.hoist_rows = hoist;
          add_panels(out, l, work, g, rules);
        }
      }
    }
  }
  if (g.parallel != Parallel::hoist && g.split_rows == 1) add_ahead(out, layer, g.sharers, rules);
  for (Layer& l : out) {
    l.fetch_lines = fetch_lines(work, l, part.spec.batch, g);
    l.cut_panels = cuts_panels(work, l, part.spec.batch, g);
  }
  return out;
}

bool ScheduleSpace::cuts_panels(const LayerWork& work, const Layer& choice, std::int64_t rows,
                                const Global& g) const {
  if (machine_->of(work_->isa).overlap < kHidesReading) return true;
  const auto would_cut = [&](const KernelWork& kernel, Panel panel, std::int64_t all, int height) {
    return std::any_of(kernel.stages.begin(), kernel.stages.end(), [&](const StageWork& s) {
      const auto high = std::min(static_cast<std::uint32_t>(height),
                                 s.highest_tile(work_->isa, g.sharers, panel));
      const double units = s.panel_units(g.sharers, panel);
      return s.cuts(static_cast<std::uint64_t>(all), high) &&
             std::any_of(s.products.begin(), s.products.end(), [&](const ProductWork& p) {
               return p.panel_bytes(units, work_->lanes) > lower::kWholePanel;
             });
    });
  };
  const bool hoisted = choice.hoist_block > 0;
  const KernelWork& step = work.step[hoisted][choice.fuse_gates];
  if (would_cut(step, choice.panel, rows, choice.tile_rows)) return false;
  return !hoisted ||
         !would_cut(work.hoist, Panel::narrow, rows * choice.hoist_block, choice.hoist_rows);
}

int ScheduleSpace::fetch_lines(const LayerWork& work, const Layer& choice, std::int64_t rows,
                               const Global& g) const {
  const Isa isa = work_->isa;
  const KernelWork& step = work.step[choice.hoist_block > 0][choice.fuse_gates];
  const auto l2 = static_cast<double>(machine_->usable_bytes(isa, 1, true, g.threads));
  if (step.weight_bytes / g.sharers <= l2) return int_of(kFewestLines);
  const double line_seconds = 64e-9 / machine_->gbytes_per_s(isa, kBeyondL2, g.threads);
  const double fma_seconds = machine_->fma_seconds(isa, g.threads);
  double most = kFewestLines;
  for (const StageWork& s : step.stages) {
    const auto height = std::min(static_cast<std::uint32_t>(choice.tile_rows),
                                 s.highest_tile(isa, g.sharers, choice.panel));
    const auto all = static_cast<std::uint64_t>(rows);
    const auto tiles = static_cast<double>(jit::tiles_of_several_rows(all, height));
    if (tiles < 2.0) continue;
    for (const ProductWork& p : s.products) {
      const double vectors = 4.0 * p.gates * s.panel_units(g.sharers, choice.panel);
      const double needed = std::ceil(vectors / (tiles - 1.0));
      const double seconds = vectors * static_cast<double>(rows) / tiles * fma_seconds;
      most = std::max(most, std::min(needed, std::floor(seconds / line_seconds)));
    }
  }
  return int_of(std::min(most, kMostLines));
}

bool ScheduleSpace::fits_ahead(std::size_t layer, const Layer& choice, int sharers,
                               int rules) const {
  const auto fits = [&](const LayerWork& l) { return l.fits_ahead(choice, sharers); };
  if (rules <= kAlike) return fits(work_->layers[layer]);
  return std::any_of(work_->layers.begin(), work_->layers.end(), fits);
}

void ScheduleSpace::add_ahead(std::vector<Layer>& out, std::size_t layer, int sharers,
                              int rules) const {
  const auto heights = [&](int block) {
    return hoist_heights(*work_, layer, block, sharers, rules);
  };
  const std::size_t plain = out.size();
  for (std::size_t i = 0; i < plain; ++i) {
    Layer l = out[i];
    const bool legal = fits_ahead(layer, l, sharers, rules) && l.weights == Residency::streamed &&
                       l.hoist_block > 0 &&
                       l.hoist_block % static_cast<int>(lower::kAheadRows) == 0;
    if (!legal) continue;
    // The first block alone is computed by register tiles of hoist_rows.
    const bool likely =
        l.hoist_block <= kLongestAhead && l.hoist_rows == heights(l.hoist_block).front();
    if (rules > kAhead && !likely) continue;
    l.hoist_ahead = true;
    out.push_back(l);
  }
}

Schedule ScheduleSpace::start(const Global& g) const {
  Schedule s;
  s.isa = work_->isa;
  s.threads = g.threads;
  s.parallel = g.parallel;
  s.exchange = g.exchange;
  s.split_rows = g.split_rows;
  s.layers.resize(work_->layers.size());
  return s;
}

std::size_t ScheduleSpace::largest_layer() const {
  std::size_t largest = 0;
  const auto bytes = [&](std::size_t l) { return work_->layers[l].step[0][1].weight_bytes; };
  for (std::size_t l = 1; l < work_->layers.size(); ++l) {
    if (bytes(l) > bytes(largest)) largest = l;
  }
  return largest;
}

Count ScheduleSpace::size(int rules) const {
  Count all(0);
  for (const Global& g : globals(rules)) {
    Count product(1);
    for (std::size_t l = 0; l < work_->layers.size(); ++l) {
      if (rules > kAlike && l != largest_layer()) continue;
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

LayerSchedule ScheduleSpace::as_legal(LayerSchedule choice, std::size_t layer,
                                      const Global& g) const {
  const LayerWork& work = work_->part(g.split_rows).layers[layer];
  if (work.one_gate_stages) choice.fuse_gates = true;
  const bool hoisted = choice.hoist_block > 0;
  const KernelWork& step = work.step[hoisted][choice.fuse_gates];
  const auto highest = [&](const KernelWork& k) { return highest_tile(k, work_->isa, g.sharers); };
  choice.tile_rows = std::min(choice.tile_rows, highest(step));
  if (hoisted) choice.hoist_rows = std::min(choice.hoist_rows, highest(work.hoist));
  if (!work.widens(hoisted, choice.fuse_gates, g.sharers)) choice.panel = Panel::narrow;
  if (choice.group >= panels_of(work, g.sharers, choice.panel)) {
    choice.group = 1;
    choice.sweep = Sweep::forward;
  }
  const LayerWork::Fits& fits = work.fits(choice.panel);
  choice.hoist_ahead = choice.hoist_ahead && work.fits_ahead(choice, g.sharers);
  if (!fits.registers[hoisted][choice.fuse_gates]) choice.weights = Residency::streamed;
  const std::int64_t rows = work_->part(g.split_rows).spec.batch;
  choice.fetch_lines = fetch_lines(work, choice, rows, g);
  choice.cut_panels = cuts_panels(work, choice, rows, g);
  return choice;
}

bool ScheduleSpace::visit_alike(Schedule& s, const Global& g, int rules,
                                const std::function<bool(const Schedule&)>& visit) const {
  const std::size_t largest = largest_layer();
  for (const Layer& choice : layer_choices(largest, g, rules)) {
    for (std::size_t l = 0; l < s.layers.size(); ++l) {
      s.layers[l] = as_legal(choice, l, g);
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
  // A choice for the model is as likely as it has choices for the layers. In logarithms: the
  // product over many layers exceeds any number.
  const std::vector<Global> all = globals(0);
  std::vector<std::vector<std::vector<Layer>>> layers(all.size());
  std::vector<double> weight;
  for (std::size_t i = 0; i < all.size(); ++i) {
    double product = 0.0;
    for (std::size_t l = 0; l < work_->layers.size(); ++l) {
      layers[i].push_back(layer_choices(l, all[i], 0));
      product += std::log(static_cast<double>(layers[i].back().size()));
    }
    weight.push_back(product);
  }
  const double most = *std::max_element(weight.begin(), weight.end());
  for (double& w : weight) w = std::exp(w - most);
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
