// SPDX-License-Identifier: Apache-2.0
/// Blocks: how the time steps of a run are divided.
#pragma once

#include <algorithm>
#include <cstdint>

namespace deepcpu {

class Blocks {
 public:
  Blocks() = default;

  /// As few blocks of at most `most` steps as there can be: all of the same size but a last one
  /// that has at least half of it, or else of sizes that differ by at most one. A last block of a
  /// step or two would read W for these only. `most` is at least 1.
  static Blocks even(std::int64_t steps, std::int64_t most) {
    Blocks out(steps, most);
    if (out.count_ == 0) return out;
    const std::int64_t size = (steps - 1) / out.count_ + 1;
    const std::int64_t last = steps - (out.count_ - 1) * size;
    const bool long_enough = last >= size - size / 2;
    out.size_ = long_enough ? size : steps / out.count_;
    out.longer_ = long_enough ? 0 : steps % out.count_;
    return out;
  }
  /// Blocks of `size` steps, and a last one of what is left.
  static Blocks full(std::int64_t steps, std::int64_t size) { return {steps, size}; }

  std::int64_t count() const { return count_; }
  /// First step of a block, or behind the last one of the block before it.
  std::int64_t begin(std::int64_t block) const {
    return std::min(block * size_ + std::min(block, longer_), steps_);
  }
  std::int64_t size(std::int64_t block) const { return begin(block + 1) - begin(block); }
  /// Most steps of a block, at least 1.
  std::int64_t longest() const { return size_ + (longer_ > 0 ? 1 : 0); }

 private:
  Blocks(std::int64_t steps, std::int64_t size)
      : steps_(steps), count_((steps + size - 1) / size), size_(size) {}

  std::int64_t steps_ = 0;
  std::int64_t count_ = 0;
  std::int64_t size_ = 1;
  std::int64_t longer_ = 0;  ///< so many, the first ones, have one step more
};

}  // namespace deepcpu
