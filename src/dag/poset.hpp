// SPDX-License-Identifier: Apache-2.0
/// Partial orders of products and the number of phased schedules that respect them.
///
/// A phase is a set of products none of which needs another one; a schedule is a sequence of
/// phases in which every product comes in a later phase than those it needs. So the schedules of a
/// partial order are its strict weak orders, and without any dependence their number is the
/// ordered Bell (Fubini) number.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/dag/count.hpp"

namespace deepcpu {

class MatmulDag;

/// `before[a][b]`: a must be complete before b starts. Transitively closed, no a before itself.
struct Poset {
  explicit Poset(std::size_t size) : before(size, std::vector<bool>(size, false)) {}
  std::size_t size() const noexcept { return before.size(); }
  /// Adds "a before b" and what follows from it.
  void order(std::size_t a, std::size_t b);

  std::vector<std::vector<bool>> before;
};

/// What an element of unroll()'s partial order is.
enum class Grain : std::uint8_t { products, classes };

/// The products (or classes of products) of `steps` steps of a stack with their dependences.
/// Element ((layer * directions + direction) * steps + t) * n + i is product (class) i of the DAG.
/// Takes memory and time in the square of the number of elements.
Poset unroll(const MatmulDag& dag, int layers, Direction direction, int steps, Grain grain);

/// The number of phased schedules, exactly; nothing if counting takes more than `effort`
/// transitions between sets of finished products. `hoistable`, if not empty, has one flag per
/// element; then a schedule is in three parts (once per run, once per block of steps, in every
/// step), each a possibly empty sequence of phases, and only hoistable elements may stand in the
/// first two.
std::optional<Count> count_schedules(const Poset& poset, const std::vector<bool>& hoistable = {},
                                     std::size_t effort = 200000);

/// Decimal logarithm of the number of ordered set partitions of n >= 1 elements (1, 3, 13, 75, 541
/// ...), by n! / (2 ln(2)^(n+1)), whose relative error is below 4 * 0.11^(n+1) (H. S. Wilf,
/// generatingfunctionology, section 5.2).
double log10_fubini(double n);

}  // namespace deepcpu
