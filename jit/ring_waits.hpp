// SPDX-License-Identifier: Apache-2.0
/// RingWaits: products of one row that read rings while others may still write them.
///
/// A look before all products would find what was written last still on its way from another core.
/// So the first panel of a stage looks at each vector of the operand when its products come to it:
/// the journey passes while they multiply what came before. Panels that are woven into it need not
/// look.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "jit/emit_context.hpp"

namespace deepcpu::jit {

/// Looks at another participant's counter, or at a vector of its data, before the slow path takes
/// over, which sees a change later. Against 100, time on two threads: gru i256h256,reset=before
/// 0.99, lstm i128h128 0.98, i64h256 and i256h256 1.00; 2000 gain no more and would wait too long
/// for a participant that has lost its core.
inline constexpr int kPolls = 400;

/// Clears the zero flag if one of the first `lanes` numbers at `from` is kUnwritten. Overwrites
/// `numbers`, k7 and, unless all lanes of AVX-512 are asked for, reg::scratch.
template <class Vmm>
void find_unwritten(EmitContext<Vmm>& ctx, const Xbyak::Address& from, int lanes,
                    const Vmm& numbers);

/// Emits a call that returns once `lanes` numbers at `at` are written. Vector and mask registers
/// and those general ones that a callee may use are lost.
template <class Vmm>
void wait_for_vector(EmitContext<Vmm>& ctx, const Xbyak::RegExp& at, int lanes);

template <class Vmm>
class RingWaits {
 public:
  /// Looks at the rings that `stage` waits for.
  RingWaits(EmitContext<Vmm>& ctx, const Stage& stage)
      : ctx_(ctx),
        rings_(stage.polls),
        tail_(static_cast<int>(stage.width) % VecCode<Vmm>::kLanes) {}

  /// A register that the looks overwrite and products of one row leave alone.
  static constexpr int kRegister = VecCode<Vmm>::kRegisters - 3;

  bool cover(const Product& p) const;
  /// Where everything begins again after a long wait, during which registers were lost: in front of
  /// whatever the panel keeps in them.
  void begin() { ctx_.code.L(again_); }
  /// Before products read the first of `lanes` numbers at `at`. Overwrites kRegister, k7,
  /// reg::scratch and reg::pointer[4].
  void look(const Xbyak::RegExp& at, int lanes);
  /// What is rarely run, where no other code falls into it.
  void finish();

 private:
  struct Look {
    Xbyak::RegExp at;
    int lanes = 0;
    Xbyak::Label missing;
    Xbyak::Label written;
  };

  EmitContext<Vmm>& ctx_;
  std::vector<Ref> rings_;
  int tail_;  ///< lanes of kTailMask, which a long wait loses; 0 = it is not in use
  std::list<Look> looks_;
  Xbyak::Label again_;
};

}  // namespace deepcpu::jit
