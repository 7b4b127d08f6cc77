// SPDX-License-Identifier: Apache-2.0
#include "src/tune/limit.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "jit/element_ops.hpp"
#include "src/tune/stream_cost.hpp"

namespace deepcpu {
namespace {

/// Cycles from a broadcast load to its value.
constexpr double kLoadLatency = 5.0;
/// Vector operations that the limit counts for sigmoid and tanh; exp counts as tanh.
constexpr double kSigmoidVectors = 12.0;
constexpr double kTanhVectors = 13.0;

/// What one step of one layer and direction needs at least, of all participants together.
struct StepNeeds {
  double flops = 0.0;
  double bytes = 0.0;
  double chain_cycles = 0.0;
  double levels = 0.0;  ///< dependent levels: stages after which something must be handed over
  double hoist_flops = 0.0;
  double hoist_bytes = 0.0;
};

/// Multiply-adds of the products with the input or of the others, for one row. Lanes beyond the
/// last unit do not count: a layout can leave them out.
double multiply_adds(const StageWork& s, bool input) {
  double sum = 0.0;
  for (const ProductWork& p : s.products) {
    if (p.of_input == input) sum += s.multiply_adds(p);
  }
  return sum;
}

double vectors_of(const OperationCounts& n) {
  return kSigmoidVectors * n.sigmoids + kTanhVectors * n.tanhs + n.others;
}

/// Products of the input are hoisted, gates fused: no other form needs less.
StepNeeds needs_of(const LayerWork& layer, double rows, std::uint32_t lanes) {
  StepNeeds needs;
  const KernelWork& step = layer.step[1][1];
  for (const StageWork& s : step.stages) {
    // An element-wise vector operation takes the place of an FMA, which counts two per lane.
    needs.flops += 2.0 * rows * multiply_adds(s, false);
    needs.bytes += 4.0 * (multiply_adds(s, false) + multiply_adds(s, true));
    needs.flops += rows * s.width.blocks * vectors_of(s.operations) * 2.0 * lanes;
    double terms = 0.0;
    for (const ProductWork& p : s.products) terms += static_cast<double>(p.k) / p.chains;
    needs.chain_cycles += kLoadLatency + terms * jit::kStepLatency + s.latency_cycles;
    if (s.exchange) needs.levels += 1.0;
  }
  for (const StageWork& s : layer.hoist.stages) {
    needs.hoist_flops += 2.0 * rows * multiply_adds(s, true);
    needs.hoist_bytes += 4.0 * multiply_adds(s, true);
  }
  return needs;
}

/// The limit when `sharers` cores of `active` share the units of each product of `layers`.
Limit shared(const std::vector<StepNeeds>& layers, const MachineModel& machine, Isa isa,
             double steps, int sharers, int active) {
  const StreamCost streams(machine, isa, active);
  const double per_flop = 1e-9 / machine.fma_gflops(isa, active) / sharers;
  const auto read = [&](double bytes) {
    Stream s;
    s.bytes = bytes / sharers;
    s.alternating = true;
    return streams.pass(s).seconds;
  };
  Limit out;
  for (const StepNeeds& n : layers) {
    out.hoist_us += 1e6 * std::max(steps * n.hoist_flops * per_flop, read(n.hoist_bytes));
    const double flops = n.flops * per_flop;
    const double bytes = read(n.bytes);
    const double chain = streams.cycles(n.chain_cycles);
    out.flops_us += 1e6 * steps * flops;
    out.bytes_us += 1e6 * steps * bytes;
    out.chain_us += 1e6 * steps * chain;
    out.us += 1e6 * steps * std::max({flops, bytes, chain});
    out.floor_us += 1e6 * steps * std::max({flops + n.hoist_flops * per_flop, bytes, chain});
    if (sharers > 1) out.exchange_us += 1e-3 * steps * n.levels * machine.exchange_ns;
  }
  out.us += out.hoist_us + out.exchange_us;
  out.floor_us += out.exchange_us;
  out.threads = active;
  return out;
}

/// What one core gets of a level that others share changes while it is measured, and an alternating
/// walk can come out with less than one that does not turn round. It finds at least as much: a
/// limit goes by the greater figure.
MachineModel at_its_best(MachineModel machine) {
  for (IsaModel& isa : machine.isas) {
    for (LevelModel& level : isa.levels) {
      if (level.shared_by < 2) continue;
      level.alternating_bytes = std::max(level.alternating_bytes, level.forward_bytes);
    }
  }
  return machine;
}

/// What a limit is asked for: a part of the batch rows of a model on `active` cores in all.
struct Asked {
  const ModelWork& work;
  const MachineModel& machine;
  double steps;
  int active;
  std::vector<StepNeeds> once;  ///< of the layers in one direction
  std::vector<StepNeeds> all;   ///< in all directions

