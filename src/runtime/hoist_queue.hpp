// SPDX-License-Identifier: Apache-2.0
/// HoistQueue: the hoisted products of one run, as pieces that participants take when they have
/// time. The participant that runs the time loop needs the pieces of a block before it begins the
/// block; the others work ahead of it as far as there are slots.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>

#include "src/runtime/wait.hpp"

namespace deepcpu {

class HoistQueue {
 public:
  /// Blocks whose sums can stand at the same time: one is read, the next ones are written.
  static constexpr std::int64_t kSlots = 3;

  /// Some time steps of one block, for one part of the panels.
  struct Piece {
    std::int64_t block = 0;  ///< of this run
    std::int64_t first = 0;  ///< step of the run
    std::int64_t steps = 0;
    int part = 0;  ///< of the panels
  };

  /// Before a run, while nobody else is at it. `piece` <= `block`, both in steps and at least 1, as
  /// is `parts`, into how many the panels are divided.
  void begin(std::int64_t steps, std::int64_t block, std::int64_t piece,
             std::int64_t parts) noexcept {
    steps_ = steps;
    block_ = block;
    piece_ = piece;
    parts_ = parts;
    per_block_ = (block + piece - 1) / piece * parts;
    pieces_ = (steps + block - 1) / block * per_block_;
    next_.value = 0;
    read_.value = 0;
    for (Counter& c : done_) c.value = 0;
  }

  static std::size_t slot(std::int64_t block) { return static_cast<std::size_t>(block % kSlots); }

  /// A piece of `block` that nobody has taken, if there is one.
  std::optional<Piece> take_of(std::int64_t block) noexcept {
    return take_below((block + 1) * per_block_);
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

  /// The last block may be short: then its last pieces are empty.
  Piece piece_at(std::int64_t n) const noexcept {
    const std::int64_t block = n / per_block_;
    const std::int64_t begin = block * block_ + n % per_block_ / parts_ * piece_;
    const std::int64_t end = std::min({begin + piece_, (block + 1) * block_, steps_});
    return {block, std::min(begin, end), std::max<std::int64_t>(0, end - begin),
            static_cast<int>(n % parts_)};
  }

  std::int64_t steps_ = 0;
  std::int64_t block_ = 1;
  std::int64_t piece_ = 1;
  std::int64_t parts_ = 1;
  std::int64_t per_block_ = 1;
  std::int64_t pieces_ = 0;
  Counter next_;          ///< piece to be taken
  Counter read_;          ///< blocks that the time loop has finished
  Counter done_[kSlots];  ///< pieces finished, by slot
};

}  // namespace deepcpu
