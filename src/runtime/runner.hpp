// SPDX-License-Identifier: Apache-2.0
/// Runner: one stream's state, the scratch to step it, and the loop over blocks and layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"
#include "jit/kernel_plan.hpp"
#include "src/compile.hpp"
#include "src/runtime/hoist_queue.hpp"
#include "src/runtime/hoist_share.hpp"
#include "src/runtime/memory.hpp"
#include "src/runtime/packed_weights.hpp"
#include "src/runtime/row_order.hpp"
#include "src/runtime/team.hpp"
#include "src/runtime/wait.hpp"

namespace deepcpu {

/// What a Model owns: code and packed weights, immutable.
struct CompiledModel {
  Compilation compiled;
  std::shared_ptr<const PackedWeights> packed;
};

/// Arguments of one run.
struct RunInput {
  const float* x = nullptr;
  float* y = nullptr;
  std::span<const std::span<const float>> extra;
  std::int64_t steps = 0;
  std::span<const std::int64_t> lengths;  ///< empty: all rows run all steps
};

/// Bytes of all states and scratch of a session; absent if 64 bits cannot count them.
std::optional<std::uint64_t> session_bytes(const Compilation& compiled, std::int64_t max_steps);

class Runner {
 public:
  /// Takes its helpers from `team` if that has as many as it needs. Throws std::bad_alloc.
  Runner(std::shared_ptr<const CompiledModel> model, Layout layout, std::int64_t max_steps,
         std::shared_ptr<ThreadTeam> team = nullptr, const HelperOptions& helpers = {});
  ~Runner();

  /// Why one thread serves though the schedule asks for more; empty if that is not so.
  std::string_view why_serial() const noexcept { return why_serial_; }
  /// Its helpers, which another runner may use while this one does not run; null if it has none.
  const std::shared_ptr<ThreadTeam>& team() const noexcept { return team_; }
  /// Gives how many threads took part.
  int run(const RunInput& in) noexcept;
  void reset() noexcept;
  /// State `state` of program step `step`, [batch, width] packed.
  void store_state(std::size_t step, int state, const float* from) noexcept;
  void load_state(std::size_t step, int state, float* to) const noexcept;
  /// The states of a runner of the same spec, whatever its schedule.
  void take_states(const Runner& other) noexcept;

  const CompiledModel& model() const noexcept { return *model_; }
  std::int64_t max_steps() const noexcept { return max_steps_; }

 private:
  using Bytes = std::span<std::byte>;  ///< a part of memory_

  /// A sequence of rows in memory, strides in bytes.
  struct View {
    std::byte* base = nullptr;
    std::int64_t row = 0;
    std::int64_t step = 0;
    bool user = false;      ///< the caller's array: rows in the caller's order
    bool absolute = false;  ///< holds the whole sequence, not one block
  };
  /// One participant's own arguments of a program step. On cache lines of its own.
  struct alignas(128) Seat {
    jit::KernelArgs args{};
    jit::KernelArgs hoist_args{};
    std::vector<std::vector<std::byte*>> row_pointers;  ///< per buffer: those of external ones
    std::vector<std::int32_t> active;                   ///< live rows per step of the block
    /// The slot of hoisted sums that this block reads; with hoisters, that a piece is written to.
    /// With products ahead: rows of x of the next block, tiles for each of two slots, and whether
    /// the sums of this block are there already.
    Bytes next_x;
    std::vector<jit::AheadTile> ahead[2];
    std::size_t slot = 0;
    bool hoisted = false;
    std::uint64_t hoists = 0;  ///< blocks whose products all participants have shared so far
    int part = 0;              ///< of the batch rows
    std::int64_t rows = 0;     ///< in it
  };
  /// A buffer of a program step that lies outside of it: an input or the output.
  struct External {
    std::size_t buffer = 0;  ///< among those of the step's plan
    lower::BufferRole role;
    bool user = false;        ///< the caller's array
    int boundary = 0;         ///< else: between this layer and the next
    std::int64_t row = 0;     ///< bytes of a time step of one batch row
    std::int64_t offset = 0;  ///< bytes before the direction's part of it
    bool is_x() const { return role.role == lower::Role::input && role.index == 0; }
  };
  /// One program step with its memory.
  struct Part {
    const ProgramStep* step = nullptr;
    const LayerCode* code = nullptr;
    const unsigned char* weights = nullptr;
    std::vector<External> externals;
    std::size_t x = 0;         ///< the layer's input among them, if anything reads it
    std::vector<Bytes> owned;  ///< per buffer of the step plan: states, scratch, of all row parts
    Bytes hoisted;  ///< for each row part one slot, two per participant with products ahead, or
                    ///< HoistQueue::kSlots
    std::vector<Bytes> next_x;  ///< per participant, with products ahead
    /// Per participant of the step, row part by row part, then of each hoister.
    std::vector<std::unique_ptr<Seat>> seats;
    std::vector<std::unique_ptr<Counter>> published;  ///< exchanges done, per participant
    std::vector<std::uint64_t*> published_at;
    std::vector<std::vector<jit::Claims>> claims;  ///< per participant
    std::vector<jit::Claims*> claims_at;
    std::vector<std::unique_ptr<Counter>> blocks;           ///< blocks done, per participant
    std::vector<std::unique_ptr<HoistShare>> hoist_shares;  ///< per row part, with several sharers
    std::int64_t hoist_row_work = 0;  ///< multiply-adds of one row of hoisted sums
  };
  /// Steps between two looks at the rows' lengths where no schedule asks for blocks.
  static constexpr std::int64_t kRaggedBlock = 256;

