// SPDX-License-Identifier: Apache-2.0
/// HoistShare: the hoisted products of a block, for participants that share the units of the time
/// loop. Each begins with those of its own units; who has finished them takes some that another one
/// has not begun. Cores that look alike are often not equally fast: a neighbour on a core's second
/// hardware thread takes half of its multipliers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "jit/kernel_plan.hpp"
#include "src/runtime/wait.hpp"

namespace deepcpu {

class HoistShare {
 public:
  /// Multiply-adds of a participant's part of a block from which on it pays to share: below, what
  /// others have computed of its units takes longer to come than it took to compute. On an Emerald
  /// Rapids lstm i256h256t10 (1.3 million) and i64h256 (3.3) took 1.01 to 1.02 of the time without
  /// it, i256h256 (13) 0.97.
  static constexpr std::int64_t kLeastWork = 8'000'000;
  /// Most pieces that a participant's products are cut into: chosen, not measured.
  static constexpr std::int64_t kPieces = 8;

  HoistShare(int participants, int pieces) : pieces_(static_cast<std::uint64_t>(pieces)) {
    for (int p = 0; p < participants; ++p) seats_.push_back(std::make_unique<Seat>());
  }

  /// Participant `self` has left the block before, so that its sums may be overwritten: offers its
  /// own pieces of a block. Blocks are numbered from one run to the next.
  void begin(int self, std::uint64_t block) noexcept {
    seat(self).offered.offer(block, 0, pieces_);
  }

  /// A piece that nobody has taken, one of its own as long as there are any; participant p has the
  /// pieces from pieces * p on. None when it is time to wait.
  std::optional<int> take(int self, std::uint64_t block) noexcept {
    const int participants = static_cast<int>(seats_.size());
    for (int n = 0; n < participants; ++n) {
      const int other = (self + n) % participants;
      if (const auto piece = seat(other).offered.take(block, n == 0)) {
        return other * static_cast<int>(pieces_) + static_cast<int>(*piece);
      }
    }
    return std::nullopt;
  }

  /// `self` has finished all that it has taken: returns once everybody has.
  void finish(int self, std::uint64_t block) noexcept {
    seat(self).finished.store(block + 1);
    for (const auto& other : seats_) {
      if (other->finished.load() < block + 1) wait_until(&other->finished.value, block + 1);
    }
  }

 private:
  struct Seat {
    jit::Claims offered{};  ///< of a block instead of a step
    Counter finished;       ///< blocks
  };

  Seat& seat(int p) noexcept { return *seats_[static_cast<std::size_t>(p)]; }

  std::uint64_t pieces_;
  std::vector<std::unique_ptr<Seat>> seats_;
};

}  // namespace deepcpu
