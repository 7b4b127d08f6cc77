// SPDX-License-Identifier: Apache-2.0
/// A machine with round figures, for numbers that are worked out by hand.
#pragma once

#include "src/machine/machine_model.hpp"

namespace deepcpu::test {

/// 4 cores at 4 GHz. Per core with AVX-512, however many are active: 128 GFLOP/s (one FMA of 16
/// lanes per cycle), 256 GB/s from 32 KiB of L1 (a vector per cycle), 64 GB/s from 1 MiB of L2,
/// 32 GB/s from 16 MiB of L3 that all share, 8 GB/s from memory; AVX2: half the FLOPs and half the
/// L1 rate. Both sweeps have the same capacity. A line takes 50 ns from core to core.
inline MachineModel round_machine() {
  const auto rate = [](double r) { return CoreRates{r, r, r}; };
  const auto isa = [&](Isa which, double flops, double l1) {
    IsaModel m{which, rate(flops), 0.0, 1.0, {}};
    m.levels = {{"l1", rate(l1), 32 << 10, 32 << 10, 1, true},
                {"l2", rate(64), 1 << 20, 1 << 20, 1, true},
                {"l3", rate(32), 16 << 20, 16 << 20, 4, true},
                {"memory", rate(8), LevelModel::kUnlimited, LevelModel::kUnlimited, 4, true}};
    return m;
  };
  MachineModel m;
  m.key = "round";
  m.note = "round figures";
  m.clock_ghz = 4.0;
  m.cores = 4;
  m.exchange_ns = 50.0;
  m.wake_us = 5.0;
  m.isas = {isa(Isa::avx2, 64, 128), isa(Isa::avx512, 128, 256)};
  return m;
}

}  // namespace deepcpu::test
