// SPDX-License-Identifier: Apache-2.0
/// Timing of the emitted rate loops: the primitives under rates.hpp and calibrate.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "deepcpu/result.hpp"
#include "jit/rate_kernels.hpp"
#include "src/aligned_bytes.hpp"

namespace deepcpu {

/// Zero-filled memory that is there: every page has been written once, by the thread that made it,
/// and starts at a page boundary. Movable.
class ProbeBuffer {
 public:
  /// Error: the system has not that much memory.
  static Result<ProbeBuffer> make(std::size_t bytes);
  const std::byte* data() const noexcept { return memory_.data(); }
  std::size_t bytes() const noexcept { return memory_.size(); }

 private:
  explicit ProbeBuffer(std::size_t bytes) : memory_(bytes) {}
  AlignedBytes memory_;
};

/// How long to look: the best of `rounds` rounds of at least `seconds` each counts, since what
/// disturbs a round only ever makes it slower.
struct Effort {
  int rounds = 12;
  double seconds = 2e-3;
};

/// How a stream is walked pass after pass. An alternating walk keeps `group` bytes (rounded down to
/// whole blocks, at least one) in forward order and turns round between such groups.
struct Walk {
  bool alternating = false;
  std::size_t group = 0;
};

/// The rate loops of one ISA. run on the calling thread; may be used by several threads at once.
class Probe {
 public:
  /// Errors: the interpreter, which has no code; no executable memory. `isa` must be one that the
  /// machine has.
  static Result<Probe> make(Isa isa);
  Isa isa() const noexcept { return isa_; }

  /// Core clock in Hz: additions that wait for each other, one per cycle.
  double clock_hz(Effort effort = {}) const;
  /// float32 operations per second in registers; an FMA counts as two per lane.
  double fma_flops(Effort effort = {}) const;
  /// Bytes per second when the first `bytes` of a buffer (rounded down to whole groups or blocks,
  /// at least one) are read over and over by `kind`, fma_memory or load.
  double read_rate(jit::RateKind kind, const ProbeBuffer& buffer, std::size_t bytes, Walk walk = {},
                   Effort effort = {}) const;
  /// For one thread of several: works from `start` on (steady clock, seconds) for `seconds` and
  /// gives its own rate: operations per second for fma_registers, else bytes that are read per
  /// second of the stream of `bytes` that begins at `offset`, a multiple of 4096.
  double rate_between(jit::RateKind kind, const ProbeBuffer& buffer, std::size_t offset,
                      std::size_t bytes, double start, double seconds) const;
  /// Bytes per second of one round of at least `seconds` over the stream at `offset`, after a pass
  /// that is not timed.
  double stream_rate(const ProbeBuffer& buffer, std::size_t offset, std::size_t bytes, Walk walk,
                     double seconds) const;

 private:
  Probe(Isa isa, std::vector<jit::RateKernel> loops) : isa_(isa), loops_(std::move(loops)) {}
  void run(jit::RateKind kind, jit::RateArgs args) const noexcept;
  jit::RateArgs stream(const ProbeBuffer& buffer, std::size_t offset, std::size_t bytes, Walk walk,
                       std::size_t stride = 1) const noexcept;

  Isa isa_;
  std::vector<jit::RateKernel> loops_;  ///< by RateKind
};

/// Steady clock in seconds.
double steady_seconds() noexcept;

}  // namespace deepcpu
