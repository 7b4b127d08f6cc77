// SPDX-License-Identifier: Apache-2.0
/// Limit: the least time that the machine allows for a problem, whatever the schedule.
///
///   limit(n) = sum of hoisted parts  max(FLOPs / F, sum of bytes_l / R_l)
///            + T * max(FLOPs / F, sum of bytes_l / R_l, chain)
///            + T * dependent levels * X                            (n threads share a product)
///
/// F, R_l and X are measured rates with n active cores. bytes_l: a thread's slice of the recurrent
/// weights fills L1 and then L2 up to the capacity of the alternating sweep, the rest comes from
/// further out. FLOPs count sigmoid as 12 and tanh as 13 vector operations. chain: a broadcast
/// load, the FMA latencies of one sum and the latency of the element-wise work. Directions, layers
/// and parts of the batch rows on cores of their own need no X; a part of the rows reads all
/// weights. The limit of a problem is the least over 1..n threads and these forms.
///
/// The sum takes it that hoisted products run by themselves. A schedule with hoist_ahead or
/// parallel=hoist computes them while the time loop waits for weights, and may be faster. What
/// holds for it as well is the floor, with all FLOPs in the loop:
///
///   floor(n) = T * max(all FLOPs / F, sum of bytes_l / R_l, chain) + T * dependent levels * X
#pragma once

#include "src/lower/work.hpp"
#include "src/machine/machine_model.hpp"

namespace deepcpu {

struct Limit {
  double us = 0.0;
  double floor_us = 0.0;
  int threads = 1;  ///< with which it is reached
  /// What it is made of, in microseconds of the run.
  double hoist_us = 0.0;
  double flops_us = 0.0;  ///< of the time loop
  double bytes_us = 0.0;
  double chain_us = 0.0;
  double exchange_us = 0.0;
};

/// The limit of a run of `steps` steps on at most `threads` cores.
Limit limit_of(const ModelWork& work, const MachineModel& machine, double steps, int threads);

}  // namespace deepcpu
