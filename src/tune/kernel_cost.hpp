// SPDX-License-Identifier: Apache-2.0
/// What one participant spends in one call of a kernel: multiply-adds, weights, element-wise work.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "jit/element_ops.hpp"
#include "jit/row_tiles.hpp"
#include "src/lower/lower.hpp"
#include "src/lower/work.hpp"
#include "src/tune/cost_model.hpp"
#include "src/tune/stream_cost.hpp"

namespace deepcpu {

/// What one participant spends in one call of a kernel on `rows` rows.
struct KernelCost {
  double products = 0.0;  ///< seconds
  double gates = 0.0;
  double idle = 0.0;       ///< of these seconds, those in which multiply-adds have to wait
  double stalled = 0.0;    ///< further ones in which those of one row wait for each other
  int exchanges = 0;       ///< after which others read what was stored
  int shared_by_all = 0;   ///< of these, where every participant stores a part: it can be polled
  int acknowledged = 0;    ///< after which others only know that their numbers have been read
  double exchanged = 0.0;  ///< vectors of all rows that are handed over
  double flops = 0.0;      ///< of all participants, without lanes beyond the last unit
  double own_flops = 0.0;  ///< of the busiest one
};

/// How tiles come by their weights: from where they lie, in registers, or those of products ahead,
/// whose panels are not cut and whose reading is not counted here.
enum class Tiles : std::uint8_t { own, resident, ahead };

/// Reading weights once from where they lie.
struct FirstRead {
  double seconds = 0.0;
  double l1_seconds = 0.0;       ///< of these, from the L1 cache
  double far_seconds = 0.0;      ///< of these, beyond the L2 cache
  double far_part = 0.0;         ///< of the weights, 0 to 1
  double fetched_seconds = 0.0;  ///< what far_seconds would be if it lay in the L2 cache
};

/// What a schedule says of register tiles.
struct TileChoice {
  int rows = 1;
  int fetch_lines = LayerSchedule{}.fetch_lines;
  bool cut_panels = true;
};

class KernelCosts {
 public:
  KernelCosts(const StreamCost& streams, const OwnCosts& own, const ModelWork& work, int sharers,
              Panel panel)
      : streams_(streams),
        own_(own),
        isa_(work.isa),
        lanes_(work.lanes),
        sharers_(sharers),
        panel_(panel) {}

  /// Bytes of weights that the busiest participant reads.
  double slice(const KernelWork& kernel) const {
    double bytes = 0.0;
    for (const StageWork& s : kernel.stages) bytes += bytes_of(s);
    return bytes;
  }

  /// How many times as long reading the slice takes from L2 and beyond, as gates that stand between
  /// those of a product are left out.
  double slower(const KernelWork& kernel) const {
    double bytes = 0.0;
    double weighted = 0.0;
    for (const StageWork& s : kernel.stages) {
      for (const ProductWork& p : s.products) {
        const double own = s.product_blocks(p, sharers_) * p.k * p.gates;
        bytes += own;
        weighted += own * streams_.slower(p.gates, p.packed);
      }
    }
    return bytes > 0 ? weighted / bytes : 1.0;
  }

  /// Bytes of one row that the busiest participant reads and writes besides weights; hoisted sums
  /// are among them.
  double row_bytes(const KernelWork& kernel) const {
    double bytes = 0.0;
    for (const StageWork& s : kernel.stages) {
      bytes += blocks_of(s) * s.row_bytes;
      for (const ProductWork& p : s.products) bytes += 4.0 * p.k;
    }
    return bytes;
  }

  /// Vectors of sums that the busiest participant computes of one row.
  double sum_vectors(const KernelWork& kernel) const {
    double sums = 0.0;
    for (const StageWork& s : kernel.stages) {
      for (const ProductWork& p : s.products) {
        sums += s.product_blocks(p, sharers_) * p.gates * p.chains;
      }
    }
    return sums;
  }

