// SPDX-License-Identifier: Apache-2.0
#include "jit/constants.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace deepcpu::jit {

const Xbyak::Label& ConstantPool::label_of(const Vector& lanes) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.lanes == lanes; });
  if (found != entries_.end()) return found->label;
  return entries_.emplace_back(Entry{lanes, {}}).label;
}

Xbyak::Address ConstantPool::u32(std::uint32_t bits) {
  Vector lanes;
  lanes.fill(bits);
  const Xbyak::Label& label = label_of(lanes);
  if (isa_ == Isa::avx512) return Xbyak::util::ptr_b[Xbyak::util::rip + label];
  return Xbyak::util::ptr[Xbyak::util::rip + label];
}

Xbyak::Address ConstantPool::f32(float value) { return u32(std::bit_cast<std::uint32_t>(value)); }

Xbyak::Address ConstantPool::for_load(std::uint32_t bits) {
  Vector lanes;
  lanes.fill(bits);
  return Xbyak::util::ptr[Xbyak::util::rip + label_of(lanes)];
}

Xbyak::Address ConstantPool::lane_mask(int lanes) {
  Vector mask{};
  std::fill_n(mask.begin(), lanes, 0xFFFFFFFFU);
  return Xbyak::util::ptr[Xbyak::util::rip + label_of(mask)];
}

void ConstantPool::place(Xbyak::CodeGenerator& code) {
  if (entries_.empty()) return;
  // Relative to the start of the code, so that the bytes do not depend on where it is emitted.
  constexpr std::size_t kAlignment = 64;
  constexpr std::uint8_t kBreakpoint = 0xCC;
  while (code.getSize() % kAlignment != 0) code.db(kBreakpoint);
  for (Entry& entry : entries_) {
    code.L(entry.label);
    const std::size_t stored = isa_ == Isa::avx512 ? 1 : entry.lanes.size();
    for (std::size_t i = 0; i < stored; ++i) code.dd(entry.lanes[i]);
  }
}

}  // namespace deepcpu::jit
