// SPDX-License-Identifier: Apache-2.0
/// The parts of Runner that make, fill and read its memory.
#include <algorithm>
#include <bit>
#include <cstring>
#include <initializer_list>

#include "jit/index.hpp"
#include "src/io/checked.hpp"
#include "src/lower/align.hpp"
#include "src/machine/system.hpp"
#include "src/runtime/runner.hpp"

namespace deepcpu {
namespace {

using jit::Space;
using lower::BufferRole;
using lower::Role;

/// Time steps that stand between two layers.
std::int64_t handover_steps(const Program& program, std::int64_t max_steps) {
  if (program.whole_sequence) return std::max<std::int64_t>(1, max_steps);
  return program.block * program.handover_slots;
}

/// Bytes of one row between layer `layer` and the next.
std::int64_t handover_row(const ModelSpec& spec, int layer) {
  const std::int64_t width = spec.width(Dim::input, layer + 1);
  return static_cast<std::int64_t>(row_bytes(static_cast<std::uint64_t>(width)));
}

/// A sum of products, absent once it passes 64 bits.
class ByteCount {
 public:
  void add(std::initializer_list<std::uint64_t> factors) {
    std::optional<std::uint64_t> product = 1;
    for (const std::uint64_t f : factors) product = product ? checked_mul(*product, f) : product;
    sum_ = sum_ && product ? checked_add(*sum_, *product) : std::nullopt;
  }
  std::optional<std::uint64_t> sum() const { return sum_; }

