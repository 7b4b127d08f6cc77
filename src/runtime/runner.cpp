// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/runner.hpp"

#include <algorithm>
#include <cstring>

#include "jit/index.hpp"
#include "src/runtime/flush_denormals.hpp"

namespace deepcpu {
namespace {

using lower::Role;

}  // namespace

int Runner::run(const RunInput& in) noexcept {
  const FlushDenormals guard;  // first: a kernel right behind it would wait some 30 ns
  call_.in = in;
  if (order_.set(in.lengths, in.steps)) blocks_ = divide();
  if (order_.ragged()) permute_states(false);
  if (!rings_ready_) prepare_rings();
  call_.shares_hoist = queue_ && !order_.ragged();
  if (call_.shares_hoist) {
    const std::int64_t parts = parts_.front().code->shared_panels.pieces->parts();
    queue_->begin(blocks_, program_->piece_steps(blocks_.longest(), parts), parts);
  }
  const bool together = team_ && (!queue_ || call_.shares_hoist);
  if (together) {
    team_->run(&Runner::work, this);
  } else {
    run_participant(0);
  }
  if (order_.ragged()) {
    settle_slots();
    zero_past_end(in);
  }
  call_.blocks_done += static_cast<std::uint64_t>(blocks_per_run());
  call_.steps_done =
      (call_.steps_done + static_cast<std::uint64_t>(order_.longest())) % kSlotPeriod;
  if (order_.ragged()) {
    permute_states(true);
    rings_ready_ = false;  // rows that ended early have not marked their slots
  }
  return together ? program_->participants : 1;
}

void Runner::work(void* self, int participant) noexcept {
  Runner& runner = *static_cast<Runner*>(self);
  if (participant == 0) return runner.run_participant(0);  // run's guard is on this thread
  const FlushDenormals guard;
  runner.run_participant(participant);
}

/// Into the blocks of a run of so many steps.
Blocks Runner::divide() const {
  const std::int64_t steps = order_.longest();
  if (program_->block > 0) return program_->blocks_of(steps);
  const bool look_at_lengths = order_.ragged() || program_->whole_sequence;
  return Blocks::even(steps, look_at_lengths ? kRaggedBlock : std::max<std::int64_t>(1, steps));
}

/// What Block::number counts: a layer that takes whole sequences hands them over as one.
std::int64_t Runner::blocks_per_run() const {
  return program_->whole_sequence ? 1 : blocks_.count();
}

void Runner::run_participant(int participant) noexcept {
  if (participant >= program_->participants - program_->hoisters) return hoist_pieces(participant);
  const std::int64_t count = blocks_per_run();
  for (std::int64_t b = 0; b < count; ++b) {
    const std::uint64_t number = call_.blocks_done + static_cast<std::uint64_t>(b);
    for (Part& part : parts_) {
      if (!program_->runs_on(*part.step, participant)) continue;
      const auto [first, end] = seats_of(*part.step, participant);
      for (int seat = first; seat < end; ++seat) {
        if (program_->whole_sequence) {
          run_sequence(part, seat, number);
        } else {
          run_block(part, seat, {blocks_.begin(b), blocks_.size(b), number});
        }
      }
    }
  }
}

/// From the first to behind the last of the seats that the participant takes, one after the other.
std::pair<int, int> Runner::seats_of(const ProgramStep& step, int participant) const {
  const bool alone = program_->participants == 1;
  if (alone && program_->only_part < 0) return {0, program_->row_parts};
  const int seat = alone ? program_->only_part : participant - step.first;
  return {seat, seat + 1};
}

/// A layer that takes the whole sequence: block by block all the same, for the hoisted products.
void Runner::run_sequence(Part& part, int seat, std::uint64_t number) {
  Seat& own = *part.seats[at(seat)];
  wait_for_neighbours(part, own.part, {0, 0, number});
  for (std::int64_t b = 0; b < blocks_.count(); ++b) {
    run_kernels(part, own, {blocks_.begin(b), blocks_.size(b), number});
  }
  part.blocks[at(seat)]->store(number + 1);
}

void Runner::run_block(Part& part, int seat, const Block& block) {
  Seat& own = *part.seats[at(seat)];
  wait_for_neighbours(part, own.part, block);
  run_kernels(part, own, block);
  part.blocks[at(seat)]->store(block.number + 1);
}

/// For other layers to be so far with the same rows.
void Runner::wait_for_neighbours(const Part& part, int row_part, const Block& block) const {
  if (program_->participants == 1) return;
  auto wait = [&](const std::vector<int>& steps, std::uint64_t blocks) {
    for (const int s : steps) {
      for (int i = 0; i < program_->group; ++i) {
        Counter& counter = *parts_[at(s)].blocks[at(row_part * program_->group + i)];
        if (counter.load() < blocks) wait_until(&counter.value, blocks);
      }
    }
  };
  wait(part.step->producers, block.number + 1);
  const auto slots = static_cast<std::uint64_t>(program_->handover_slots);
  if (block.number >= slots) wait(part.step->consumers, block.number + 1 - slots);
}

void Runner::run_kernels(Part& part, Seat& seat, const Block& block) {
  for (const External& external : part.externals) {
    const View view = view_of(external, block);
    bind(part, seat, external.buffer, view, block);
    if (part.code->hoist && external.is_x()) take_hoisted(part, seat, view, block);
  }
  const bool ahead = prepare_ahead(part, seat, block);
  jit::KernelArgs& args = seat.args;
  args.steps = static_cast<std::uint64_t>(block.steps);
  const std::uint64_t steps = call_.steps_done + static_cast<std::uint64_t>(block.first);
  args.parity = steps % 2;
  args.phase = steps % 3;
  args.active = nullptr;
  if (order_.ragged()) {
    const auto live = std::span(seat.active).first(at(block.steps));
    order_.live(block.first, live);
    for (std::int32_t& rows : live) {
      rows = static_cast<std::int32_t>(program_->rows_of_part(seat.part, rows));
    }
    args.active = seat.active.data();
  }
  args.epoch = *args.published[args.participant];
  ahead ? (*part.code->ahead)(args) : part.code->step(args);
  args.first_step += args.steps;
  if (call_.shares_hoist) queue_->release(block_in_run(block));
  seat.hoisted = ahead;
  if (ahead) seat.slot ^= 1;
}

/// Sees to it that the hoisted sums of the block are there, and points the time loop at them. The
/// rows of x are bound.
void Runner::take_hoisted(const Part& part, Seat& seat, const View& x, const Block& block) {
  if (call_.shares_hoist) {
    finish_hoist(part, seat, block);
    bind(part, seat, part.externals[part.x].buffer, x, block);
  } else if (!seat.hoisted && shares_hoist(part, seat, block)) {
    share_hoist(part, seat, x, block);
  } else if (!seat.hoisted) {
    run_hoist(part, seat, x, block, 0);
  }
  read_hoisted(part, seat);
}

/// What a participant does that only computes hoisted products.
void Runner::hoist_pieces(int participant) noexcept {
  Part& part = parts_.front();
  Seat& seat = *part.seats[at(participant)];
  while (const auto piece = queue_->take()) hoist_piece(part, seat, *piece);
}

void Runner::hoist_piece(const Part& part, Seat& seat, const HoistQueue::Piece& piece) {
  const External& x = part.externals[part.x];
  const Block steps{piece.first, piece.steps,
                    call_.blocks_done + static_cast<std::uint64_t>(piece.block)};
  const View view = view_of(x, steps);
  seat.slot = HoistQueue::slot(piece.block);
  bind(part, seat, x.buffer, view, steps);
  const jit::PanelRange* all = seat.hoist_args.ranges;
  seat.hoist_args.ranges = part.code->shared_panels.pieces->of(piece.part);
  run_hoist(part, seat, view, steps, piece.skipped);
  seat.hoist_args.ranges = all;
  queue_->finish(piece);
}

/// Whether all participants of the seat's group do: what it depends on is the same for them.
bool Runner::shares_hoist(const Part& part, const Seat& seat, const Block& block) const {
  if (part.hoist_shares.empty()) return false;
  return block.steps * seat.rows * part.hoist_row_work >= HoistShare::kLeastWork * program_->group;
}

/// With the other participants of the seat's group, until all are done.
void Runner::share_hoist(const Part& part, Seat& seat, const View& x, const Block& block) {
  HoistShare& share = *part.hoist_shares[at(seat.part)];
  const int self = static_cast<int>(seat.args.participant);
  const jit::PanelRange* own = seat.hoist_args.ranges;
  share.begin(self, seat.hoists);
  while (const auto piece = share.take(self, seat.hoists)) {
    seat.hoist_args.ranges = part.code->shared_panels.own_pieces->of(*piece);
    run_hoist(part, seat, x, block, 0);
  }
  seat.hoist_args.ranges = own;
  share.finish(self, seat.hoists++);
}

/// Helps until all hoisted products of a block are there.
void Runner::finish_hoist(const Part& part, Seat& seat, const Block& block) {
  const std::int64_t number = block_in_run(block);
  while (const auto piece = queue_->take_for(number)) hoist_piece(part, seat, *piece);
  queue_->wait_for_block(number);
  seat.slot = HoistQueue::slot(number);
}

/// Points the time loop at the seat's slot of hoisted sums.
void Runner::read_hoisted(const Part& part, Seat& seat) const {
  const auto& roles = part.code->step.bound.roles;
  for (std::size_t b = 0; b < roles.size(); ++b) {
    if (roles[b].role != Role::hoisted) continue;
    seat.args.buffer[b] = hoisted_slot(part, seat, seat.slot).data();
  }
}

/// Gives whether the kernel is to compute the hoisted sums of the next block, too, which must be a
/// full one (check_division made sure that its x is known), and copies that x, so that rows have a
/// stride of our own.
bool Runner::prepare_ahead(const Part& part, Seat& seat, const Block& block) const {
  if (!part.code->ahead) return false;
  const std::int64_t first = block.first + block.steps;
  if (order_.ragged() || order_.longest() - first < program_->block) return false;
  const std::vector<jit::AheadTile>& tiles = seat.ahead[seat.slot ^ 1];
  if (tiles.empty()) return false;  // a participant without units
  const std::size_t x = part.externals[part.x].buffer;
  const jit::Ahead& plan = *part.code->ahead->bound.plan.ahead;
  const std::size_t width = part.code->widths.of(Dim::input) * sizeof(float);
  const std::int64_t stride = seat.args.stride[x];
  const std::byte* from = seat.row_pointers[x][0] + block.steps * stride;
  for (std::int64_t s = 0; s < program_->block; ++s) {
    std::memcpy(seat.next_x.data() + at(s) * plan.from_stride, from + s * stride, width);
  }
  seat.args.ahead = tiles.data();
  seat.args.ahead_tiles = tiles.size();
  return true;
}

Runner::View Runner::user_view(const void* data, std::int64_t row, std::int64_t steps) const {
  View v;
  v.base = static_cast<std::byte*>(const_cast<void*>(data));
  v.user = true;
  v.absolute = true;
  const bool time_major = layout_ == Layout::time_major;
  v.row = row * (time_major ? 1 : steps);
  v.step = row * (time_major ? batch_ : 1);
  return v;
}

const void* Runner::user_data(lower::BufferRole role) const {
  if (role.role == Role::output) return call_.in.y;
  return role.index == 0 ? call_.in.x : call_.in.extra[at(role.index - 1)].data();
}

Runner::View Runner::view_of(const External& external, const Block& block) const {
  View v;
  if (external.user) {
    v = user_view(user_data(external.role), external.row, call_.in.steps);
  } else {
    v.row = external.row;
    v.step = v.row * batch_;
    v.absolute = program_->whole_sequence;
    const auto slot = static_cast<std::int64_t>(
        block.number % static_cast<std::uint64_t>(program_->handover_slots));
    v.base = handover_[at(external.boundary)].data() +
             (program_->whole_sequence ? 0 : slot * program_->block * v.step);
  }
  v.base += external.offset;
  return v;
}

/// Points the rows of an external buffer at the block's first step.
void Runner::bind(const Part& part, Seat& seat, std::size_t buffer, const View& view,
                  const Block& block) const {
  const bool backwards = part.step->reversed && view.absolute;
  seat.args.stride[buffer] = backwards ? -view.step : view.step;
  for (std::int64_t r = 0; r < seat.rows; ++r) {
    const std::int64_t sorted = place(seat, r);
    const std::int64_t row = view.user ? order_.row(sorted) : sorted;
    std::int64_t time = view.absolute ? block.first : 0;
    if (backwards) time = order_.length(sorted) - 1 - block.first;
    // A finished row's pointer is not used; it stays at the row's start.
    if (block.first >= order_.length(sorted)) time = 0;
    seat.row_pointers[buffer][at(r)] = view.base + row * view.row + time * view.step;
  }
}

/// Rows of x that are evenly spaced make one product; else one per batch row or per step, whichever
/// makes fewer and larger ones. The sums do not depend on it. Their rows stand behind those of
/// `skipped` steps.
void Runner::run_hoist(const Part& part, Seat& seat, const View& x, const Block& block,
                       std::int64_t skipped) {
  if (seat.rows == 0) return;
  const std::size_t x_buffer = part.externals[part.x].buffer;
  const auto width = static_cast<std::int64_t>(part.code->hoisted_row);
  const std::vector<std::byte*>& rows = seat.row_pointers[x_buffer];
  const std::int64_t step = seat.args.stride[x_buffer];
  const std::int64_t row = x.row * program_->row_parts;
  const std::int64_t most = program_->part_rows(batch_);  // rows of a step of hoisted sums
  const std::int64_t begin = skipped * most * width;
  const bool dense = !order_.ragged();
  if (dense && seat.rows == most && (most == 1 || step == row * most)) {
    const std::int64_t stride = most == 1 ? step : row;
    hoist_rows(part, seat, rows[0], stride, begin, width, block.steps * most);
  } else if (dense && block.steps < seat.rows) {
    for (std::int64_t t = 0; t < block.steps; ++t) {
      hoist_rows(part, seat, rows[0] + t * step, row, begin + t * most * width, width, seat.rows);
    }
  } else {
    for (std::int64_t r = 0; r < seat.rows; ++r) {
      const std::int64_t valid = std::min(block.steps, order_.length(place(seat, r)) - block.first);
      hoist_rows(part, seat, rows[at(r)], step, begin + r * width, most * width, valid);
    }
  }
}

void Runner::hoist_rows(const Part& part, Seat& seat, std::byte* from, std::int64_t from_stride,
                        std::int64_t to, std::int64_t to_stride, std::int64_t count) {
  if (count <= 0) return;
  const Kernel& kernel = *part.code->hoist;
  const auto& roles = kernel.bound.roles;
  for (std::size_t b = 0; b < roles.size(); ++b) {
    if (roles[b].role == Role::input) {
      seat.hoist_args.buffer[b] = from;
      seat.hoist_args.stride[b] = from_stride;
    } else if (roles[b].role == Role::hoisted) {
      seat.hoist_args.buffer[b] = hoisted_slot(part, seat, seat.slot).data() + to;
      seat.hoist_args.stride[b] = to_stride;
    }
  }
  seat.hoist_args.rows = static_cast<std::uint64_t>(count);
  kernel(seat.hoist_args);
  seat.hoist_args.parity ^= 1;  // the next block finds in the caches what was read last
}

}  // namespace deepcpu
