// SPDX-License-Identifier: Apache-2.0
/// ScheduleSpace: every schedule that a problem has on so many threads, as a table of decisions;
/// which of them are valid, which are emitted, and which rules leave out candidates before anything
/// is timed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/schedule.hpp"
#include "src/dag/count.hpp"
#include "src/lower/work.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu {

/// Steps per hoisted block are powers of two up to this: W is read once per block, so a block twice
/// as long saves at most half of what is left of that, and longer ones save nothing one can time.
inline constexpr int kMostHoistBlock = 1024;

/// One decision of the method.
struct SpaceRow {
  std::string name;           ///< as the schedule's JSON spells it
  bool per_layer = false;     ///< taken for every layer
  std::string values;         ///< what it can be
  Count raw = 1;              ///< how many values
  std::uint64_t emitted = 1;  ///< how many of them are legal for this problem and emitted
  std::string reason;         ///< what it is for
  std::string not_emitted;    ///< values that no code is emitted for; empty if there are none
};

/// The candidates that are left when a rule has been applied after all rules before it.
struct PrunedSize {
  std::string rule;
  std::string may_lose;  ///< what a better schedule would look like that the rule leaves out
  Count size;
};

/// How large a space is.
struct SpaceSizes {
  std::vector<SpaceRow> rows;
  Count raw;  ///< all combinations of all rows
  /// Those that contradict neither themselves nor the problem, mean different things, and are
  /// emitted. How long the code of a large cell gets shows only when it is.
  Count valid;
  std::vector<PrunedSize> pruned;  ///< after each pruning rule, in the order in which they apply
};

class ScheduleSpace {
 public:
  /// `threads` is the cap, and `work` has been made for as many. `work` and `machine` must outlive
  /// the space.
  ScheduleSpace(const ModelWork& work, const MachineModel& machine, int threads);

  SpaceSizes sizes() const;

  /// Visits the schedules that all pruning rules leave; stops when `visit` returns false.
  bool for_each(const std::function<bool(const Schedule&)>& visit) const;
  /// Visits all valid ones. Their number grows with a power of the number of layers.
  bool for_each_valid(const std::function<bool(const Schedule&)>& visit) const;
  /// One of the valid schedules; all are equally likely when `next(n)` draws evenly from 0..n-1.
  Schedule sample(const std::function<std::uint64_t(std::uint64_t)>& next) const;

 private:
  using Layer = LayerSchedule;
  /// Decisions for the whole model.
  struct Global {
    int threads;
    Parallel parallel;
    Exchange exchange;
    int split_rows;
    int sharers;  ///< participants that share a product of their rows
  };
  enum Rule : int { kAlike, kFused, kHoistTile, kTile, kBlock, kAhead, kSweep, kThreads, kRules };

  std::vector<SpaceRow> rows() const;
  /// Decisions for the whole model, and those for a layer.
  std::vector<SpaceRow> model_rows() const;
  std::vector<SpaceRow> layer_rows() const;
  /// Whether Parallel::hoist is legal.
  bool may_share_hoist() const;
  /// Shares of the layer with the most, if so many share it: no more threads find one.
  int most_shares(int sharers) const;
  std::vector<Global> globals(int rules) const;
  std::vector<Layer> layer_choices(std::size_t layer, const Global& g, int rules) const;
  /// Adds the choices of panels, and for each of sweeps and of weights in registers, to `base`.
  void add_panels(std::vector<Layer>& out, Layer base, const LayerWork& work, const Global& g,
                  int rules) const;
  void add_sweeps(std::vector<Layer>& out, Layer base, const LayerWork& work, int sharers,
                  int rules) const;
  /// LayerSchedule::fetch_lines for the other decisions of `choice`.
  int fetch_lines(const LayerWork& work, const Layer& choice, std::int64_t rows,
                  const Global& g) const;
  /// LayerSchedule::cut_panels, alike; true where nothing would be cut.
  bool cuts_panels(const LayerWork& work, const Layer& choice, std::int64_t rows,
                   const Global& g) const;
  std::vector<int> tile_heights(const KernelWork& kernel, std::int64_t rows, int sharers,
                                int rules) const;
  /// Highest first: of hoisted products.
  static std::vector<int> hoist_heights(const ModelWork& work, std::size_t layer, int block,
                                        int sharers, int rules);
  static std::vector<int> hoist_blocks(const ModelWork& work, std::size_t layer, int rules);
  /// Whether the layer can; where all layers decide alike, whether any of them can.
  bool fits_ahead(std::size_t layer, const Layer& choice, int sharers, int rules) const;
  /// Adds the choices that compute the hoisted sums of the next block ahead to those that do not.
  void add_ahead(std::vector<Layer>& out, std::size_t layer, int sharers, int rules) const;
  Count size(int rules) const;
  bool visit_layers(Schedule& s, std::size_t layer, const Global& g, int rules,
                    const std::function<bool(const Schedule&)>& visit) const;
  std::size_t largest_layer() const;
  /// The choice of another layer, as far as it is legal for this one.
  Layer as_legal(Layer choice, std::size_t layer, const Global& g) const;
  /// Every layer takes the choice of the largest one, as far as it is legal for it.
  bool visit_alike(Schedule& s, const Global& g, int rules,
                   const std::function<bool(const Schedule&)>& visit) const;
  Schedule start(const Global& g) const;

  const ModelWork* work_;
  const MachineModel* machine_;
  int cap_;
};

/// The table and the sizes as text for people.
std::string to_text(const SpaceSizes& sizes, int layers);

}  // namespace deepcpu
