// SPDX-License-Identifier: Apache-2.0
/// Small emitted loops by which the machine's own rates are measured. They use the same
/// instructions as the products of a kernel, so their rates are the limits of those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "deepcpu/result.hpp"
#include "deepcpu/schedule.hpp"
#include "jit/code_blob.hpp"

namespace deepcpu::jit {

/// What a loop does kRateVectors times per block.
enum class RateKind : std::uint8_t {
  fma_registers,  ///< acc += a * b, all in registers; independent accumulators
  fma_memory,     ///< acc += a * vector of the block
  load,           ///< register = vector of the block
  fma_mixed,      ///< fma_memory into four sums; after every kMixedVectors vectors as many further
                  ///< multiply-adds, which read from the beginning of the first group: one vector
                  ///< times so many numbers, as hoisted products among recurrent ones do
  fma_strided,  ///< fma_memory that reads every kStrideVectors-th vector: a block is so many times
                ///< as long
  add_chain,    ///< an integer addition that waits for the one before: one cycle each
};
inline constexpr RateKind kRateKinds[] = {RateKind::fma_registers, RateKind::fma_memory,
                                          RateKind::load,          RateKind::fma_mixed,
                                          RateKind::fma_strided,   RateKind::add_chain};
std::string_view to_string(RateKind kind) noexcept;

/// Operations (vectors, additions) per block.
inline constexpr std::size_t kRateVectors = 32;
/// Vectors of fma_mixed between two groups of further multiply-adds.
inline constexpr std::size_t kMixedVectors = 8;
/// See fma_strided: one gate of an LSTM, whose four stand side by side, is read so.
inline constexpr std::size_t kStrideVectors = 4;
/// Bytes that are read of a block: kRateVectors vectors of the ISA.
std::size_t rate_block_bytes(Isa isa) noexcept;
/// Vectors from one that is read to the next.
constexpr std::size_t rate_stride(RateKind kind) {
  return kind == RateKind::fma_strided ? kStrideVectors : 1;
}

/// The one argument of a rate loop. Plain data. A pass walks `groups` groups of `blocks` blocks;
/// the blocks of a group follow each other upward in memory, whichever way the groups are walked.
struct RateArgs {
  const void* first;        ///< the group where a pass begins; 64-byte aligned, readable
  std::int64_t stride;      ///< bytes from one group to the next, negative to walk backward
  std::uint64_t groups;     ///< per pass, at least 1
  std::uint64_t blocks;     ///< per group, at least 1
  std::uint64_t passes;     ///< at least 1
  std::uint64_t alternate;  ///< 1: every pass begins where the last one ended and walks back
  float a;                  ///< factors of fma_registers and fma_memory
  float b;
  float* sums;  ///< out, one vector: sum of all accumulators, lane by lane; [lanes of the ISA]
};
static_assert(std::is_standard_layout_v<RateArgs> && std::is_trivial_v<RateArgs>);

/// One emitted loop. Immutable; run() may be called from several threads at once.
class RateKernel {
 public:
  /// Errors: Isa::interpreter (there is no code to measure); no executable memory. The caller
  /// makes sure that the machine has the ISA before it runs the loop.
  static Result<RateKernel> make(RateKind kind, Isa isa);
  /// Runs passes * groups * blocks blocks. Does nothing if one of them is 0.
  void run(const RateArgs& args) const noexcept;
  const CodeBlob& code() const noexcept { return *blob_; }

 private:
  explicit RateKernel(std::shared_ptr<const CodeBlob> blob) : blob_(std::move(blob)) {}
  std::shared_ptr<const CodeBlob> blob_;
};

}  // namespace deepcpu::jit