  /// After so many steps all slots of all buffers stand as before.
  static constexpr std::uint64_t kSlotPeriod = 6;

  /// What changes from run to run. A helper that begins a run fetches each cache line that the
  /// caller has written, one after the other; so all that it needs is in one, and nothing else that
  /// it reads is written without need.
  struct alignas(128) Call {
    /// Time steps done so far, mod 6: enough for buffers of two slots and of three.
    std::uint64_t steps_done = 0;
    std::uint64_t blocks_done = 0;  ///< blocks of all runs so far
    /// This run takes its hoisted products from the queue. One with lengths does not: it is left to
    /// the time loop's own participant.
    bool shares_hoist = false;
    RunInput in;
  };
  // Lengths, which no helper reads, come last.
  static_assert(offsetof(Call, in) + offsetof(RunInput, lengths) <= 64);

  struct Block {
    std::int64_t first = 0;
    std::int64_t steps = 0;
    std::uint64_t number = 0;  ///< counts on from run to run
  };

  void find_team(const HelperOptions& helpers);
  void allocate();
  template <class Visit>
  void each_buffer(Visit visit);
  void make_part(Part& part, std::size_t index);
  void make_seat(Part& part, int row_part, int seat, bool hoister);
  Bytes part_of(Bytes all, int row_part) const;
  std::pair<int, int> seats_of(const ProgramStep& step, int participant) const;
  void make_tiles(const Part& part, Seat& seat, const jit::PanelRange* ranges) const;
  void add_tiles(const Part& part, Seat& seat, std::size_t slot, const lower::AheadSum& sum,
                 std::uint64_t unit) const;
  Bytes hoisted_slot(const Part& part, const Seat& seat, std::size_t slot) const;
  void find_externals(Part& part) const;
  const void* user_data(lower::BufferRole role) const;
  View user_view(const void* data, std::int64_t row, std::int64_t steps) const;
  View view_of(const External& external, const Block& block) const;
  static void work(void* self, int participant) noexcept;
  void run_participant(int participant) noexcept;
  void run_sequence(Part& part, int seat, std::uint64_t number);
  void run_block(Part& part, int seat, const Block& block);
  void run_kernels(Part& part, Seat& seat, const Block& block);
  void hoist_pieces(int participant) noexcept;
  void hoist_piece(const Part& part, Seat& seat, const HoistQueue::Piece& piece);
  bool shares_hoist(const Part& part, const Seat& seat, const Block& block) const;
  void share_hoist(const Part& part, Seat& seat, const View& x, const Block& block);
  void finish_hoist(const Part& part, Seat& seat, const Block& block);
  void take_hoisted(const Part& part, Seat& seat, const View& x, const Block& block);
  void read_hoisted(const Part& part, Seat& seat) const;
  std::int64_t block_in_run(const Block& block) const {
    return static_cast<std::int64_t>(block.number - call_.blocks_done);
  }
  void bind(const Part& part, Seat& seat, std::size_t buffer, const View& view,
            const Block& block) const;
  void run_hoist(const Part& part, Seat& seat, const View& x, const Block& block,
                 std::int64_t skipped);
  bool prepare_ahead(const Part& part, Seat& seat, const Block& block) const;
  void hoist_rows(const Part& part, Seat& seat, std::byte* from, std::int64_t from_stride,
                  std::int64_t to, std::int64_t to_stride, std::int64_t count);
  void wait_for_neighbours(const Part& part, int row_part, const Block& block) const;
  /// The place, among all rows in their order, of row `r` of a seat's part.
  std::int64_t place(const Seat& seat, std::int64_t r) const {
    return r * program_->row_parts + seat.part;
  }
  Blocks divide() const;
  std::int64_t blocks_per_run() const;
  void zero_past_end(const RunInput& in) const;
  void permute_states(bool back) noexcept;
  void settle_slots() noexcept;
  template <class Visit>
  void each_state(Visit visit);
  /// A row, by its place in the order of rows, of a state as it is after `steps` steps (of all
  /// runs).
  std::byte* state_row(const Part& part, std::size_t buffer, std::int64_t row,
                       std::uint64_t steps) const;
  void prepare_rings() noexcept;

  std::shared_ptr<const CompiledModel> model_;
  const Program* program_;  ///< the model's own, or the one-thread form of it
  Layout layout_;
  std::int64_t max_steps_;
  std::string_view why_serial_;
  std::int64_t batch_;
  std::shared_ptr<ThreadTeam> team_;
  std::vector<Part> parts_;
  /// All states and scratch in one piece, so that they lie to each other in the same way in every
  /// session.
  AlignedBytes memory_;
  std::vector<Bytes> handover_;             ///< y of every layer but the last
  std::vector<std::int64_t> handover_row_;  ///< bytes
  RowOrder order_;
  Blocks blocks_;  ///< of the run; made anew only with another order_: divisions take their time
  std::unique_ptr<HoistQueue> queue_;  ///< with hoisters
  Bytes spare_;                        ///< rows of one state while they are permuted
  bool rings_ready_ = false;           ///< the slots that the next step writes hold kUnwritten
  Call call_;
};

}  // namespace deepcpu