 private:
  std::optional<std::uint64_t> sum_ = 0;
};

/// Numbers that the caller gives for input `index`, for one time step of one batch row.
std::int64_t input_width(const ModelSpec& spec, int index) {
  return spec.width(spec.cell.nodes()[at(spec.cell.inputs()[at(index)])].dim, 0);
}

/// Slots of hoisted sums: with products ahead, and with hoisters, one block is read while further
/// ones are written.
std::uint64_t hoisted_slots(const LayerCode& code, const Program& program) {
  if (program.hoisters > 0) return HoistQueue::kSlots;
  return code.ahead ? 2 : 1;
}

/// How often there are such slots. Products ahead are every participant's own, and so are their
/// sums: where a core writes a line now and then that stands beside another's, prefetches take it
/// away again and again. Experiment: DESIGN, 33.
std::uint64_t hoisted_regions(const LayerCode& code, const Program& program) {
  return code.ahead ? static_cast<std::uint64_t>(program.group) : 1;
}

/// The buffers of one program step, and what its participants point into them with.
void add_buffers(const LayerCode& code, const Program& program, std::uint64_t batch,
                 std::uint64_t block, ByteCount& bytes) {
  const auto group = static_cast<std::uint64_t>(program.participants_of_step());
  const auto seats = group + static_cast<std::uint64_t>(program.hoisters);
  const auto parts = static_cast<std::uint64_t>(program.row_parts);
  const auto rows = static_cast<std::uint64_t>(program.part_rows(static_cast<std::int64_t>(batch)));
  std::uint64_t spare = 0;
  if (code.ahead) {
    const jit::Ahead& ahead = *code.ahead->bound.plan.ahead;
    bytes.add({group, block, ahead.from_stride});
    for (const lower::AheadSum& sum : code.ahead_sums) {
      bytes.add({2, sum.blocks, sum.chains, block / ahead.rows, sizeof(jit::AheadTile)});
    }
  }
  for (const jit::Buffer& b : code.step.bound.plan.buffers) {
    if (b.space == Space::slots) bytes.add({b.slot_stride, b.slots, parts});
    if (b.space == Space::block) {
      const std::uint64_t slots = hoisted_slots(code, program) * hoisted_regions(code, program);
      bytes.add({b.step_stride, block, slots, parts});
    }
    if (b.space == Space::external) bytes.add({seats, rows, sizeof(std::byte*)});
    if (b.space == Space::slots) spare = std::max<std::uint64_t>(spare, b.slot_stride);
  }
  bytes.add({spare, parts});
  bytes.add({group, block, sizeof(std::int32_t)});
}

std::size_t state_buffer(const LayerCode& code, int state) {
  const auto& roles = code.step.bound.roles;
  const auto it = std::find_if(roles.begin(), roles.end(), [&](const BufferRole& r) {
    return r.role == Role::state && r.index == state;
  });
  return static_cast<std::size_t>(it - roles.begin());
}

/// A caller's state may hold any bits. Those that stand for "not written" become another NaN.
void make_written(float* numbers, std::size_t count) {
  for (float* n = numbers; n < numbers + count; ++n) {
    const auto bits = std::bit_cast<std::uint32_t>(*n);
    if (bits == jit::kUnwritten) *n = std::bit_cast<float>(bits | jit::kQuietBit);
  }
}

}  // namespace

std::optional<std::uint64_t> session_bytes(const Compilation& c, std::int64_t max_steps) {
  ByteCount bytes;
  const auto batch = static_cast<std::uint64_t>(c.spec.batch);
  for (int layer = 0; layer + 1 < c.spec.layers(); ++layer) {
    bytes.add({static_cast<std::uint64_t>(handover_steps(c.program, max_steps)), batch,
               static_cast<std::uint64_t>(handover_row(c.spec, layer))});
  }
  for (const ProgramStep& step : c.program.steps) {
    add_buffers(c.layers[at(step.layer)], c.program, batch,
                static_cast<std::uint64_t>(c.program.block), bytes);
  }
  return bytes.sum();
}

Runner::Runner(std::shared_ptr<const CompiledModel> model, Layout layout, std::int64_t max_steps,
               std::shared_ptr<ThreadTeam> team, const HelperOptions& helpers)
    : model_(std::move(model)),
      program_(&model_->compiled.program),
      layout_(layout),
      max_steps_(max_steps),
      batch_(model_->compiled.spec.batch),
      team_(std::move(team)),
      order_(batch_) {
  find_team(helpers);
  allocate();
}

/// Starts the helpers, unless there are fewer processors for this thread, whose affinity they
/// inherit, than for the one that compiled: then they would wait for each other.
void Runner::find_team(const HelperOptions& helpers) {
  const int participants = program_->participants;
  if (team_ && team_->helpers() == participants - 1) return;
  team_.reset();
  if (participants == 1) return;
  const int promised = std::min(participants, model_->compiled.processors);
  if (static_cast<int>(affinity().size()) < promised) {
    why_serial_ =
        "the calling thread may use fewer processors than the one that compiled the model";
  } else {
    team_ = std::make_shared<ThreadTeam>(participants - 1, helpers);
    if (team_->complete()) return;
    team_.reset();
    why_serial_ = "the helpers could not be started";
  }
  program_ = &model_->compiled.serial_program;
}

Runner::~Runner() = default;

void Runner::allocate() {
  // Two cache lines, which some processors fetch together.
  constexpr std::size_t kAlignment = 128;
  parts_.resize(program_->steps.size());
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    parts_[i].step = &program_->steps[i];
    parts_[i].code = &model_->compiled.layers[at(parts_[i].step->layer)];
  }
  std::size_t bytes = 0;
  each_buffer([&](Bytes&, std::size_t own) { bytes += align_up(own, kAlignment); });
  memory_ = AlignedBytes(bytes);
  std::byte* next = memory_.data();
  each_buffer([&](Bytes& buffer, std::size_t own) {
    buffer = {next, own};
    next += align_up(own, kAlignment);
  });
  for (std::size_t i = 0; i < parts_.size(); ++i) make_part(parts_[i], i);
  reset();
}

