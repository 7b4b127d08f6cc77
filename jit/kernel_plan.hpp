// SPDX-License-Identifier: Apache-2.0
/// KernelPlan: the seam of the project. Lowering writes it, the interpreter runs it, the emitter
/// turns it into machine code. It spells out every loop, address and register tile of one kernel
/// and knows nothing of cells, schedules or tuning.
///
/// What a kernel does, in the words of the fields below:
///
///     for t in 0 .. args.steps-1                     (stop when active rows reach 0)
///       for stage in stages
///         wait until every number of stage.polls has been written
///         for panel in args.ranges[stage].order[(parity + t) & 1]
///           (with Stage::steals: those of other participants that nobody has begun come last)
///           mark what it will store into rings one step later as not written
///           for tile of up to stage.tile_rows rows
///             sums   = init                           one accumulator per (row, unit, gate);
///                                                     in the last unit block gates may share one
///             for product in stage.products, k ascending
///               sums += operand[row][k] * weights[unit][k][gate]      unit: those of panel
///             for row in tile, unit in panel: run stage.epilogue
///         if stage.exchange: publish, and wait for all participants
///       swap the two slots of every double-buffered buffer, turn the three of every ring
///     for tile in args.ahead                         only with KernelPlan::ahead, see there
///       sums = init;  for k ascending: sums += from[row][k] * weights[k];  store or add
///
/// Emitted code for one row may run a panel's epilogue among the products of the panel that
/// follows. Nothing of a stage reads what its epilogues store, and each panel is still marked
/// before it is stored, so nobody can tell. It may also look at a ring's numbers as late as
/// the products of the stage's first panel read them, if these read all of them and nothing before
/// them that others write; this panel is then marked after its products. With Product::k_block it
/// runs the loops over tiles and over k in another order; each sum's own order stays. Epilogues of
/// several rows or unit blocks may run side by side; each of them stores in the order of the plan.
///
/// Participants hand numbers over in one of two ways. With a flag (Stage::exchange), each counts
/// the stages that it has completed and waits until all others have counted as far. With the data
/// itself (Buffer::slots == 3, a ring, and Stage::polls), a reader looks at the numbers until none
/// of them is kUnwritten. In step t a ring's slot t % 3 is current, (t+1) % 3 is written, and
/// (t+2) % 3 is filled with kUnwritten, all by the owner of the units, panel by panel, the filling
/// first. Lowering makes rings only where all of this holds:
///   - every participant owns a panel of the ring's writing stage, so that its numbers are a sign
///     of how far each of the others is;
///   - a ring that is read before it is written (a state: `current`) is polled by everybody at or
///     before its writing stage, and not read by others in a later stage;
///   - a ring that is written before it is read (scratch: `next`) is polled in a later stage.
/// Why nobody reads a slot any more when it is filled: a participant that fills slot (t+2) % 3 =
/// (t-1) % 3 of a state in step t has before, in step t (in its first panel, if not earlier), seen
/// all numbers of slot t % 3, which the others stored in step t-1 after their last read of slot
/// (t-1) % 3. Of a scratch ring, that slot was read in step t-2, and numbers of step t-1 have been
/// seen. Why a slot is filled before anybody polls it: slot (t+2) % 3 is polled one step after slot
/// (t+1) % 3 has been seen complete, and each owner stored into that one after filling the other;
/// x86 makes stores visible in program order. With Stage::steals read "who computes the panel" for
/// "owner": it may be another participant in every step. All of this holds, since who computes a
/// panel in one step has seen the numbers of the step before, whoever stored them, and all that was
/// done for them before; since every panel of a writing stage stands in its ring, so that to see
/// all numbers is to know that all have finished reading for that stage; and since everybody has a
/// panel that is not for others, so that its numbers say how far it is. Rows that end early only
/// take rows out of both sides: a step's rows are among those of the step before. A buffer of two
/// slots that is stored just before a ring, unit by unit, and read after the ring has been polled
/// needs no poll of its own. Between calls the order of steps goes on; the caller fills the slot to
/// be written whenever it has touched a ring, or rows have ended early.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "deepcpu/cell.hpp"
#include "deepcpu/schedule.hpp"