  /// `pass`: time to read the slice once from where it lies.
  KernelCost cost(const KernelWork& kernel, double rows, TileChoice tile, const StreamTime& pass,
                  Tiles tiles) const {
    KernelCost out;
    const double all = slice(kernel);
    for (std::size_t i = 0; i < kernel.stages.size(); ++i) {
      const StageWork& s = kernel.stages[i];
      const double share = all > 0 ? bytes_of(s) / all : 0.0;
      const FirstRead first{pass.seconds * share, pass.l1_seconds * share, pass.far_seconds * share,
                            pass.far_part, pass.fetched_seconds * share};
      const double idle = add_products(out, s, rows, tile, first, tiles);
      add_gates(out, s, rows, idle);
      if (rows < 2.0 && sharers_ == 1) {
        out.gates -= early(s, kernel.stages[(i + 1) % kernel.stages.size()]);
      }
      if (!s.exchange) continue;
      ++(s.hands_over ? out.exchanges : out.acknowledged);
      const bool all_store = s.shares(sharers_) >= static_cast<std::uint32_t>(sharers_);
      if (s.hands_over && all_store) ++out.shared_by_all;
      if (s.hands_over) out.exchanged += rows * s.width.blocks;
    }
    return out;
  }

 private:
  double units_of(const StageWork& s) const { return s.panel_units(sharers_, panel_); }
  double blocks_of(const StageWork& s) const { return s.own_blocks(sharers_); }
  double bytes_of(const StageWork& s) const { return s.weight_bytes(lanes_, sharers_); }

  double pieces(const StageWork& s, const ProductWork& p, bool cut) const {
    const double bytes = p.panel_bytes(units_of(s), lanes_);
    return cut && bytes > lower::kWholePanel ? std::ceil(bytes / lower::kPieceOfPanel) : 1.0;
  }

  /// A tile of some rows and a panel of so many unit blocks.
  struct TileShape {
    double units = 1.0;
    double height = 1.0;
    bool cut = false;       ///< as StageWork::cuts()
    bool resident = false;  ///< weights are in registers
    bool last = false;      ///< with the stage's last unit block
  };

  /// Seconds of the multiply-adds of one product and tile, when its weights are in the L1 cache.
  /// Between two pieces its sums are stored and loaded.
  double product_seconds(const StageWork& s, const ProductWork& p, const TileShape& tile) const {
    const double vectors = p.gates * (tile.last ? tile.units - p.saved() : tile.units);
    const double shorter = streams_.vector_seconds() - streams_.half_vector_seconds();
    const double halves = tile.last ? p.half * shorter : 0.0;
    const double fma = tile.height * p.k * (vectors * streams_.vector_seconds() - halves);
    const double loads = tile.resident ? 0.0 : vectors * p.k * streams_.load_seconds();
    const double chain = static_cast<double>(p.k) / p.chains * streams_.cycles(jit::kStepLatency);
    const double kept = (pieces(s, p, tile.cut) - 1.0) * tile.height * vectors;
    return std::max({fma, loads, chain}) + streams_.cycles(kept) +
           pieces(s, p, tile.cut) * streams_.cycles(own_.tile_cycles);
  }

  double tile_seconds(const StageWork& s, const TileShape& tile) const {
    double seconds = 0.0;
    for (const ProductWork& p : s.products) seconds += product_seconds(s, p, tile);
    return seconds;
  }

  /// Of these seconds, those that panels lose that were cut lower than narrow ones for an even
  /// division: an accumulator waits for itself where four would not. Products ahead fill them: of a
  /// gru i96h96 on two threads, with panels of three sums, they take 0.94 of the time without.
  double stalled_seconds(const StageWork& s) const {
    if (units_of(s) >= s.width.narrow) return 0.0;
    double seconds = 0.0;
    for (const ProductWork& p : s.products) {
      const double missing = jit::kStepLatency - units_of(s) * p.gates * p.chains;
      seconds += std::max(0.0, missing) * p.k / p.chains * streams_.vector_seconds();
    }
    return std::ceil(blocks_of(s) / units_of(s)) * seconds;
  }

  /// As tile_seconds(), of all panels. The last one may have fewer unit blocks; its sums wait as
  /// long.
  double tiles_seconds(const StageWork& s, TileShape tile) const {
    const double blocks = blocks_of(s);
    tile.units = units_of(s);
    const double full = std::ceil(blocks / tile.units) - 1.0;
    const double seconds = full * tile_seconds(s, tile);
    tile.units = blocks - full * tile.units;
    tile.last = s.busiest_has_last(sharers_);
    return seconds + tile_seconds(s, tile);
  }

