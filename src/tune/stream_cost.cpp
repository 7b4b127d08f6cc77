// SPDX-License-Identifier: Apache-2.0
#include "src/tune/stream_cost.hpp"

#include <algorithm>
#include <cmath>

namespace deepcpu {
namespace {

/// A stream that is always walked forward still hits a little beyond the capacity of a level, and
/// nothing from this multiple of it on (machine-facts: 2 MiB L2, 2.5 MiB stream at L3 rate).
constexpr double kForwardFades = 1.5;

}  // namespace

StreamCost::StreamCost(const MachineModel& machine, Isa isa, int active) {
  const IsaModel& model = machine.of(isa);
  const double width = 4.0 * deepcpu::lanes(isa);
  for (std::size_t l = 0; l < model.levels.size(); ++l) {
    const auto usable = [&](bool alternating) {
      return static_cast<double>(machine.usable_bytes(isa, l, alternating, active));
    };
    // A sweep that turns round finds at least what one that does not finds. Where a calibration
    // says otherwise (it does of shared levels here), the lesser figure is the safe one.
    const double forward = std::min(usable(false), usable(true));
    levels_.push_back({1e-9 / machine.gbytes_per_s(isa, l, active), forward, usable(true)});
  }
  vector_seconds_ = machine.fma_seconds(isa, active);
  half_vector_seconds_ = std::min(vector_seconds_, machine.fma_seconds(Isa::avx2, active));
  load_seconds_ = width * levels_.front().seconds_per_byte;
  cycle_seconds_ = 1e-9 / machine.clock_ghz;
  overlap_ = model.overlap;
  strided_ = model.strided;
}

double StreamCost::served(std::size_t l, const Stream& stream) const {
  const Level& level = levels_[l];
  const double forward = std::max(0.0, level.forward - stream.beside);
  if (stream.bytes <= forward) return stream.bytes;
  const double end = forward * kForwardFades;
  const double by_forward =
      stream.bytes < end ? stream.bytes * (end - stream.bytes) / (end - forward) : 0.0;
  if (!stream.alternating) return by_forward;
  // Between two reads of a group lie itself and, twice, the groups nearer to the turn: a least
  // recently used cache holds whole groups. Of the next one L1 holds what it would of a stream that
  // is always walked forward: on Zen 4, where 31 KiB are free, 0.8 of a 32 KiB panel come from
  // there (lstm i64h128 alternating and forward, wide and narrow).
  const double room = level.alternating - stream.beside;
  if (room <= 0.0) return by_forward;
  const double group = std::max(stream.group_bytes, 1.0);
  const double whole = std::floor(room / group) * group;
  const double fades = (room * kForwardFades - whole - group) / (room * (kForwardFades - 1.0));
  const double part = l == 0 ? group * std::clamp(fades, 0.0, 1.0) : 0.0;
  return std::clamp(std::min(whole + part, room), by_forward, stream.bytes);
}

StreamTime StreamCost::pass(const Stream& stream) const {
  StreamTime out;
  double done = 0.0;
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const bool last = l + 1 == levels_.size();
    const double upto = last ? stream.bytes : std::max(done, served(l, stream));
    out.level_bytes.push_back(upto - done);
    const double slower = l == 0 ? 1.0 : stream.slower;
    const double seconds = (upto - done) * levels_[l].seconds_per_byte * slower;
    out.seconds += seconds;
    if (l == 0) out.l1_seconds = seconds;
    if (l >= kBeyondL2) {
      out.far_seconds += seconds;
      out.fetched_seconds += (upto - done) * levels_[kBeyondL2 - 1].seconds_per_byte * slower;
      out.far_part += stream.bytes > 0 ? (upto - done) / stream.bytes : 0.0;
    }
    done = upto;
  }
  return out;
}

double StreamCost::slower(std::uint32_t gates, std::uint32_t packed) const noexcept {
  if (gates >= packed || packed % 2 != 0) return 1.0;
  return packed % 4 == 0 && gates == 1 ? 1.0 / strided_ : 2.0 / (1.0 + strided_);
}

double StreamCost::reread_seconds(double bytes) const {
  for (const Level& level : levels_) {
    if (bytes <= level.forward) return bytes * level.seconds_per_byte;
  }
  return bytes * levels_.back().seconds_per_byte;
}

double StreamCost::refill_seconds(const Stream& stream, double all) const {
  Stream between = stream;
  between.bytes = all;
  const double warm = pass(stream).seconds;
  const double cold = all > 0 ? pass(between).seconds * stream.bytes / all : warm;
  return std::max(0.0, cold - warm);
}

}  // namespace deepcpu
