// SPDX-License-Identifier: Apache-2.0
/// Runner: one stream's state, the scratch to step it, and the loop over blocks and layers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"
#include "jit/kernel_plan.hpp"
#include "src/compile.hpp"
#include "src/runtime/memory.hpp"

namespace deepcpu {

/// What a Model owns: code and packed weights, immutable.
struct CompiledModel {
  Compilation compiled;
  AlignedBytes packed;
  std::vector<std::uint64_t> weights_at;  ///< per program step: offset of its packed weights
};

/// Arguments of one run, in bytes where strides are meant.
struct RunInput {
  const float* x = nullptr;
  float* y = nullptr;
  std::span<const std::span<const float>> extra;
  std::int64_t steps = 0;
  std::span<const std::int64_t> lengths;  ///< empty: all rows run all steps
};

class Runner {
 public:
  Runner(std::shared_ptr<const CompiledModel> model, Layout layout, std::int64_t max_steps);

  /// Whether all memory could be had.
  bool ready() const noexcept { return ready_; }
  void run(const RunInput& in) noexcept;
  void reset() noexcept;
  /// State `state` of program step `step`, [batch, width] packed.
  void store_state(std::size_t step, int state, const float* from) noexcept;
  void load_state(std::size_t step, int state, float* to) const noexcept;

  const CompiledModel& model() const noexcept { return *model_; }
  Layout layout() const noexcept { return layout_; }
  std::int64_t max_steps() const noexcept { return max_steps_; }

 private:
  /// A sequence of rows in memory, strides in bytes.
  struct View {
    std::byte* base = nullptr;
    std::int64_t row = 0;
    std::int64_t step = 0;
    bool user = false;      ///< the caller's array: rows in the caller's order
    bool absolute = false;  ///< holds the whole sequence, not one block
  };
  /// One program step with its memory.
  struct Part {
    const ProgramStep* step = nullptr;
    const LayerCode* code = nullptr;
    const unsigned char* weights = nullptr;
    jit::KernelArgs args{};
    jit::KernelArgs hoist_args{};
    std::vector<AlignedBytes> owned;          ///< per buffer of the step plan: states, scratch
    AlignedBytes hoisted;
    std::vector<std::vector<std::byte*>> rows;  ///< per buffer: row pointers of external ones
  };
  struct Block {
    std::int64_t first = 0;
    std::int64_t steps = 0;
  };

  bool make_part(Part& part, std::size_t index);
  bool make_buffers(Part& part);
  void make_hoist(Part& part);
  bool make_handover();
  View user_view(const void* data, std::int64_t width) const;
  View view_of(const Part& part, lower::BufferRole role, const RunInput& in) const;
  void sort_rows(const RunInput& in);
  void run_sequence(Part& part, const RunInput& in);
  void run_block(Part& part, const RunInput& in, Block block);
  void bind(Part& part, std::size_t buffer, const View& view, Block block);
  void run_hoist(Part& part, std::size_t x_buffer, const View& x, Block block);
  void count_active(Block block);
  std::int64_t live_rows(std::int64_t step) const;
  void zero_past_end(const RunInput& in) const;
  void permute_states(bool back) noexcept;
  void settle_slots() noexcept;
  template <class Visit>
  void each_state(Visit visit);
  std::byte* state_row(const Part& part, std::size_t buffer, std::int64_t row,
                       std::uint64_t slot) const;

  std::shared_ptr<const CompiledModel> model_;
  Layout layout_;
  std::int64_t max_steps_;
  bool ready_ = false;
  std::int64_t batch_;
  std::int64_t block_;
  std::vector<Part> parts_;
  std::vector<AlignedBytes> handover_;      ///< y of every layer but the last
  std::vector<std::int64_t> handover_row_;  ///< bytes
  std::vector<std::int32_t> active_;
  std::vector<std::int32_t> order_;        ///< sorted position -> caller's row
  std::vector<std::int64_t> length_;       ///< per sorted position
  AlignedBytes spare_;                     ///< rows of one state while they are permuted
  std::int64_t longest_ = 0;
  bool ragged_ = false;
  std::uint64_t parity_ = 0;
};

}  // namespace deepcpu