  /// Reading from L1, and from beyond it.
  struct Reading {
    double l1 = 0.0;
    double beyond = 0.0;
  };

  /// A further tile reads a panel again: what is cut into pieces from where those fit, the rest
  /// from where the panel does.
  Reading again(const StageWork& s, bool cut) const {
    double panel = 0.0;
    for (const ProductWork& p : s.products) panel += p.panel_bytes(units_of(s), lanes_);
    Reading out;
    for (const ProductWork& p : s.products) {
      const double panels = s.product_blocks(p, sharers_) / units_of(s);
      const double bytes = p.panel_bytes(units_of(s), lanes_);
      const double walked = pieces(s, p, cut) > 1.0 ? lower::kPieceOfPanel : panel;
      double& seconds = streams_.in_l1(walked) ? out.l1 : out.beyond;
      seconds += panels * bytes / walked * streams_.reread_seconds(walked);
    }
    return out;
  }

  /// Multiply-adds of tiles of so many rows, and the reading of their weights. Loads from L1 are
  /// among what multiply-adds take. Beside several rows both hinder each other, less where the
  /// machine hides one beside the other. Zen 4, 35 problems of several rows: with kHidden 0, 0.5,
  /// 0.7, 0.85 and 1 the rank correlation is 0.868, 0.895, 0.895, 0.895 and 0.892, and with 1 two
  /// are chosen 14 and 17 % too slow.
  double both(double compute, const Reading& read, double height) const {
    const double longer = std::max(compute, read.l1 + read.beyond);
    if (height < 2.0) return longer;
    const double e = own_.beside;
    const double hindered = std::pow(std::pow(compute, e) + std::pow(read.beyond, e), 1.0 / e);
    constexpr double kHidden = 0.7;
    const double hidden = kHidden * std::clamp(streams_.overlap(), 0.0, 1.0);
    return longer + (1.0 - hidden) * std::max(0.0, hindered - longer);
  }

  /// The first tile of a panel reads it from where it lies. The prefetcher follows the stream, but
  /// what comes from beyond L2 and the rest take their own time each.
  struct FirstTile {
    double seconds = 0.0;
    double waits = 0.0;  ///< of these, for several rows: what would be saved if all lay in L2
  };

  FirstTile first_tile(double compute, const FirstRead& first, double height) const {
    const double far = first.far_part * compute;
    const Reading near{first.l1_seconds, first.seconds - first.l1_seconds - first.far_seconds};
    const double of_near = both((1.0 - first.far_part) * compute, near, height);
    if (height < 2.0) return {std::max(far, first.far_seconds) + of_near, 0.0};
    const double fetched = both(far, {0.0, first.fetched_seconds}, height);
    const double waits = std::max(0.0, first.far_seconds - fetched);
    return {fetched + waits + of_near, waits};
  }

  /// Part of a panel that is there when it is read, if tiles together ask for so many lines in four
  /// steps over k (as lower::set_fetch). The first one asks, too, but for what arrives behind the
  /// lines that it waits for: with 5 of 16 lines three tiles leave a third of the panel to wait
  /// for.
  double fetched(const StageWork& s, double lines) const {
    double most = 0.0;
    for (const ProductWork& p : s.products) {
      if (p.gates < p.packed) return 0.0;
      most = std::max(most, 4.0 * p.gates * units_of(s));
    }
    return std::min(1.0, lines / most);
  }