/// visit(buffer, bytes) for everything that lies in memory_.
template <class Visit>
void Runner::each_buffer(Visit visit) {
  const ModelSpec& spec = model_->compiled.spec;
  const auto handovers = at(spec.layers() - 1);
  handover_.resize(handovers);
  handover_row_.resize(handovers);
  const auto row_parts = at(program_->row_parts);
  std::size_t spare = 0;
  for (Part& part : parts_) {
    const auto& buffers = part.code->step.bound.plan.buffers;
    part.owned.resize(buffers.size());
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      if (buffers[b].space == Space::slots) {
        visit(part.owned[b], row_parts * buffers[b].slot_stride * buffers[b].slots);
        spare = std::max<std::size_t>(spare, row_parts * buffers[b].slot_stride);
      } else if (buffers[b].space == Space::block) {
        const std::size_t bytes = at(program_->block) * buffers[b].step_stride;
        visit(part.hoisted, row_parts * bytes * hoisted_slots(*part.code, *program_) *
                                hoisted_regions(*part.code, *program_));
      }
    }
    if (!part.code->ahead) continue;
    part.next_x.resize(at(program_->participants_of_step()));
    const std::uint64_t row = part.code->ahead->bound.plan.ahead->from_stride;
    for (Bytes& x : part.next_x) visit(x, at(program_->block) * row);
  }
  visit(spare_, spare);
  for (std::size_t layer = 0; layer < handovers; ++layer) {
    handover_row_[layer] = handover_row(spec, static_cast<int>(layer));
    visit(handover_[layer],
          at(handover_steps(*program_, max_steps_) * batch_ * handover_row_[layer]));
  }
}

/// What does not change from run to run of where the buffers of inputs and of the output lie.
void Runner::find_externals(Part& part) const {
  const ModelSpec& spec = model_->compiled.spec;
  const int layer = part.step->layer;
  const auto& roles = part.code->step.bound.roles;
  for (std::size_t b = 0; b < roles.size(); ++b) {
    if (roles[b].role != Role::input && roles[b].role != Role::output) continue;
    External o;
    o.buffer = b;
    o.role = roles[b];
    const bool output = o.role.role == Role::output;
    o.user = output ? layer + 1 == spec.layers() : layer == 0 || o.role.index > 0;
    o.boundary = output ? layer : layer - 1;
    if (o.user) {
      o.row = 4 * (output ? spec.output_width() : input_width(spec, o.role.index));
    } else {
      o.row = handover_row_[at(o.boundary)];
    }
    if (output) o.offset = 4 * part.step->direction * spec.width(spec.cell.output_dim(), layer);
    if (o.is_x()) part.x = part.externals.size();
    part.externals.push_back(o);
  }
}

void Runner::make_part(Part& part, std::size_t index) {
  find_externals(part);
  part.weights = reinterpret_cast<const unsigned char*>(model_->packed->bytes.data()) +
                 model_->packed->at[index];
  for (int i = 0; i < program_->participants_of_step(); ++i) {
    part.published.push_back(std::make_unique<Counter>());
    part.published_at.push_back(&part.published.back()->value);
    part.claims.emplace_back(2 * part.code->step.bound.plan.stages.size());
    part.claims_at.push_back(part.claims.back().data());
    part.blocks.push_back(std::make_unique<Counter>());
  }
  const auto& pieces = part.code->shared_panels.own_pieces;
  if (pieces && program_->group > 1) {
    for (const jit::Stage& s : part.code->hoist->bound.plan.stages) {
      part.hoist_row_work += static_cast<std::int64_t>(jit::multiply_adds(s));
    }
    for (int rows = 0; rows < program_->row_parts; ++rows) {
      const auto each = static_cast<int>(pieces->parts()) / program_->group;
      part.hoist_shares.push_back(std::make_unique<HoistShare>(program_->group, each));
    }
  }
  for (int rows = 0; rows < program_->row_parts; ++rows) {
    for (int i = 0; i < program_->group; ++i) make_seat(part, rows, i, false);
  }
  // Hoisters have a seat for the arguments of hoisted products, of all units.
  for (int i = 0; i < program_->hoisters; ++i) make_seat(part, 0, 0, true);
  if (program_->hoisters > 0) queue_ = std::make_unique<HoistQueue>();
}