namespace deepcpu::jit {

/// How the address of row r at step t is formed. All strides are in bytes.
enum class Space : std::uint8_t {
  external,  ///< args.buffer[id] is a table of row pointers: table[r] + t * args.stride[id]
  strided,   ///< args.buffer[id] + r * args.stride[id]; does not depend on t
  slots,     ///< args.buffer[id] + slot * slot_stride + r * row_stride; slot changes every step if
             ///< slots > 1
  block,     ///< args.buffer[id] + t * step_stride + r * row_stride
  params,    ///< args.weights + offset of the reference; the same for every row and step
};

struct Buffer {
  std::string name;
  Space space = Space::slots;
  std::uint32_t width = 0;  ///< elements of one row that may be touched (external: exactly these)
  std::uint64_t row_stride = 0;   ///< slots, block
  std::uint64_t step_stride = 0;  ///< block
  std::uint64_t slot_stride = 0;  ///< slots > 1
  /// 1 = in place, 2 = read the current slot and write the next one, 3 = a ring: the same, and the
  /// numbers say whether they have been written.
  std::uint8_t slots = 1;
  /// block: where a vector is read, that of the next step is fetched, too, because another core has
  /// written it. Then step_stride is at most kFarthestFetch.
  bool fetch_next = false;
  static constexpr std::uint64_t kFarthestFetch = std::uint64_t{1} << 30;
  bool operator==(const Buffer&) const = default;
};

/// A row of a buffer, `offset` bytes in. `next` selects the slot that this step writes.
struct Ref {
  std::uint16_t buffer = 0;
  bool next = false;
  std::uint64_t offset = 0;
  bool operator==(const Ref&) const = default;
};

/// A number of a ring that has not been written yet: a signalling NaN, which arithmetic never
/// produces. What might be one because it was only copied passes Action::quiet before it is stored.
inline constexpr std::uint32_t kUnwritten = 0x7FA5A5A5;
/// Makes a signalling NaN a quiet one.
inline constexpr std::uint32_t kQuietBit = 0x00400000;

/// Operations of an epilogue: the element-wise ones of Op, and these.
enum class Action : std::uint8_t {
  load,       ///< vector of the unit block at ref
  broadcast,  ///< one number at ref, for all lanes
  sum,        ///< accumulator `gate` of this unit block
  constant,   ///< p
  element,    ///< op(a, b; p, q)
  fma,        ///< a * b + c, rounded once
  quiet,      ///< a; another NaN where its bits are kUnwritten
  store,      ///< a to the unit block at ref
};

/// One instruction of an epilogue. Instruction i defines value i (stores define nothing); operands
/// a, b, c are indices of earlier instructions.
struct Instr {
  Action action = Action::constant;
  Op op = Op::add;
  std::int32_t a = -1;
  std::int32_t b = -1;
  std::int32_t c = -1;
  float p = 0.0F;
  float q = 0.0F;
  std::uint32_t gate = 0;
  Ref ref;
  std::string note;  ///< name for listings; not part of the key
  bool operator==(const Instr& o) const {
    return action == o.action && op == o.op && a == o.a && b == o.b && c == o.c &&
           std::bit_cast<std::uint32_t>(p) == std::bit_cast<std::uint32_t>(o.p) &&
           std::bit_cast<std::uint32_t>(q) == std::bit_cast<std::uint32_t>(o.q) && gate == o.gate &&
           ref == o.ref;
  }
};

/// How an accumulator starts.
struct Sum {
  enum class Init : std::uint8_t { zero, load };
  Init init = Init::zero;
  Ref ref;           ///< vector of the unit block: a bias (params) or a hoisted sum (block, slots)
  std::string note;  ///< name for listings; not part of the key
  bool operator==(const Sum& o) const { return init == o.init && ref == o.ref; }
};

/// Where the units of a sum's last unit block stand while products run, if sums share vectors
/// there. The sums whose vectors these are come first among those that share them, so that each can
/// be moved to a vector of its own if the last one is the first to go.
struct Place {
  std::uint32_t host = 0;  ///< the sum whose vector they begin in, which may be itself
  std::uint32_t next = 0;  ///< the one in whose vector they end; the host, if all are there
  std::uint32_t lane = 0;  ///< of the host's vector, where they begin
  /// Of a sum whose vector is shared, with Sum::Init::load: what takes the place of
  /// Sum::ref.offset in the last unit block, for all of the vector.
  std::uint64_t from = 0;
  bool operator==(const Place&) const = default;
};

/// operand[row][0..k) times a packed matrix, added to some of the stage's sums, k ascending.
/// Unit block u starts at weights + u * block_stride and holds [k][gate][lanes] with gates_packed
/// gates; a panel of several unit blocks reads as many streams side by side. In the last unit block
/// several gates may share a vector; the numbers of one k take as much room there as in the others.
struct Product {
  Ref operand;
  std::uint32_t k = 0;
  std::uint64_t weights = 0;        ///< byte offset of unit block 0 from args.weights
  std::uint64_t block_stride = 0;   ///< bytes; times units_per_panel below 2^31
  std::uint32_t gates_packed = 0;   ///< vectors of one k in the packed matrix: one per gate, if it
                                    ///< has a unit block in which gates do not share them
  std::vector<std::uint32_t> gate;  ///< gates read here, as positions in the packed matrix
  std::vector<std::uint32_t> sum;   ///< the sum that each of them is added to
  /// Where each of them begins in the last unit block, in lanes from the beginning of a k, if gates
  /// share vectors there; what stands behind its units is another gate's, or nobody's. With
  /// Stage::places its sum's Place::lane, in the vector of its host. Then there is one chain.
  std::vector<std::uint32_t> last;
  std::uint32_t chains = 1;  ///< independent partial sums: k goes to chain k % chains
  /// Cache lines of each unit block that are fetched into the L2 cache in kFetchSteps steps over k
  /// of a tile of several rows: of the piece that comes next (k_block), or behind the last one, and
  /// where there are no pieces, of the panel that is walked next. Emitted code then waits less for
  /// weights from beyond L2; it changes no number. Each tile goes on where the one before it
  /// stopped. Beside a shorter last piece or panel a few lines too many are asked for.
  /// Such a tile asks once, too, for what its epilogue loads and for the numbers of Space::block
  /// that the sums of the tile behind it begin with.
  std::uint32_t fetch = 0;
  static constexpr std::uint32_t kFetchSteps = 4;
  /// For tiles of several rows: so many steps over k, a multiple of 16, are run for one tile after
  /// the other before the next ones, so that this part of the panel stays in the L1 cache; the sums
  /// wait in memory. It changes no number. 0 = all of k at once. Only if the stage's products have
  /// one chain each.
  std::uint32_t k_block = 0;
  std::string note;
  bool operator==(const Product& o) const {
    return operand == o.operand && k == o.k && weights == o.weights &&
           block_stride == o.block_stride && gates_packed == o.gates_packed && gate == o.gate &&
           sum == o.sum && last == o.last && chains == o.chains && fetch == o.fetch &&
           k_block == o.k_block;
  }
};

/// Everything of one step between two points at which values must be complete.
struct Stage {
  std::string name;
  std::uint32_t width = 0;            ///< units (elements) that this stage computes
  std::uint32_t units_per_panel = 1;  ///< unit blocks (of `lanes` units) in a full panel
  std::uint32_t tile_rows = 1;        ///< most rows of the register tile
  std::vector<Sum> sums;              ///< one per gate
  std::vector<Place> places;          ///< one per sum, or none: each has vectors of its own
  /// The epilogue stores each sum and does nothing else. Of the last unit block each vector is
  /// stored as it is, where the sum whose vector it is belongs.
  bool keeps_places = false;
  std::vector<Product> products;
  std::vector<Instr> epilogue;
  /// Rows of rings that must be complete before this stage reads them or marks a slot: all units of
  /// all live rows.
  std::vector<Ref> polls;
  /// Rows of buffers whose units others have written, too, complete by a flag when this stage
  /// begins: emitted code fetches all live rows at once, before products read number by number.
  std::vector<Ref> gathers;
  /// Other participants read what this stage writes: publish and wait before the next stage.
  bool exchange = false;
  /// A participant that has computed its panels takes some that another one has not begun: see
  /// Claims. Only in plans of which each stage waits for all panels of the stage before it.
  bool steals = false;
  bool operator==(const Stage& o) const {
    return width == o.width && units_per_panel == o.units_per_panel && tile_rows == o.tile_rows &&
           sums == o.sums && places == o.places && keeps_places == o.keeps_places &&
           products == o.products && epilogue == o.epilogue && polls == o.polls &&
           gathers == o.gathers && exchange == o.exchange && steals == o.steals;
  }
};

/// Of a stage's products, for one row.
inline std::uint64_t multiply_adds(const Stage& s) {
  std::uint64_t sum = 0;
  for (const Product& p : s.products) sum += std::uint64_t{p.k} * p.gate.size() * s.width;
  return sum;
}

/// Whether the vector of a sum is one in which units of the last unit block stand.
bool holds_units(const Stage& s, std::uint32_t sum);

/// A vector of weights of one k and unit block, and the sum that it is added to.
struct Term {
  std::uint32_t lane = 0;   ///< where it begins, from the beginning of the k
  std::uint32_t sum = 0;    ///< that one, or the one whose vector several share
  std::uint32_t lanes = 0;  ///< those behind do not matter
  /// Half a vector of AVX-512 does.
  bool half(std::uint32_t of_lanes) const { return of_lanes == 16 && lanes <= 8; }
};
/// Those of a whole unit block.
std::vector<Term> terms(const Product& p, std::uint32_t lanes);
/// Those of a stage's last unit block, each vector once.
std::vector<Term> last_terms(const Stage& s, const Product& p, std::uint32_t lanes);

/// Products of a later block of steps. They depend on nothing that the steps compute, so emitted
/// code runs them between the multiply-adds of the steps, which mostly wait for weights and leave
/// the multipliers idle. Which tiles they are, the arguments of a call say; all are done when it
/// returns. Only for one row.
struct Ahead {
  std::uint32_t rows = 0;         ///< rows of a tile
  std::uint64_t from_stride = 0;  ///< bytes from one row of the operand to the next
  std::uint64_t to_stride = 0;    ///< bytes from one row of the result to the next
  std::uint64_t prefetch = 0;     ///< bytes from the weights in use to those that are fetched
  /// Pace: so many steps over k of a tile after `per` steps over k of the stages' products.
  std::uint32_t beats = 0;
  std::uint32_t per = 1;
  bool operator==(const Ahead&) const = default;
};

/// Ahead::rows rows times one gate of one unit block, or the gates that share a vector there, or
/// one of the chains of these sums.
struct AheadTile {
  const float* from;             ///< row 0 of the operand, first number
  const float* end;              ///< behind its last one; `end - from` is a multiple of the step
  std::uint64_t from_step;       ///< bytes from one number to the next
  const unsigned char* weights;  ///< vector for the first number
  std::uint64_t weight_step;     ///< bytes from one vector to the next
  const float* init;             ///< vector that the sums start at
  float* to;                     ///< row 0 of the result, a whole vector
  std::uint64_t joins;           ///< 1: the sums are added to what stands there, an earlier chain
};

struct KernelPlan {
  std::string name;  ///< for symbols and listings; not part of the key
  Isa isa = Isa::interpreter;
  std::uint32_t lanes = 16;
  std::uint32_t rows = 1;  ///< most rows a call may have; 0 = any number (strided buffers only)
  bool weights_in_registers = false;
  std::vector<Buffer> buffers;
  std::vector<Stage> stages;
  std::optional<Ahead> ahead;
  /// Equality of what is computed and how: the kernel cache's key. Names do not take part.
  bool operator==(const KernelPlan& o) const {
    return isa == o.isa && lanes == o.lanes && rows == o.rows &&
           weights_in_registers == o.weights_in_registers && buffers_equal(o) &&
           stages == o.stages && ahead == o.ahead;
  }

