// SPDX-License-Identifier: Apache-2.0
/// HoistQueue: the hoisted products of one run, as pieces that participants take when they have
/// time. The participant that runs the time loop needs the pieces of a block before it begins the
/// block, and takes one of the next when it would have to wait; the others work ahead of it as far
/// as there are slots.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>

#include "src/runtime/blocks.hpp"
#include "src/runtime/wait.hpp"

namespace deepcpu {

class HoistQueue {
 public:
  /// Blocks whose sums can stand at the same time: one is read, the next ones are written.
  static constexpr std::int64_t kSlots = 3;

  /// Some time steps of one block, for one part of the panels.
  struct Piece {
    std::int64_t block = 0;    ///< of this run
    std::int64_t skipped = 0;  ///< steps of the block in front of it
    std::int64_t first = 0;    ///< step of the run
    std::int64_t steps = 0;
    int part = 0;  ///< of the panels
  };

  /// Before a run, while nobody else is at it. A piece is one of `parts` parts of the panels and at
  /// most `piece_steps` steps of a block; both are at least 1.
  void begin(const Blocks& blocks, std::int64_t piece_steps, std::int64_t parts) noexcept {
    blocks_ = blocks;
    piece_steps_ = piece_steps;
    parts_ = parts;
    per_block_ = (blocks.longest() + piece_steps - 1) / piece_steps * parts;
    pieces_ = blocks.count() * per_block_;
    next_.value = 0;
    read_.value = 0;
    for (Counter& c : done_) c.value = 0;
  }

  static std::size_t slot(std::int64_t block) { return static_cast<std::size_t>(block % kSlots); }

  /// For who runs the time loop and needs `block` next: one of its pieces that nobody has taken,
  /// or, while others are at work on its last ones, a piece of the next block. Not at the first
  /// block: helpers are still on their way then, and the loop should begin. None when it is time to
  /// wait.
  std::optional<Piece> take_for(std::int64_t block) noexcept {
    if (finished(block)) return std::nullopt;
    auto piece = take_below((block + 1) * per_block_);
    if (!piece && block > 0) piece = take_below((block + 2) * per_block_);
    return piece;
  }

  /// The next piece, once there is room for its sums; none when all are taken.
  std::optional<Piece> take() noexcept {
    for (;;) {
      const auto next = static_cast<std::int64_t>(next_.load());
      if (next >= pieces_) return std::nullopt;
      const std::int64_t oldest = next / per_block_ - (kSlots - 1);  // must have been read before
      if (oldest > 0) wait_for(read_, oldest);
      if (auto piece = take_below(next + 1)) return piece;
    }
  }

  /// The sums of a piece stand where its block's slot is.
  void finish(const Piece& piece) noexcept {
    std::atomic_ref<std::uint64_t>(done_[slot(piece.block)].value)
        .fetch_add(1, std::memory_order_acq_rel);
  }

  /// Whether all pieces of a block are finished.
  bool finished(std::int64_t block) const noexcept {
    return done_[slot(block)].load() >= static_cast<std::uint64_t>(finished_count(block));
  }

  /// Returns once all pieces of a block are finished. They have been taken.
  void wait_for_block(std::int64_t block) noexcept {
    wait_for(done_[slot(block)], finished_count(block));
  }

  /// The time loop has read all sums of a block; blocks in order.
  void release(std::int64_t block) noexcept { read_.store(static_cast<std::uint64_t>(block + 1)); }

 private:
  /// Of its slot's counter, once the block is finished.
  std::int64_t finished_count(std::int64_t block) const noexcept {
    return (block / kSlots + 1) * per_block_;
  }

  static void wait_for(const Counter& counter, std::int64_t value) noexcept {
    const auto at_least = static_cast<std::uint64_t>(value);
    if (counter.load() < at_least) wait_until(&counter.value, at_least);
  }

  std::optional<Piece> take_below(std::int64_t end) noexcept {
    std::atomic_ref<std::uint64_t> next(next_.value);
    std::uint64_t n = next.load(std::memory_order_acquire);
    while (static_cast<std::int64_t>(n) < std::min(end, pieces_)) {
      if (next.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel)) {
        return piece_at(static_cast<std::int64_t>(n));
      }
    }
    return std::nullopt;
  }

  /// A block may be shorter than the longest: then its last pieces are shorter, or empty.
  Piece piece_at(std::int64_t n) const noexcept {
    Piece piece;
    piece.block = n / per_block_;
    piece.part = static_cast<int>(n % parts_);
    const std::int64_t size = blocks_.size(piece.block);
    piece.skipped = std::min(n % per_block_ / parts_ * piece_steps_, size);
    piece.first = blocks_.begin(piece.block) + piece.skipped;
    piece.steps = std::min(piece_steps_, size - piece.skipped);
    return piece;
  }

  Blocks blocks_;
  std::int64_t piece_steps_ = 1;
  std::int64_t parts_ = 1;
  std::int64_t per_block_ = 1;
  std::int64_t pieces_ = 0;
  Counter next_;          ///< piece to be taken
  Counter read_;          ///< blocks that the time loop has finished
  Counter done_[kSlots];  ///< pieces finished, by slot
};

}  // namespace deepcpu
