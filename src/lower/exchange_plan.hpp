// SPDX-License-Identifier: Apache-2.0
/// How the participants of a time loop hand numbers and panels over to each other.
#pragma once

#include "src/lower/lower.hpp"

namespace deepcpu::lower {

/// visit(stage, ref, whole_row) for all that stages read of buffers in products and epilogues:
/// whole_row if a unit needs numbers of other units.
template <class Visit>
void each_read(const jit::KernelPlan& plan, Visit visit) {
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const jit::Stage& stage = plan.stages[s];
    for (const jit::Product& p : stage.products) visit(static_cast<int>(s), p.operand, true);
    for (const jit::Instr& i : stage.epilogue) {
      if (i.action == jit::Action::load) visit(static_cast<int>(s), i.ref, false);
      if (i.action == jit::Action::broadcast) visit(static_cast<int>(s), i.ref, true);
    }
  }
}

/// Multiply-adds of a participant's part of a stage from which on others take panels of it. On an
/// Emerald Rapids lstm i256h256b2 (524,288) takes 1.05 of the time that it takes without, b4 0.91.
inline constexpr std::uint64_t kLeastStolenFrom = 3 << 18;
/// Sets Stage::steals where it pays, in plans whose stages all wait for each other: exchanges and
/// looks at rings are planned already.
void plan_steals(std::uint32_t participants, BoundPlan& bound, std::uint64_t least_work);

/// Decides of a plan that is complete otherwise what stands behind a flag and what is a ring, what
/// is fetched, and of which stages participants take panels of each other.
void plan_exchange(const Sharing& sharing, BoundPlan& bound);

}  // namespace deepcpu::lower