  std::uint32_t panels(const Stage& s) const {
    const std::uint32_t per = s.units_per_panel * lanes;
    return (s.width + per - 1) / per;
  }
  /// Unit blocks of panel p of a stage.
  std::uint32_t units(const Stage& s, std::uint32_t p) const {
    const std::uint32_t all = (s.width + lanes - 1) / lanes;
    const std::uint32_t first = p * s.units_per_panel;
    return all - first < s.units_per_panel ? all - first : s.units_per_panel;
  }

 private:
  bool buffers_equal(const KernelPlan& o) const;
};

/// Hash consistent with operator==.
std::uint64_t hash(const KernelPlan& plan) noexcept;
/// The plan as text, one line per loop, buffer and instruction (`deepcpu dump --stage plan`).
std::string to_text(const KernelPlan& plan);

inline constexpr std::size_t kMaxBuffers = 64;
inline constexpr std::size_t kMaxStages = 32;
inline constexpr std::size_t kMaxEpilogue = 512;  ///< instructions of one stage

/// The panels one participant computes in one stage: their numbers, in walking order.
struct PanelRange {
  const std::uint32_t* order[2];  ///< [0] on even steps, [1] on odd ones
  std::uint64_t count;
};

/// Which of one participant's panels nobody has begun, in one stage that others may take panels of
/// (Stage::steals) and one time step: which place of the participant's order is taken next and
/// which one is behind the last. The participant takes the first of these, others the last. The
/// first half of its panels is its own: so most are taken without a claim, and everybody has one at
/// least, whose numbers are a sign of how far it is. There are two for each stage, for even and odd
/// steps: in step t a participant writes that of step t + 1, which others may look at from then on.
/// The last step of a call has none: what the caller does next, as to compute other hoisted sums,
/// might come before another participant has finished. (Where rows end early, the last step with
/// live rows may have one; the caller waits for all before it does anything with these rows.) Each
/// has cache lines of its own, so that who looks at one does not take another one away from its
/// owner.
struct alignas(128) Claims {
  std::uint64_t word;