  Asked(const ModelWork& model, const MachineModel& on, double run, double rows, int cores)
      : work(model), machine(on), steps(run), active(cores) {
    for (const LayerWork& layer : work.layers) once.push_back(needs_of(layer, rows, work.lanes));
    for (int d = 0; d < work.spec.directions(); ++d)
      all.insert(all.end(), once.begin(), once.end());
  }

  Limit of(const std::vector<StepNeeds>& layers, int sharers) const {
    return shared(layers, machine, work.isa, steps, sharers, active);
  }
};

/// The least `figure` of the busiest of `groups` ranges of layers, each on `sharers` cores.
template <double Limit::*figure>
Limit wavefront(const Asked& asked, int groups, int sharers) {
  // best[g][l]: layers 0..l-1 on g groups.
  const std::size_t n = asked.once.size();
  const auto range = [&](std::size_t from, std::size_t to) {
    const auto at = [&](std::size_t i) {
      return asked.once.begin() + static_cast<std::ptrdiff_t>(i);
    };
    return asked.of({at(from), at(to)}, sharers);
  };
  std::vector<Limit> best(n + 1);
  for (std::size_t l = 1; l <= n; ++l) best[l] = range(0, l);
  for (int g = 1; g < groups; ++g) {
    for (std::size_t l = n; l > 0; --l) {
      for (std::size_t cut = 1; cut < l; ++cut) {
        const Limit tail = range(cut, l);
        const Limit& worse = tail.*figure > best[cut].*figure ? tail : best[cut];
        if (worse.*figure < best[l].*figure) best[l] = worse;
      }
    }
  }
  return best[n];
}

/// The forms in which `cores` can work on one part: by units, by directions, by layers.
template <class Offer>
void offer_forms(const Asked& asked, int cores, Offer offer) {
  offer(asked.of(asked.all, cores));
  const int directions = asked.work.spec.directions();
  if (directions == 2 && cores % 2 == 0) offer(asked.of(asked.once, cores / 2));
  for (int groups = 2; directions == 1 && groups <= static_cast<int>(asked.once.size()); ++groups) {
    if (cores % groups != 0) continue;
    Limit busiest = wavefront<&Limit::us>(asked, groups, cores / groups);
    busiest.floor_us = wavefront<&Limit::floor_us>(asked, groups, cores / groups).floor_us;
    offer(busiest);
  }
}

}  // namespace

Limit limit_of(const ModelWork& work, const MachineModel& measured, double steps, int threads) {
  const MachineModel machine = at_its_best(measured);
  const std::int64_t batch = work.spec.batch;
  const auto rows = static_cast<double>(batch);
  const Asked alone(work, machine, steps, rows, 1);
  Limit best = alone.of(alone.all, 1);
  const auto offer = [&](const Limit& other) {
    const double floor_us = std::min(best.floor_us, other.floor_us);
    if (other.us < best.us) best = other;
    best.floor_us = floor_us;
  };
  for (int n = 2; n <= std::min(threads, machine.cores); ++n) {
    for (int parts = 1; parts <= std::min<std::int64_t>(n, batch); ++parts) {
      if (n % parts != 0) continue;
      offer_forms(Asked(work, machine, steps, std::ceil(rows / parts), n), n / parts, offer);
    }
    const Asked whole(work, machine, steps, rows, n);
    if (whole.all.size() > 1) continue;
    // One core runs the time loop, all compute the hoisted products of later blocks.
    const Limit one = whole.of(whole.all, 1);
    best.floor_us = std::min(best.floor_us, std::max(one.us - one.hoist_us, one.us / n));
  }
  return best;
}

}  // namespace deepcpu
