// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_sums.hpp"

namespace deepcpu::jit {

using Xbyak::util::ptr;

template <class Vmm>
void SumsEmitter<Vmm>::start() {
  for (int gate = 0; gate < registers_.gates; ++gate) start_sum(gate);
}

template <class Vmm>
void SumsEmitter<Vmm>::start_sum(int gate) {
  auto& code = ctx_.code;
  const Sum& sum = stage_.sums[static_cast<std::size_t>(gate)];
  const bool of_all_rows =
      sum.init == Sum::Init::load && ctx_.plan.buffers[sum.ref.buffer].space == Space::params;
  for (int row = 0; row < tile_.rows; ++row) {
    if (sum.init == Sum::Init::load) {
      const Xbyak::Reg64& p = reg::pointer[0];
      if (row == 0) {
        ctx_.row_pointer(p, sum.ref, reg::row);
      } else if (!of_all_rows) {
        ctx_.next_row(p, p, sum.ref, row);
      }
    }
    for (int unit = 0; unit < tile_.units; ++unit) {
      const Vmm acc(registers_.accumulator(row, unit, gate));
      std::uint64_t from = sum.ref.offset;
      if (shares_vectors(stage_, tile_, unit)) {
        if (!holds_units(stage_, static_cast<std::uint32_t>(gate))) continue;
        from = stage_.places[static_cast<std::size_t>(gate)].from;
      }
      if (sum.init == Sum::Init::zero) {
        ctx_.vec.zero(acc);
      } else if (of_all_rows && row > 0) {
        code.vmovaps(acc, Vmm(registers_.accumulator(0, unit, gate)));
      } else {
        const auto offset = static_cast<int>(from) + unit * ctx_.kBytes;
        ctx_.vec.load(acc, ptr[reg::pointer[0] + reg::unit + disp(offset)]);
        ctx_.fetch_next_step(sum.ref, reg::pointer[0] + reg::unit, offset);
      }
    }
  }
}

/// The last sum goes first: its vector holds units of none before it (Place).
template <class Vmm>
void SumsEmitter<Vmm>::part() {
  const int unit = tile_.units - 1;
  if (stage_.keeps_places || !shares_vectors(stage_, tile_, unit)) return;
  for (int gate = registers_.gates - 1; gate >= 0; --gate) {
    const Place& place = stage_.places[static_cast<std::size_t>(gate)];
    for (int row = 0; row < tile_.rows; ++row) {
      const auto vector = [&](std::uint32_t sum) {
        return Vmm(registers_.accumulator(row, unit, static_cast<int>(sum)));
      };
      ctx_.vec.align(vector(static_cast<std::uint32_t>(gate)), vector(place.host),
                     vector(place.next), static_cast<int>(place.lane));
    }
  }
}

template class SumsEmitter<Xbyak::Ymm>;
template class SumsEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
