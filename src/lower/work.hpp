// SPDX-License-Identifier: Apache-2.0
/// Work: what the kernels of a model do per time step, as the numbers that the cost model and the
/// limit are computed from. Read off the lowered plans, so that it cannot differ from what runs.
#pragma once

#include <cstdint>
#include <vector>

#include "deepcpu/model.hpp"
#include "jit/kernel_plan.hpp"
#include "src/lower/panel_width.hpp"

namespace deepcpu {

/// One product of a stage, for one row.
struct ProductWork {
  std::uint32_t k = 0;
  std::uint32_t gates = 0;   ///< gates that it adds to
  std::uint32_t chains = 1;  ///< partial sums per accumulator
  std::uint32_t packed = 0;  ///< gates that stand side by side in the matrix
  std::uint32_t last = 0;    ///< vectors that hold the gates of the last unit block
  std::uint32_t half = 0;    ///< of these, vectors of AVX-512 of which half counts
  bool of_input = false;     ///< multiplies the layer's input

  /// Part of a unit block's vectors that the last one does not have.
  double saved() const { return gates > 0 ? 1.0 - static_cast<double>(last) / gates : 0.0; }

  /// Bytes of weights of a panel of so many unit blocks.
  double panel_bytes(double units, std::uint32_t lanes) const {
    return 4.0 * lanes * units * k * gates;
  }
};

/// Element-wise operations on vectors, each counted as one whatever it takes.
struct OperationCounts {
  int sigmoids = 0;
  int tanhs = 0;   ///< exp too
  int others = 0;  ///< multiply-adds too
};

/// One stage of a kernel.
struct StageWork {
  std::uint32_t outputs = 0;  ///< units of each gate
  lower::PanelWidth width;    ///< and the unit blocks of all panels
  /// What belongs to one participant together, as its narrow panels. With wide panels that may be
  /// more, but no participant has more blocks than the one with the most has so.
  lower::PanelWidth share;
  bool hoisted = false;           ///< of a hoisted kernel, whose panels end where shares do
  std::uint32_t gates = 0;        ///< accumulators per unit block and row
  std::uint32_t row_vectors = 0;  ///< registers that these take, partial sums too
  std::vector<ProductWork> products;
  double vectors = 0.0;         ///< arithmetic vector instructions per unit block and row
  double divisions = 0.0;       ///< vector divisions alike
  double latency_cycles = 0.0;  ///< from the last sum to the last store
  double row_bytes = 0.0;       ///< loaded and stored per unit block and row, without weights
  OperationCounts operations;   ///< per unit block and row
  bool exchange = false;
  bool hands_over = false;  ///< products of other participants read what it stores

  /// Whether the last unit block is among those of the participant that has the most.
  bool busiest_has_last(int sharers) const;
  /// Unit blocks of a product for that participant: less than own_blocks() if gates share vectors
  /// in the last one.
  double product_blocks(const ProductWork& p, int sharers) const;
  /// Of a product and one row, without lanes beyond the last unit.
  double multiply_adds(const ProductWork& p) const { return 1.0 * outputs * p.k * p.gates; }
  /// Bytes of packed weights that it reads.
  double weight_bytes(std::uint32_t lanes, int sharers) const;
  /// Whether lower::cut_products makes pieces of panels that are large enough, if tiles of at most
  /// `height` rows share so many.
  bool cuts(std::uint64_t rows, std::uint32_t height) const;
  /// Unit blocks of a panel when so many participants share the stage.
  std::uint32_t panel_units(int sharers, Panel panel) const;
  std::uint32_t panels(int sharers, Panel panel) const;
  /// Rows of the highest register tile.
  std::uint32_t highest_tile(Isa isa, int sharers, Panel panel) const;
  /// Unit blocks that belong together when so many participants share the stage.
  std::uint32_t share_units(int sharers) const;
  /// Parts that can be owned by so many different participants.
  std::uint32_t shares(int sharers) const;
  /// Unit blocks of the participant that has the most, of `sharers`, whatever the panels are.
  std::uint32_t own_blocks(int sharers) const;
};

struct KernelWork {
  std::vector<StageWork> stages;
  double weight_bytes = 0.0;  ///< of all stages
};

/// One layer in one direction, for every choice that changes its plans.
struct LayerWork {
  KernelWork step[2][2];  ///< [x·W hoisted][gates fused]
  KernelWork hoist;       ///< no stages if nothing can be hoisted
  double hoisted_row_bytes = 0.0;
  /// What is legal with panels of one kind.
  struct Fits {
    bool registers[2][2]{};      ///< weights=registers, indices as of step
    std::vector<bool> ahead[2];  ///< hoist_ahead=true, [gates fused][sharers - 1]
  };
  Fits narrow, wide;
  bool one_gate_stages = true;  ///< fusing gates changes nothing

  const Fits& fits(Panel panel) const { return panel == Panel::wide ? wide : narrow; }
  /// Whether hoist_ahead=true is legal with the panels and the gates of `s`; of more sharers than
  /// ModelWork::of was told of it is not known to be.
  bool fits_ahead(const LayerSchedule& s, int sharers) const;
  /// Whether wide panels are others than narrow ones.
  bool widens(bool hoisted, bool fused, int sharers) const;
  /// Panels of the stage with the most.
  std::uint32_t panels(int sharers, Panel panel) const;
  /// Panels of it that the participant with the most walks.
  std::uint32_t own_panels(int sharers, Panel panel) const;
  /// Into how many parts at most the panels of hoisted products are divided, each of whole cache
  /// lines of what is stored, when so many participants share the time loop.
  std::uint32_t hoisted_parts(std::uint32_t lanes, int sharers) const;
  /// Shares of the stage with the most: more participants find nothing to do.
  std::uint32_t shares(int sharers) const;
};

struct ModelWork {
  ModelSpec spec;  ///< of a part of the batch rows: with the rows of that part
  Isa isa = Isa::interpreter;
  std::uint32_t lanes = 16;
  std::vector<LayerWork> layers;
  /// What one of several parts of the batch rows is (Schedule::split_rows), for every number of
  /// rows that such a part can have; the most first.
  std::vector<ModelWork> parts;

  /// Lowers every layer in all its forms, for the whole batch and for the parts of it that up to
  /// `threads` threads make. The spec must be valid. Errors are those of lowering.
  static Result<ModelWork> of(const ModelSpec& spec, Isa isa, int threads = 1);
  /// The work of one of `split_rows` parts: of the largest. More parts than threads were named are
  /// taken for as many as there are.
  const ModelWork& part(int split_rows) const;
};

}  // namespace deepcpu
