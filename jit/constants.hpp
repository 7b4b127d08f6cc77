// SPDX-License-Identifier: Apache-2.0
/// The constants of one piece of code, placed behind its last instruction.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "deepcpu/schedule.hpp"
#include "jit/xbyak.hpp"

namespace deepcpu::jit {

/// Hands out rip-relative memory operands for 32-bit constants, each stored once, in order of
/// first use: the same calls give the same bytes. An operand stands for the number in all lanes:
/// with avx512 it is an embedded broadcast {1to16} of 4 bytes, with avx2 a full 32-byte vector.
/// It is legal wherever the instruction takes a full-vector memory operand of 32-bit lanes; with
/// avx512 that excludes moves (use VecCode::load_constant) and bitwise operations other than the
/// ps and d forms. The pool must outlive the code generator's last use of its operands.
class ConstantPool {
 public:
  explicit ConstantPool(Isa isa) : isa_(isa) {}
  ConstantPool(const ConstantPool&) = delete;
  ConstantPool& operator=(const ConstantPool&) = delete;

  Isa isa() const noexcept { return isa_; }

  Xbyak::Address f32(float value);
  Xbyak::Address u32(std::uint32_t bits);

  /// The same constant as the operand of vbroadcastss (avx512) or of a 32-byte load (avx2).
  Xbyak::Address for_load(std::uint32_t bits);

  /// avx2 only: a vector whose first `lanes` (1..8) lanes have all bits set, the others none.
  Xbyak::Address lane_mask(int lanes);

  /// Emits the data, from a multiple of 64 bytes after the start of the code on. To be called
  /// once, after the last instruction; the code itself must start at a multiple of 64.
  void place(Xbyak::CodeGenerator& code);

 private:
  using Vector = std::array<std::uint32_t, 8>;
  /// A label must not move while instructions refer to it, hence the deque.
  struct Entry {
    Vector lanes;
    Xbyak::Label label;
  };

  const Xbyak::Label& label_of(const Vector& lanes);

  Isa isa_;
  std::deque<Entry> entries_;
};

}  // namespace deepcpu::jit