/// Of a buffer that has each row part's rows apart, those of one part.
Runner::Bytes Runner::part_of(Bytes all, int row_part) const {
  const std::size_t bytes = all.size() / at(program_->row_parts);
  return all.subspan(at(row_part) * bytes, bytes);
}

void Runner::make_seat(Part& part, int row_part, int index, bool hoister) {
  const bool serial = program_ == &model_->compiled.serial_program;
  const auto& buffers = part.code->step.bound.plan.buffers;
  auto seat = std::make_unique<Seat>();
  seat->part = row_part;
  seat->rows = program_->rows_of_part(row_part, batch_);
  seat->row_pointers.resize(buffers.size());
  // Hoisters do not see lengths.
  if (!hoister) seat->active.resize(at(program_->block > 0 ? program_->block : kRaggedBlock));
  jit::KernelArgs& args = seat->args;
  args.weights = part.weights;
  args.rows = static_cast<std::uint64_t>(seat->rows);
  args.participant = static_cast<std::uint64_t>(index);
  args.participants = static_cast<std::uint64_t>(program_->group);
  args.published = part.published_at.data() + row_part * program_->group;
  args.claims = part.claims_at.data() + row_part * program_->group;
  args.wait_slow = &wait_until;
  args.wait_data = &wait_until_written;
  args.ranges = part.code->panels(serial).step->of(index);
  for (std::size_t b = 0; b < buffers.size(); ++b) {
    if (buffers[b].space == Space::slots) args.buffer[b] = part_of(part.owned[b], row_part).data();
    if (buffers[b].space == Space::external) {
      seat->row_pointers[b].resize(at(seat->rows));
      args.buffer[b] = seat->row_pointers[b].data();
    }
  }
  if (part.code->hoist) {
    seat->hoist_args.weights = part.weights;
    seat->hoist_args.steps = 1;
    seat->hoist_args.participants = 1;
    seat->hoist_args.ranges = part.code->panels(serial).hoist->of(index);
  }
  if (part.code->ahead) {
    seat->next_x = part.next_x[at(index)];
    make_tiles(part, *seat, part.code->panels(serial).hoist->of(index));
  }
  part.seats.push_back(std::move(seat));
}

Runner::Bytes Runner::hoisted_slot(const Part& part, const Seat& seat, std::size_t slot) const {
  const Bytes all = part_of(part.hoisted, seat.part);
  const std::size_t slots = hoisted_slots(*part.code, *program_);
  const std::size_t regions = hoisted_regions(*part.code, *program_);
  const std::size_t bytes = all.size() / (slots * regions);
  const std::size_t region = regions > 1 ? seat.args.participant : 0;
  return all.subspan((region * slots + slot) * bytes, bytes);
}

/// The tiles of a block, in both slots. Those of the same weights follow each other.
void Runner::make_tiles(const Part& part, Seat& seat, const jit::PanelRange* ranges) const {
  const jit::KernelPlan& hoist = part.code->hoist->bound.plan;
  const auto blocks =
      static_cast<std::uint64_t>(program_->block) / part.code->ahead->bound.plan.ahead->rows;
  std::vector<std::pair<const lower::AheadSum*, std::uint32_t>> units;
  std::size_t tiles = 0;
  for (std::size_t s = 0; s < hoist.stages.size(); ++s) {
    for (std::uint64_t i = 0; i < ranges[s].count; ++i) {
      const std::uint32_t panel = ranges[s].order[0][i];
      const std::uint32_t first = panel * hoist.stages[s].units_per_panel;
      for (std::uint32_t u = first; u < first + hoist.units(hoist.stages[s], panel); ++u) {
        for (const lower::AheadSum& sum : part.code->ahead_sums) {
          if (sum.stage != s || u >= sum.blocks) continue;
          units.emplace_back(&sum, u);
          tiles += blocks * sum.chains;
        }
      }
    }
  }
  for (const std::size_t slot : {0U, 1U}) {
    seat.ahead[slot].reserve(tiles);
    for (const auto& [sum, unit] : units) add_tiles(part, seat, slot, *sum, unit);
  }
}

