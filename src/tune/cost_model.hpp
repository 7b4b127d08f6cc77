// SPDX-License-Identifier: Apache-2.0
/// CostModel: how long a run takes under a schedule, from the machine model alone: bytes per cache
/// level, FLOPs, exchange latency and gate work. Nothing is run.
#pragma once

#include <vector>

#include "deepcpu/schedule.hpp"
#include "src/lower/work.hpp"
#include "src/machine/machine_model.hpp"
#include "src/runtime/program.hpp"

namespace deepcpu {

/// Where the time of a run goes, in microseconds of the busiest participant.
struct CostParts {
  double hoist = 0.0;     ///< x·W ahead of the time loop, or what it adds to one that computes it
  double products = 0.0;  ///< products inside the time loop
  double gates = 0.0;     ///< element-wise work, and what follows a product and waits for it
  double exchange = 0.0;  ///< waiting for other participants
  double calls = 0.0;     ///< blocks, calls of kernels, waking helpers
  double total() const { return hoist + products + gates + exchange + calls; }
};

/// FLOPs and bytes of weights of one kind of products, of the busiest participant in a run.
struct Traffic {
  double flops = 0.0;
  std::vector<double> level_bytes;  ///< per level of the machine model, nearest first
};

struct Prediction {
  double us = 0.0;
  CostParts parts;
  /// Participants take panels of each other, and these are small enough for it.
  bool even = false;
  double hoist_share = 1.0;  ///< of the hoisted products, what the busiest participant computes
  double journeys_us = 0.0;  ///< of exchange and calls: journeys of cache lines between cores
  Traffic hoisted;           ///< ahead of the time loop
  Traffic in_loop;           ///< inside of it; with `hoisted` it adds up to level_bytes
  /// Bytes of weights per level of the machine model, nearest first, of the busiest participant.
  std::vector<double> level_bytes;
  double flops = 0.0;  ///< of the products of all participants
};

/// What our own code costs beyond what a machine's rates tell. Set by hand from measured times.
/// `bench_own_costs` shows for each how much worse predictions become with half and with twice of
/// it.
struct OwnCosts {
  /// Cycles around a product of one register tile: pointers, loop control, starting the sums.
  double tile_cycles = 24.0;
  /// Cycles around one row of an epilogue that goes through memory.
  double row_cycles = 12.0;
  /// Cycles of a stage and step: panel order, slots, pointers.
  double stage_cycles = 30.0;
  /// Part of an epilogue's latency that the products of the next panel do not hide.
  double exposed_latency = 0.25;
  /// Of the time that the first tile of several rows waits for weights from beyond L2, the part
  /// that further tiles hide by fetching what comes next, if these take as long.
  double fetch_hidden = 0.8;
  /// Multiply-adds of several rows, m seconds, and reading their weights from L2, r seconds, take
  /// turns at the L1 cache: (m^beside + r^beside)^(1 / beside), between the sum and the longer one;
  /// nearer to the longer one as far as the machine hides one beside the other (both()).
  double beside = 2.5;
  /// Cycles of the division of one 512-bit vector.
  double division_cycles = 10.0;
  /// Transfers of a cache line per exchange: the line of the counter goes to its owner and back,
  /// and the data follow; polled data make one journey less.
  double lines_by_flag = 3.0;
  double lines_by_data = 2.0;
  /// Of the latter, what passes while the first panel of one row multiplies numbers that are there.
  double lines_hidden = 1.0;
  /// Cycles to look at one vector of polled data; to fetch one that a flag stands for. Lines of
  /// many rows come and go at such a rate, since each core reads what the other has just written.
  double poll_cycles = 12.0;
  double gather_cycles = 12.0;
  /// Microseconds to bind and call the kernels of one block, and of one run.
  double block_us = 0.1;
  double call_us = 0.02;
  /// Transfers of a cache line until helpers that still spin have seen a run; the caller sees the
  /// end of each helper by one more.
  double team_lines = 2.0;
};

/// Immutable; predict() may be called by several threads at once.
class CostModel {
 public:
  CostModel(const MachineModel& machine, Isa isa, const OwnCosts& own = {});

  /// `schedule` must be legal for the work's spec. Time of one run over `steps` steps.
  Prediction predict(const ModelWork& work, const Schedule& schedule, double steps) const;

  /// What the busiest participant of each group does by itself (directions and layers on threads
  /// of their own make several groups): without calls, and without waiting for other groups.
  std::vector<CostParts> per_group(const ModelWork& work, const Schedule& schedule,
                                   double steps) const;

  const MachineModel& machine() const noexcept { return *machine_; }

 private:
  std::vector<Prediction> groups(const ModelWork& work, const Schedule& schedule,
                                 const Program& program, double steps) const;

  const MachineModel* machine_;
  Isa isa_;
  OwnCosts own_;
};

}  // namespace deepcpu
