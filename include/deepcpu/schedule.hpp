// SPDX-License-Identifier: Apache-2.0
/// A Schedule holds decisions, and only decisions: what a person could choose differently without
/// changing a single bit of the result (the last bits, if order=free allows it). Everything that
/// follows from them (offsets, loops, register numbers) is derived by lowering and stands in the
/// KernelPlan. Where it says "not emitted yet", a schedule can be written down, and is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/result.hpp"

#pragma GCC visibility push(default)
namespace deepcpu {

/// Instruction sets, weakest first. avx2 = AVX2+FMA; avx512 = F+BW+DQ+VL.
enum class Isa : std::uint8_t { interpreter, avx2, avx512 };

std::string_view to_string(Isa isa) noexcept;
Result<Isa> parse_isa(std::string_view text);
/// The best ISA of this machine, capped by the environment variable DEEPCPU_MAX_ISA.
Isa host_isa() noexcept;
/// float32 lanes of one vector register (the interpreter lays data out as avx512 does: 16).
int lanes(Isa isa) noexcept;

/// How a step walks the panels of a weight matrix.
enum class Sweep : std::uint8_t {
  forward,      ///< the same order every step
  alternating,  ///< forward on even steps, backward on odd ones: the cache keeps what was read last
};

/// Where the weights of the recurrent products are while the time loop runs.
enum class Residency : std::uint8_t {
  streamed,   ///< read from memory (or cache) every step
  registers,  ///< loaded once per call; only for cells small enough
};

/// For how many sums a panel of one batch row has unit blocks, as far as a power of two of them
/// reaches. Of several rows every panel is narrow, and so are those of a stage where wide ones do
/// not fit registers or would give one of several participants more to do.
enum class Panel : std::uint8_t {
  narrow,  ///< four: enough where one multiply-add starts per cycle
  wide,    ///< eight: two multiply-adds per cycle find sums that do not wait
};

/// Which parts run side by side on different threads.
enum class Parallel : std::uint8_t {
  none,        ///< all participants share every product
  directions,  ///< one direction per group of participants
  wavefront,   ///< one range of layers per group of participants, each lagging by one block
  gates,       ///< different gates of one unit on different participants; not emitted yet
  hoist,       ///< one participant runs the time loop; hoisted products of later blocks are
               ///< computed by all, as they have time
};

/// How participants hand h over to each other inside the time loop.
enum class Exchange : std::uint8_t {
  flag,  ///< a counter per participant
  data,  ///< the values themselves, a signalling NaN marks those not yet written
};

/// Whether a schedule may change the order of summation, hence the last bits of the result.
enum class Order : std::uint8_t {
  exact,
  free,  ///< not emitted yet
};

/// Which products of a step make a phase.
enum class Phases : std::uint8_t {
  levels,    ///< all products that become ready together; those of x join the sums they add to
  separate,  ///< products of x that stay in the step have a phase of their own before the others;
             ///< not emitted yet
};

/// Where a participant's sum over k begins (order=free only).
enum class Start : std::uint8_t {
  zero,  ///< at k = 0
  own,   ///< at the part of the operand that it computed itself; not emitted yet
};

/// Decisions for one layer (all its directions).
struct LayerSchedule {
  bool fuse_gates = true;  ///< gates with a common operand in one product, or one product each
  int hoist_block = 0;     ///< most steps of a block of hoisted x·W; 0 = x·W stays in the step
  int tile_rows = 1;       ///< batch rows of the register tile of the recurrent products
  int hoist_rows = 1;      ///< rows (time steps x batch) of the register tile of hoisted products
  Sweep sweep = Sweep::alternating;
  int group = 1;  ///< panels that an alternating sweep keeps in forward order
  Residency weights = Residency::streamed;
  Phases phases = Phases::levels;
  /// The hoisted x·W of the next block is computed among the recurrent products of this one. Needs
  /// AVX-512 (or the interpreter), batch 1, streamed weights, at most four times as many products
  /// of the input as of the state, a layer of which the whole input is known (the first one, or any
  /// of a bidirectional stack), and that hoist_block and the longest one of all layers are
  /// multiples of 8, the latter of 16 if the former is.
  bool hoist_ahead = false;
  Panel panel = Panel::narrow;  ///< of the recurrent products
  /// Cache lines of the weights that come next which a tile of several rows of the recurrent
  /// products asks for in four steps over k, where there are several tiles; 0 = none. With AVX2
  /// half as many, as a step reads half as much. Hoisted products, whose tiles are many, ask for 5.
  int fetch_lines = 5;
  /// Tiles of several rows, of recurrent and of hoisted products, pass over a panel of more than 32
  /// KiB piece by piece, so that further tiles find it in the L1 cache; the sums wait in memory in
  /// between. If false, every tile reads its panel as a whole.
  bool cut_panels = true;
  bool operator==(const LayerSchedule&) const = default;
};

struct Schedule {
  Isa isa = Isa::interpreter;
  int threads = 1;
  Parallel parallel = Parallel::none;
  Exchange exchange = Exchange::flag;
  Order order = Order::exact;
  Start start = Start::zero;
  /// How the participants of a group divide a product of batch rows x units x k: into split_rows
  /// parts by batch row and split_k parts by k (1: others are not emitted yet); the units are
  /// divided over what is left of them.
  /// Rows need nothing of each other, so parts of them hand nothing over inside the time loop; but
  /// each part reads all weights. More parts than rows leave threads idle.
  int split_rows = 1;
  int split_k = 1;
  std::vector<LayerSchedule> layers;  ///< one per layer
  bool operator==(const Schedule&) const = default;

  /// Canonical JSON, one line.
  std::string to_json() const;
  /// Reads what to_json wrote or a person edited. Refuses, by name, unknown fields, illegal values
  /// and decisions that no code is emitted for.
  static Result<Schedule> from_json(std::string_view text);
};

}  // namespace deepcpu
#pragma GCC visibility pop
