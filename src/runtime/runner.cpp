// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/runner.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "src/runtime/flush_denormals.hpp"

namespace deepcpu {
namespace {

using jit::Space;
using lower::BufferRole;
using lower::Role;

/// Steps between two looks at the rows' lengths where no schedule asks for blocks.
constexpr std::int64_t kRaggedBlock = 256;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t row_stride(std::int64_t elements) {
  const std::int64_t bytes = (elements * 4 + 63) / 64 * 64;
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

}  // namespace

Runner::Runner(std::shared_ptr<const CompiledModel> model, Layout layout, std::int64_t max_steps)
    : model_(std::move(model)),
      layout_(layout),
      max_steps_(max_steps),
      batch_(model_->compiled.spec.batch),
      block_(model_->compiled.program.block) {
  const auto& steps = model_->compiled.program.steps;
  parts_.resize(steps.size());
  ready_ = make_handover();
  for (std::size_t i = 0; i < steps.size() && ready_; ++i) ready_ = make_part(parts_[i], i);
  active_.resize(at(block_ > 0 ? block_ : kRaggedBlock));
  order_.resize(at(batch_));
  length_.resize(at(batch_));
  std::iota(order_.begin(), order_.end(), 0);
}

bool Runner::make_handover() {
  const ModelSpec& spec = model_->compiled.spec;
  const bool whole = model_->compiled.program.whole_sequence;
  for (int layer = 0; layer + 1 < spec.layers(); ++layer) {
    const std::int64_t width = spec.width(Dim::input, layer + 1);
    const std::int64_t steps = whole ? max_steps_ : block_;
    handover_row_.push_back(row_stride(width));
    const auto bytes = at(std::max<std::int64_t>(1, steps) * batch_ * handover_row_.back());
    handover_.emplace_back(bytes);
    if (handover_.back().size() == 0) return false;
  }
  return true;
}

bool Runner::make_part(Part& part, std::size_t index) {
  const Compilation& c = model_->compiled;
  part.step = &c.program.steps[index];
  part.code = &c.layers[at(part.step->layer)];
  part.weights = reinterpret_cast<const unsigned char*>(model_->packed.data()) +
                 model_->weights_at[index];
  part.args.weights = part.weights;
  part.args.rows = static_cast<std::uint64_t>(batch_);
  part.args.ranges = part.code->step_panels->ranges.data();
  part.args.participants = 1;
  if (!make_buffers(part)) return false;
  make_hoist(part);
  return true;
}

bool Runner::make_buffers(Part& part) {
  const auto& buffers = part.code->step.bound.plan.buffers;
  part.owned.resize(buffers.size());
  part.rows.resize(buffers.size());
  std::size_t spare = spare_.size();
  for (std::size_t b = 0; b < buffers.size(); ++b) {
    if (buffers[b].space == Space::slots) {
      part.owned[b] = AlignedBytes(buffers[b].slot_stride * buffers[b].slots);
      if (part.owned[b].size() == 0) return false;
      part.args.buffer[b] = part.owned[b].data();
      spare = std::max<std::size_t>(spare, buffers[b].slot_stride);
    } else if (buffers[b].space == Space::external) {
      part.rows[b].resize(at(batch_));
      part.args.buffer[b] = part.rows[b].data();
    } else if (buffers[b].space == Space::block) {
      part.hoisted = AlignedBytes(at(block_) * buffers[b].step_stride);
      if (part.hoisted.size() == 0) return false;
      part.args.buffer[b] = part.hoisted.data();
    }
  }
  if (spare > spare_.size()) spare_ = AlignedBytes(spare);
  return spare == 0 || spare_.size() >= spare;
}

void Runner::make_hoist(Part& part) {
  if (!part.code->hoist) return;
  part.hoist_args.weights = part.weights;
  part.hoist_args.steps = 1;
  part.hoist_args.participants = 1;
  part.hoist_args.ranges = part.code->hoist_panels->ranges.data();
}

void Runner::reset() noexcept {
  each_state([&](Part& part, std::size_t b, int) {
    std::memset(part.owned[b].data(), 0, part.owned[b].size());
  });
}

template <class Visit>
void Runner::each_state(Visit visit) {
  for (Part& part : parts_) {
    const auto& roles = part.code->step.bound.roles;
    for (std::size_t b = 0; b < roles.size(); ++b) {
      if (roles[b].role == Role::state) visit(part, b, roles[b].index);
    }
  }
}

std::byte* Runner::state_row(const Part& part, std::size_t buffer, std::int64_t row,
                             std::uint64_t slot) const {
  const jit::Buffer& b = part.code->step.bound.plan.buffers[buffer];
  return part.owned[buffer].data() + (b.slots == 2 ? slot * b.slot_stride : 0) +
         at(row) * b.row_stride;
}

namespace {
std::size_t state_buffer(const LayerCode& code, int state) {
  const auto& roles = code.step.bound.roles;
  const auto it = std::find_if(roles.begin(), roles.end(), [&](const BufferRole& r) {
    return r.role == Role::state && r.index == state;
  });
  return static_cast<std::size_t>(it - roles.begin());
}
}  // namespace

void Runner::store_state(std::size_t step, int state, const float* from) noexcept {
  const Part& part = parts_[step];
  const std::size_t b = state_buffer(*part.code, state);
  const std::size_t width = part.code->step.bound.plan.buffers[b].width;
  for (std::int64_t r = 0; r < batch_; ++r) {
    std::memcpy(state_row(part, b, r, parity_), from + at(r) * width, width * sizeof(float));
  }
}

void Runner::load_state(std::size_t step, int state, float* to) const noexcept {
  const Part& part = parts_[step];
  const std::size_t b = state_buffer(*part.code, state);
  const std::size_t width = part.code->step.bound.plan.buffers[b].width;
  for (std::int64_t r = 0; r < batch_; ++r) {
    std::memcpy(to + at(r) * width, state_row(part, b, r, parity_), width * sizeof(float));
  }
}

Runner::View Runner::user_view(const void* data, std::int64_t width) const {
  View v;
  v.base = static_cast<std::byte*>(const_cast<void*>(data));
  v.user = true;
  v.absolute = true;
  v.row = width * 4;
  v.step = width * 4 * batch_;
  return v;
}

Runner::View Runner::view_of(const Part& part, BufferRole role, const RunInput& in) const {
  const ModelSpec& spec = model_->compiled.spec;
  const int layer = part.step->layer;
  const bool last = layer + 1 == spec.layers();
  View v;
  std::int64_t width = 0;
  if (role.role == Role::input && role.index > 0) {
    const Cell& cell = spec.cell;
    const Node& n = cell.nodes()[at(cell.inputs()[at(role.index)])];
    width = spec.width(n.dim, 0);
    v = user_view(in.extra[at(role.index - 1)].data(), width);
  } else if (role.role == Role::input && layer == 0) {
    width = spec.input;
    v = user_view(in.x, width);
  } else if (role.role == Role::output && last) {
    width = spec.output_width();
    v = user_view(in.y, width);
  } else {
    const int boundary = role.role == Role::input ? layer - 1 : layer;
    v.base = handover_[at(boundary)].data();
    v.row = handover_row_[at(boundary)];
    v.step = v.row * batch_;
    v.absolute = model_->compiled.program.whole_sequence;
  }
  if (v.user && layout_ == Layout::batch_major) {
    v.step = width * 4;
    v.row = width * 4 * in.steps;
  }
  if (role.role == Role::output) {
    v.base += part.step->direction * spec.width(spec.cell.output_dim(), layer) * 4;
  }
  return v;
}

void Runner::sort_rows(const RunInput& in) {
  ragged_ = !in.lengths.empty();
  std::iota(order_.begin(), order_.end(), 0);
  longest_ = in.steps;
  std::fill(length_.begin(), length_.end(), in.steps);
  if (!ragged_) return;
  // Insertion sort: stable, in place, and batches are short.
  for (std::size_t i = 1; i < order_.size(); ++i) {
    for (std::size_t j = i; j > 0; --j) {
      if (in.lengths[at(order_[j - 1])] >= in.lengths[at(order_[j])]) break;
      std::swap(order_[j - 1], order_[j]);
    }
  }
  for (std::size_t i = 0; i < order_.size(); ++i) length_[i] = in.lengths[at(order_[i])];
  longest_ = length_.front();
}

void Runner::run(const RunInput& in) noexcept {
  const FlushDenormals guard;
  sort_rows(in);
  if (ragged_) permute_states(false);
  const bool whole = model_->compiled.program.whole_sequence;
  if (whole) {
    for (Part& part : parts_) run_sequence(part, in);
  } else {
    const std::int64_t block = block_ > 0 ? block_ : (ragged_ ? kRaggedBlock : longest_);
    for (std::int64_t s = 0; s < longest_; s += block) {
      for (Part& part : parts_) run_block(part, in, {s, std::min(block, longest_ - s)});
    }
  }
  if (ragged_) {
    settle_slots();
    zero_past_end(in);
  }
  parity_ = (parity_ + static_cast<std::uint64_t>(longest_)) & 1;
  if (ragged_) permute_states(true);
}

void Runner::run_sequence(Part& part, const RunInput& in) {
  const std::int64_t block = block_ > 0 ? block_ : kRaggedBlock;
  for (std::int64_t s = 0; s < longest_; s += block) {
    run_block(part, in, {s, std::min(block, longest_ - s)});
  }
}

/// Rows whose sequence is longer than `step`.
std::int64_t Runner::live_rows(std::int64_t step) const {
  const auto end = std::find_if(length_.begin(), length_.end(),
                                [step](std::int64_t n) { return n <= step; });
  return end - length_.begin();
}

void Runner::count_active(Block block) {
  for (std::int64_t t = 0; t < block.steps; ++t) {
    active_[at(t)] = static_cast<std::int32_t>(live_rows(block.first + t));
  }
}

void Runner::run_block(Part& part, const RunInput& in, Block block) {
  const auto& roles = part.code->step.bound.roles;
  for (std::size_t b = 0; b < roles.size(); ++b) {
    if (roles[b].role != Role::input && roles[b].role != Role::output) continue;
    const View view = view_of(part, roles[b], in);
    bind(part, b, view, block);
    if (part.code->hoist && roles[b].role == Role::input && roles[b].index == 0) {
      run_hoist(part, b, view, block);
    }
  }
  part.args.steps = static_cast<std::uint64_t>(block.steps);
  part.args.parity = (parity_ + static_cast<std::uint64_t>(block.first)) & 1;
  if (ragged_) count_active(block);
  part.args.active = ragged_ ? active_.data() : nullptr;
  part.code->step(part.args);
}

/// Points the rows of an external buffer at the block's first step.
void Runner::bind(Part& part, std::size_t buffer, const View& view, Block block) {
  const bool backwards = part.step->reversed && view.absolute;
  part.args.stride[buffer] = backwards ? -view.step : view.step;
  for (std::int64_t r = 0; r < batch_; ++r) {
    const std::int64_t row = view.user ? order_[at(r)] : r;
    std::int64_t time = view.absolute ? block.first : 0;
    if (backwards) time = length_[at(r)] - 1 - block.first;
    // A finished row's pointer is not used; it stays at the row's start.
    if (block.first >= length_[at(r)]) time = 0;
    part.rows[buffer][at(r)] = view.base + row * view.row + time * view.step;
  }
}

void Runner::run_hoist(Part& part, std::size_t x_buffer, const View& x, Block block) {
  const Kernel& kernel = *part.code->hoist;
  const auto& roles = kernel.bound.roles;
  const auto hoisted_row = static_cast<std::int64_t>(part.code->hoisted_row);
  const std::vector<std::byte*>& rows = part.rows[x_buffer];
  const std::int64_t step = part.args.stride[x_buffer];
  auto call = [&](std::byte* from, std::int64_t from_stride, std::int64_t to, std::int64_t to_stride,
                  std::int64_t count) {
    if (count <= 0) return;
    for (std::size_t b = 0; b < roles.size(); ++b) {
      if (roles[b].role == Role::input) {
        part.hoist_args.buffer[b] = from;
        part.hoist_args.stride[b] = from_stride;
      } else if (roles[b].role == Role::hoisted) {
        part.hoist_args.buffer[b] = part.hoisted.data() + to;
        part.hoist_args.stride[b] = to_stride;
      }
    }
    part.hoist_args.rows = static_cast<std::uint64_t>(count);
    kernel(part.hoist_args);
  };
  // Rows of x that are evenly spaced make one product; else one per batch row or per step,
  // whichever makes fewer and larger ones. The sums do not depend on it.
  const bool dense = !ragged_;
  if (dense && (batch_ == 1 || step == x.row * batch_)) {
    call(rows[0], batch_ == 1 ? step : x.row, 0, hoisted_row, block.steps * batch_);
  } else if (dense && block.steps < batch_) {
    for (std::int64_t t = 0; t < block.steps; ++t) {
      call(rows[0] + t * step, x.row, t * batch_ * hoisted_row, hoisted_row, batch_);
    }
  } else {
    for (std::int64_t r = 0; r < batch_; ++r) {
      const std::int64_t valid = std::min(block.steps, length_[at(r)] - block.first);
      call(rows[at(r)], step, r * hoisted_row, batch_ * hoisted_row, valid);
    }
  }
}

void Runner::zero_past_end(const RunInput& in) const {
  const std::int64_t width = model_->compiled.spec.output_width();
  View y = user_view(in.y, width);
  if (layout_ == Layout::batch_major) {
    y.step = width * 4;
    y.row = width * 4 * in.steps;
  }
  for (std::int64_t r = 0; r < batch_; ++r) {
    for (std::int64_t t = length_[at(r)]; t < in.steps; ++t) {
      std::memset(y.base + order_[at(r)] * y.row + t * y.step, 0, at(width) * 4);
    }
  }
}

/// Brings the rows of every state into sorted order before a ragged run, and back after it.
void Runner::permute_states(bool back) noexcept {
  each_state([&](Part& part, std::size_t b, int) {
    const jit::Buffer& buffer = part.code->step.bound.plan.buffers[b];
    std::byte* rows = state_row(part, b, 0, parity_);
    std::memcpy(spare_.data(), rows, buffer.row_stride * at(batch_));
    for (std::int64_t r = 0; r < batch_; ++r) {
      const std::int64_t from = back ? r : order_[at(r)];
      const std::int64_t to = back ? order_[at(r)] : r;
      std::memcpy(rows + at(to) * buffer.row_stride, spare_.data() + at(from) * buffer.row_stride,
                  buffer.row_stride);
    }
  });
}

/// A row that ended early left its final state in the slot of its own last step.
void Runner::settle_slots() noexcept {
  each_state([&](Part& part, std::size_t b, int) {
    const jit::Buffer& buffer = part.code->step.bound.plan.buffers[b];
    if (buffer.slots != 2) return;
    for (std::int64_t r = 0; r < batch_; ++r) {
      if (((longest_ - length_[at(r)]) & 1) == 0) continue;
      const std::uint64_t own = (parity_ + static_cast<std::uint64_t>(length_[at(r)])) & 1;
      std::memcpy(state_row(part, b, r, own ^ 1), state_row(part, b, r, own), buffer.row_stride);
    }
  });
}

}  // namespace deepcpu
