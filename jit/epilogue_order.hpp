// SPDX-License-Identifier: Apache-2.0
/// The order in which the epilogues of several rows or unit blocks are emitted together.
#pragma once

#include <vector>

#include "jit/kernel_plan.hpp"

namespace deepcpu::jit {

/// An instruction of an epilogue, for one of the columns (a row and unit block) that are run
/// together. Operands are positions in the whole list.
struct EpilogueStep {
  Instr instr;
  int column = 0;
};

/// The epilogue for `columns` columns. All functions that depend on no other function come first,
/// for one column after the other, then those that depend on these, and so on; of each of these
/// groups, what further functions wait for comes before the rest, for all columns. A core takes in
/// instructions in order, and what waits for operands keeps its place from others; so what will
/// wait long comes late. Each column computes what it would by itself, and stores in the order in
/// which it would. Loads come before stores to the same buffer, as in every plan.
std::vector<EpilogueStep> by_waves(const std::vector<Instr>& epilogue, int columns);

}  // namespace deepcpu::jit
