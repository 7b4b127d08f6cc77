// SPDX-License-Identifier: Apache-2.0
/// Vector instructions whose encoding differs between AVX2 (Ymm) and AVX-512 (Zmm), under one
/// name. Everything that is written alike for both (vaddps, vmulps, vfmadd213ps, vpaddd ...) is
/// called on code() directly.
///
/// Mask registers of AVX-512: k1..k4 belong to the emitter, k5..k7 are scratch of VecCode and of
/// the element-wise operations built on it; nothing lives in them from one call to the next.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "jit/constants.hpp"
#include "jit/xbyak.hpp"

namespace deepcpu::jit {

/// Comparison predicates: the immediate of vcmpps. All are quiet.
enum class Compare : std::uint8_t {
  less = 0x11,           ///< a < b, false if unordered
  less_equal = 0x12,     ///< a <= b, false if unordered
  greater_equal = 0x1D,  ///< a >= b, false if unordered
  greater = 0x1E,        ///< a > b, false if unordered
  unordered = 0x03,      ///< a or b is NaN
};

template <class Vmm>
class VecCode {
  static_assert(std::is_same_v<Vmm, Xbyak::Ymm> || std::is_same_v<Vmm, Xbyak::Zmm>);

 public:
  static constexpr bool kAvx512 = std::is_same_v<Vmm, Xbyak::Zmm>;
  static constexpr Isa kIsa = kAvx512 ? Isa::avx512 : Isa::avx2;
  static constexpr int kLanes = kAvx512 ? 16 : 8;
  static constexpr int kBytes = 4 * kLanes;
  static constexpr int kRegisters = kAvx512 ? 32 : 16;

  /// Both must outlive this object; the pool must have been made for kIsa.
  VecCode(Xbyak::CodeGenerator& code, ConstantPool& pool) : code_(code), pool_(pool) {}

  Xbyak::CodeGenerator& code() noexcept { return code_; }
  ConstantPool& pool() noexcept { return pool_; }

  /// Memory operands that stand for one number in all lanes, see ConstantPool.
  Xbyak::Address f32(float value) { return pool_.f32(value); }
  Xbyak::Address u32(std::uint32_t bits) { return pool_.u32(bits); }

  void zero(const Vmm& dst) {
    if constexpr (kAvx512) {
      // The VEX form is a byte shorter where it exists, and clears the upper half just as well.
      if (dst.getIdx() < 16) {
        const Xbyak::Xmm low(dst.getIdx());
        code_.vxorps(low, low, low);
        return;
      }
    }
    code_.vxorps(dst, dst, dst);
  }

  /// dst = value in all lanes.
  void load_constant(const Vmm& dst, float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (bits == 0) {
      zero(dst);
    } else if constexpr (kAvx512) {
      code_.vbroadcastss(dst, pool_.for_load(bits));
    } else {
      code_.vmovups(dst, pool_.for_load(bits));
    }
  }

  void broadcast(const Vmm& dst, const Xbyak::Address& one_number) {
    code_.vbroadcastss(dst, one_number);
  }
  /// AVX2: dst = those four numbers in either half.
  void load_four(const Vmm& dst, const Xbyak::Address& four_numbers) {
    static_assert(!kAvx512, "the instruction fills 256 bits");
    code_.vbroadcastf128(dst, four_numbers);
  }
  /// dst = in all lanes the number `i` (0 to 3) of `four`, which load_four() has loaded.
  void pick(const Vmm& dst, const Vmm& four, int i) {
    code_.vpermilps(dst, four, static_cast<std::uint8_t>(i * 0x55));
  }
  void load(const Vmm& dst, const Xbyak::Address& from) { code_.vmovups(dst, from); }
  void store(const Xbyak::Address& to, const Vmm& src) { code_.vmovups(to, src); }

  /// AVX-512: sets the low `lanes` (1..15) bits of mask, overwriting scratch. AVX2: nothing.
  void set_tail_mask(const Xbyak::Opmask& mask, int lanes, const Xbyak::Reg32& scratch) {
    if constexpr (kAvx512) {
      code_.mov(scratch, (1U << lanes) - 1U);
      code_.kmovw(mask, scratch);
    }
  }

  /// dst = the lanes of low from `lane` on, then those of high from its first on. With AVX2 `lane`
  /// is 0 or 4.
  void align(const Vmm& dst, const Vmm& low, const Vmm& high, int lane) {
    if (lane == 0) {
      if (dst.getIdx() != low.getIdx()) code_.vmovaps(dst, low);
    } else if constexpr (kAvx512) {
      code_.valignd(dst, high, low, static_cast<std::uint8_t>(lane));
    } else {
      code_.vperm2f128(dst, low, high, 0x21);
    }
  }