  /// Returns the seconds in which the core waits for weights and could compute something else.
  double add_products(KernelCost& out, const StageWork& s, double rows, TileChoice tile,
                      const FirstRead& first, Tiles kind) const {
    if (s.products.empty()) return 0.0;
    const std::uint32_t height =
        std::min(static_cast<std::uint32_t>(tile.rows), s.highest_tile(isa_, sharers_, panel_));
    const bool resident = kind == Tiles::resident;
    const bool cut =
        kind == Tiles::own && tile.cut_panels && s.cuts(static_cast<std::uint64_t>(rows), height);
    const Reading reading = resident ? Reading{} : again(s, cut);
    bool started = resident;
    FirstTile start;
    double idle = 0.0;
    double seconds = 0.0;
    double tiles = 0.0;
    jit::each_tile(static_cast<std::uint64_t>(rows), height,
                   [&](std::uint64_t high, std::uint64_t n) {
                     const auto h = static_cast<double>(high);
                     const auto count = static_cast<double>(n);
                     const double compute = tiles_seconds(s, {1.0, h, cut, resident});
                     double all = 0.0;
                     if (!started) start = first_tile(compute, first, h);
                     if (!started) all += start.seconds;
                     const double turns = kind == Tiles::ahead ? 1.0 : h;
                     all += (count - (started ? 0 : 1)) * both(compute, reading, turns);
                     // Beside several rows nothing else runs meanwhile.
                     if (h >= 2.0) tiles += count;
                     if (h < 2.0) idle += all - count * compute;
                     if (h < 2.0 && !resident) out.stalled += count * stalled_seconds(s);
                     seconds += all;
                     started = true;
                   });
    if (tiles >= 2.0) {
      const double others = first.far_part * (seconds - start.seconds);
      const double there = fetched(s, tile.fetch_lines * (tiles - 1.0));
      seconds -= own_.fetch_hidden * there * std::min(start.waits, others);
    }
    out.products += seconds;
    for (const ProductWork& p : s.products) {
      const double flops = 2.0 * rows * s.multiply_adds(p);
      out.flops += flops;
      out.own_flops += flops * std::min(1.0, blocks_of(s) * lanes_ / s.outputs);
    }
    return idle;
  }

  /// Seconds of the `next` stage's products with x that run while `s` waits for its last results:
  /// they need nothing of it.
  double early(const StageWork& s, const StageWork& next) const {
    if (next.products.empty() || !next.products.front().of_input) return 0.0;
    const double units = std::min(blocks_of(next), units_of(next));
    const double seconds = product_seconds(next, next.products.front(), {units, 1.0, false, false});
    const double last = std::min(blocks_of(s), units_of(s));
    const double wait = streams_.cycles(s.latency_cycles) - last * element_seconds(s);
    return std::clamp(wait, 0.0, seconds);
  }

  /// Element-wise work of one unit block and row.
  double element_seconds(const StageWork& s) const {
    const double division = streams_.cycles(own_.division_cycles * lanes_ / 16.0);
    return std::max(s.vectors * streams_.vector_seconds(), s.divisions * division) +
           s.row_bytes * streams_.load_seconds() / (4.0 * lanes_);
  }

  /// Element-wise work of one panel runs while the weights of the next are on their way: `idle`
  /// seconds of it cost nothing.
  void add_gates(KernelCost& out, const StageWork& s, double rows, double idle) const {
    const double one = element_seconds(s);
    const double blocks = blocks_of(s);
    const double last = std::min(blocks, units_of(s));
    // The last panel's results are waited for: one unit block's instructions fit into that time,
    // and those of the others where two start per cycle by half (Zen 4, which starts one: wide
    // panels of lstm i64h64 1.03 of narrow ones; an Emerald Rapids gains by them).
    const double busy = (rows * blocks - last) * one;
    const double latency = streams_.cycles(s.latency_cycles);
    out.gates += std::max(0.0, busy - idle);
    out.idle += std::max(0.0, idle - busy);
    const double alone = std::min(1.0, streams_.vector_seconds() / streams_.cycles(1.0));
    out.gates += std::max(latency, one) + alone * (last - 1.0) * one;
    // Sums that are only stored leave the registers straight to their rows.
    if (rows > 1 && s.vectors > 0) {
      out.gates += rows * blocks / units_of(s) * streams_.cycles(own_.row_cycles);
    }
    // With one row, those of the others are waited for in part.
    const double others = rows > 1 ? 0.0 : std::ceil(blocks / units_of(s)) - 1.0;
    const double exposed = streams_.cycles(own_.exposed_latency * others * s.latency_cycles);
    out.gates += exposed;
    out.idle += exposed;
    out.gates += streams_.cycles(own_.stage_cycles);
  }

  const StreamCost& streams_;
  const OwnCosts& own_;
  Isa isa_;
  std::uint32_t lanes_;
  int sharers_;
  Panel panel_;
};

}  // namespace deepcpu