/// Of one sum and unit block: all rows of a block of steps, the chains of a row together.
void Runner::add_tiles(const Part& part, Seat& seat, std::size_t slot, const lower::AheadSum& sum,
                       std::uint64_t unit) const {
  alignas(64) static constexpr float kZeros[16] = {};
  const jit::Ahead& plan = *part.code->ahead->bound.plan.ahead;
  const std::uint64_t vector = unit * sizeof(float) * part.code->layout.lanes;
  const bool last = unit + 1 == sum.blocks;
  const unsigned char* init = part.weights + vector;
  if (sum.init) init += last ? *sum.last_init : *sum.init;
  const unsigned char* weights =
      part.weights + (last ? sum.last_weights : sum.weights + unit * sum.block_stride);
  std::byte* to = hoisted_slot(part, seat, slot).data() + sum.to + vector;
  for (std::int64_t row = 0; row < program_->block; row += plan.rows) {
    const std::byte* from = seat.next_x.data() + at(row) * plan.from_stride;
    for (std::uint32_t chain = 0; chain < sum.chains; ++chain) {
      jit::AheadTile tile;
      tile.from_step = sum.chains * sizeof(float);
      tile.from = reinterpret_cast<const float*>(from) + chain;
      tile.end = tile.from + (sum.k - chain + sum.chains - 1) / sum.chains * sum.chains;
      tile.weight_step = sum.chains * sum.weight_stride;
      tile.weights = weights + chain * sum.weight_stride;
      tile.init = chain == 0 && sum.init ? reinterpret_cast<const float*>(init) : kZeros;
      tile.to = reinterpret_cast<float*>(to + at(row) * plan.to_stride);
      tile.joins = chain;
      seat.ahead[slot].push_back(tile);
    }
  }
}

template <class Visit>
void Runner::each_state(Visit visit) {
  for (Part& part : parts_) {
    const auto& roles = part.code->step.bound.roles;
    for (std::size_t b = 0; b < roles.size(); ++b) {
      if (roles[b].role == Role::state) visit(part, b);
    }
  }
}

void Runner::reset() noexcept {
  each_state([](Part& part, std::size_t b) {
    std::memset(part.owned[b].data(), 0, part.owned[b].size());
  });
  rings_ready_ = false;
}

/// Marks the slots that the next step writes as not written.
void Runner::prepare_rings() noexcept {
  for (Part& part : parts_) {
    const auto& buffers = part.code->step.bound.plan.buffers;
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      if (buffers[b].slots != 3) continue;
      for (int rows = 0; rows < program_->row_parts; ++rows) {
        std::byte* slot = part_of(part.owned[b], rows).data() +
                          (call_.steps_done + 1) % 3 * buffers[b].slot_stride;
        std::fill_n(reinterpret_cast<float*>(slot), buffers[b].slot_stride / sizeof(float),
                    std::bit_cast<float>(jit::kUnwritten));
      }
    }
  }
  rings_ready_ = true;
}

std::byte* Runner::state_row(const Part& part, std::size_t buffer, std::int64_t row,
                             std::uint64_t steps) const {
  const jit::Buffer& b = part.code->step.bound.plan.buffers[buffer];
  const std::int64_t parts = program_->row_parts;
  const Bytes own = part_of(part.owned[buffer], static_cast<int>(row % parts));
  return own.data() + steps % b.slots * b.slot_stride + at(row / parts) * b.row_stride;
}