  /// Loads the first `lanes` lanes, zeroes the others, touches no byte past the last. AVX-512 takes
  /// the lanes from `mask` (see set_tail_mask), AVX2 from `lanes`.
  void load_tail(const Vmm& dst, const Xbyak::Address& from, int lanes, const Xbyak::Opmask& mask) {
    if constexpr (kAvx512) {
      code_.vmovups(dst | mask | Xbyak::util::T_z, from);
    } else {
      code_.vmovups(dst, pool_.lane_mask(lanes));
      code_.vmaskmovps(dst, dst, from);
    }
  }

  /// Stores the first `lanes` lanes. AVX2 overwrites temp, which must differ from src.
  void store_tail(const Xbyak::Address& to, const Vmm& src, int lanes, const Xbyak::Opmask& mask,
                  const Vmm& temp) {
    if constexpr (kAvx512) {
      code_.vmovups(to | mask, src);
    } else {
      code_.vmovups(temp, pool_.lane_mask(lanes));
      code_.vmaskmovps(to, temp, src);
    }
  }

  /// Bitwise operations; b may be a register or an operand of the pool.
  void bit_and(const Vmm& dst, const Vmm& a, const Xbyak::Operand& b) { code_.vandps(dst, a, b); }
  void bit_xor(const Vmm& dst, const Vmm& a, const Xbyak::Operand& b) { code_.vxorps(dst, a, b); }

  /// dst = a << count, lane by lane, as 32-bit integers.
  void shift_left(const Vmm& dst, const Vmm& a, std::uint8_t count) { code_.vpslld(dst, a, count); }

  /// dst = a rounded to the nearest integer, ties to even.
  void round(const Vmm& dst, const Vmm& a) {
    constexpr std::uint8_t kNearestQuiet = 8;
    if constexpr (kAvx512) {
      code_.vrndscaleps(dst, a, kNearestQuiet);
    } else {
      code_.vroundps(dst, a, kNearestQuiet);
    }
  }

  /// dst = (a compare b) ? yes : no. temp must differ from yes and no (AVX-512 leaves it alone and
  /// uses k7). dst may equal any other operand.
  void select(const Vmm& dst, Compare compare, const Vmm& a, const Xbyak::Operand& b,
              const Vmm& yes, const Vmm& no, const Vmm& temp) {
    const auto predicate = static_cast<std::uint8_t>(compare);
    if constexpr (kAvx512) {
      code_.vcmpps(Xbyak::util::k7, a, b, predicate);
      code_.vblendmps(dst | Xbyak::util::k7, no, yes);
    } else {
      code_.vcmpps(temp, a, b, predicate);
      code_.vblendvps(dst, no, yes, temp);
    }
  }

  /// dst = smaller of a and b (of two zeros the second), NaN if either is NaN. temp must differ
  /// from a and b (AVX-512 leaves it alone and uses k7). dst may equal a or b.
  void min(const Vmm& dst, const Vmm& a, const Vmm& b, const Vmm& temp) {
    mark_nan(a, temp);
    code_.vminps(dst, a, b);
    set_marked(dst, temp);
  }
  /// The same for the larger of the two.
  void max(const Vmm& dst, const Vmm& a, const Vmm& b, const Vmm& temp) {
    mark_nan(a, temp);
    code_.vmaxps(dst, a, b);
    set_marked(dst, temp);
  }

 private:
  /// vminps and vmaxps return the second operand if either is NaN, so only a NaN in the first one
  /// has to be put back. All bits set is a quiet NaN.
  void mark_nan(const Vmm& a, const Vmm& temp) {
    const auto predicate = static_cast<std::uint8_t>(Compare::unordered);
    if constexpr (kAvx512) {
      code_.vcmpps(Xbyak::util::k7, a, a, predicate);
    } else {
      code_.vcmpps(temp, a, a, predicate);
    }
  }
  void set_marked(const Vmm& dst, const Vmm& temp) {
    if constexpr (kAvx512) {
      code_.vpternlogd(dst | Xbyak::util::k7, dst, dst, 0xFF);
    } else {
      code_.vorps(dst, dst, temp);
    }
  }

  Xbyak::CodeGenerator& code_;
  ConstantPool& pool_;
};

}  // namespace deepcpu::jit