  /// Places of `count` panels that are not for others.
  static constexpr std::uint64_t kept(std::uint64_t count) { return (count + 1) / 2; }
  static constexpr std::uint64_t kMostPanels = 0xFFFF;
  /// What is added when the first one is taken, and when the last one is.
  static constexpr std::uint64_t kTakeFirst = 1;
  static constexpr std::uint64_t kTakeLast = ~std::uint64_t{0} << 16;

  static constexpr std::uint64_t first(std::uint64_t w) { return w & kMostPanels; }
  static constexpr std::uint64_t end(std::uint64_t w) { return w >> 16 & kMostPanels; }

  /// Offers the places from `from` up to `count` of a step, of which the low 32 bits count.
  void offer(std::uint64_t step, std::uint64_t from, std::uint64_t count) noexcept {
    const std::uint64_t offered = step << 32 | count << 16 | from;
    std::atomic_ref<std::uint64_t>(word).store(offered, std::memory_order_release);
  }
  /// Takes the first place or the last one, if there is one for this step.
  std::optional<std::uint64_t> take(std::uint64_t step, bool from_front) noexcept {
    std::atomic_ref<std::uint64_t> shared(word);
    std::uint64_t seen = shared.load(std::memory_order_acquire);
    for (;;) {
      if (seen >> 32 != (step & 0xFFFFFFFF) || first(seen) >= end(seen)) return std::nullopt;
      const std::uint64_t taken = seen + (from_front ? kTakeFirst : kTakeLast);
      if (shared.compare_exchange_weak(seen, taken, std::memory_order_acq_rel)) {
        return from_front ? first(seen) : end(seen) - 1;
      }
    }
  }
};

/// The one argument of a kernel. Plain data; the caller owns everything it points to.
struct KernelArgs {
  const unsigned char* weights;  ///< packed weights of this layer and direction
  std::uint64_t steps;           ///< T of this call
  std::uint64_t parity;          ///< 0 or 1: number of steps done before, mod 2 (slots and sweep)
  std::uint64_t phase;           ///< 0, 1 or 2: the same mod 3 (rings)
  std::uint64_t rows;            ///< live rows when `active` is null
  const std::int32_t* active;    ///< live rows per step, non-increasing; or null
  /// One per stage; with Stage::steals, in the middle of those of all participants in turn.
  const PanelRange* ranges;
  const AheadTile* ahead;  ///< with KernelPlan::ahead: at least one
  std::uint64_t ahead_tiles;
  void* buffer[kMaxBuffers];         ///< base pointers, or tables of row pointers (external)
  std::int64_t stride[kMaxBuffers];  ///< external: bytes per step; strided: bytes per row
  /// Team of participants; one participant leaves them zero.
  std::uint64_t participant;
  std::uint64_t participants;
  std::uint64_t* const* published;  ///< per participant: its counter of stages completed
  std::uint64_t epoch;              ///< value of every counter when this call starts
  /// Per participant [stage][step % 2]; with Stage::steals and several participants.
  Claims* const* claims;
  std::uint64_t first_step;  ///< number of the first step, counted on from call to call
  void (*wait_slow)(const volatile std::uint64_t* counter, std::uint64_t at_least);
  /// Returns once none of `count` numbers is kUnwritten.
  void (*wait_data)(const volatile std::uint32_t* numbers, std::uint64_t count);
};
static_assert(std::is_standard_layout_v<KernelArgs> && std::is_trivial_v<KernelArgs>);

/// Runs a plan in plain C++, bit for bit as emitted code does. The caller has set FTZ and DAZ.
/// Takes about 4 KiB of the stack.
void interpret(const KernelPlan& plan, const KernelArgs& args) noexcept;

}  // namespace deepcpu::jit