void Runner::store_state(std::size_t step, int state, const float* from) noexcept {
  const Part& part = parts_[step];
  const std::size_t b = state_buffer(*part.code, state);
  const jit::Buffer& buffer = part.code->step.bound.plan.buffers[b];
  const std::size_t width = buffer.width;
  for (std::int64_t r = 0; r < batch_; ++r) {
    std::byte* row = state_row(part, b, r, call_.steps_done);
    std::memcpy(row, from + at(r) * width, width * sizeof(float));
    if (buffer.slots == 3) make_written(reinterpret_cast<float*>(row), width);
  }
}

void Runner::load_state(std::size_t step, int state, float* to) const noexcept {
  const Part& part = parts_[step];
  const std::size_t b = state_buffer(*part.code, state);
  const std::size_t width = part.code->step.bound.plan.buffers[b].width;
  for (std::int64_t r = 0; r < batch_; ++r) {
    std::memcpy(to + at(r) * width, state_row(part, b, r, call_.steps_done), width * sizeof(float));
  }
}

void Runner::take_states(const Runner& other) noexcept {
  const auto states = static_cast<int>(model_->compiled.spec.cell.states().size());
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const Part& from = other.parts_[i];
    for (int state = 0; state < states; ++state) {
      const std::size_t own = state_buffer(*parts_[i].code, state);
      const std::size_t theirs = state_buffer(*from.code, state);
      const jit::Buffer& buffer = parts_[i].code->step.bound.plan.buffers[own];
      for (std::int64_t r = 0; r < batch_; ++r) {
        std::byte* row = state_row(parts_[i], own, r, call_.steps_done);
        std::memcpy(row, other.state_row(from, theirs, r, other.call_.steps_done),
                    buffer.width * sizeof(float));
        if (buffer.slots == 3) make_written(reinterpret_cast<float*>(row), buffer.width);
      }
    }
  }
}

void Runner::zero_past_end(const RunInput& in) const {
  const std::int64_t bytes = 4 * model_->compiled.spec.output_width();
  const View y = user_view(in.y, bytes, in.steps);
  for (std::int64_t r = 0; r < batch_; ++r) {
    for (std::int64_t t = order_.length(r); t < in.steps; ++t) {
      std::memset(y.base + order_.row(r) * y.row + t * y.step, 0, at(bytes));
    }
  }
}

/// Brings the rows of every state into sorted order before a ragged run, and back after it.
void Runner::permute_states(bool back) noexcept {
  each_state([&](Part& part, std::size_t b) {
    const std::uint64_t stride = part.code->step.bound.plan.buffers[b].row_stride;
    const auto row = [&](std::int64_t r) { return state_row(part, b, r, call_.steps_done); };
    for (std::int64_t r = 0; r < batch_; ++r) {
      std::memcpy(spare_.data() + at(r) * stride, row(r), stride);
    }
    for (std::int64_t r = 0; r < batch_; ++r) {
      const std::int64_t from = back ? r : order_.row(r);
      const std::int64_t to = back ? order_.row(r) : r;
      std::memcpy(row(to), spare_.data() + at(from) * stride, stride);
    }
  });
}

/// A row that ended early left its final state in the slot of its own last step.
void Runner::settle_slots() noexcept {
  each_state([&](Part& part, std::size_t b) {
    const jit::Buffer& buffer = part.code->step.bound.plan.buffers[b];
    const std::uint64_t end = call_.steps_done + static_cast<std::uint64_t>(order_.longest());
    for (std::int64_t r = 0; r < batch_; ++r) {
      const std::uint64_t own = call_.steps_done + static_cast<std::uint64_t>(order_.length(r));
      if (own % buffer.slots == end % buffer.slots) continue;
      std::memcpy(state_row(part, b, r, end), state_row(part, b, r, own), buffer.row_stride);
    }
  });
}

}  // namespace deepcpu
