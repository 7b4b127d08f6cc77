// SPDX-License-Identifier: Apache-2.0
/// What all parts of the emitter share: registers with their roles, the stack frame, addresses of
/// buffers, and the record of labels and notes.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "jit/code_blob.hpp"
#include "jit/constants.hpp"
#include "jit/kernel_plan.hpp"
#include "jit/vec.hpp"
#include "jit/xbyak.hpp"

namespace deepcpu::jit {

/// Offsets and numbers of the emitter are ints; Xbyak takes a displacement as size_t (negative ones
/// wrap round, as it expects) and an immediate as uint32_t.
inline std::size_t disp(int bytes) { return static_cast<std::size_t>(bytes); }
inline std::uint32_t imm(int number) { return static_cast<std::uint32_t>(number); }

/// General registers and what lives in them. rbp is the frame pointer, rsp the aligned bottom of
/// the frame, rax a scratch register that holds nothing from one emitted line to the next.
namespace reg {
inline const Xbyak::Reg64 args(Xbyak::Operand::RBX);     // const KernelArgs*, all through
inline const Xbyak::Reg64 panel(Xbyak::Operand::R12);    // number of the panel
inline const Xbyak::Reg64 unit(Xbyak::Operand::R13);     // byte offset of the panel's first unit
inline const Xbyak::Reg64 row(Xbyak::Operand::R14);      // first row of the tile
inline const Xbyak::Reg64 own_row(Xbyak::Operand::R15);  // row of an epilogue
inline const Xbyak::Reg64 weights(Xbyak::Operand::RSI);  // walks through the packed panel
inline const Xbyak::Reg64 k(Xbyak::Operand::RCX);        // index into the operand's rows
inline const Xbyak::Reg64 scratch(Xbyak::Operand::RAX);
/// Rows of the operand while a product runs; pointers of buffers while an epilogue runs.
inline const Xbyak::Reg64 pointer[6] = {
    Xbyak::Reg64(Xbyak::Operand::R8),  Xbyak::Reg64(Xbyak::Operand::R9),
    Xbyak::Reg64(Xbyak::Operand::R10), Xbyak::Reg64(Xbyak::Operand::R11),
    Xbyak::Reg64(Xbyak::Operand::RDI), Xbyak::Reg64(Xbyak::Operand::RDX)};
}  // namespace reg

/// Mask of the lanes of a stage's last unit block.
inline const Xbyak::Opmask& kTailMask = Xbyak::util::k1;

/// The stack frame: 8-byte slots below rbp, vectors above rsp.
class Frame {
 public:
  /// Bytes of callee-saved registers pushed below rbp.
  static constexpr int kSaved = 5 * 8;

  Xbyak::Address slot(const std::string& name) {
    const auto [it, added] = slots_.try_emplace(name, static_cast<int>(slots_.size()));
    return Xbyak::util::qword[Xbyak::util::rbp - disp(kSaved + 8 * (it->second + 1))];
  }
  /// Byte offset from rsp of `bytes` for vectors; the regions of different callers may be shared
  /// by asking for the same name.
  int vectors(const std::string& name, int bytes) {
    const auto [it, added] = regions_.try_emplace(name, std::pair{vector_bytes_, bytes});
    if (added) {
      vector_bytes_ += bytes;
    } else if (it->second.second < bytes) {
      it->second = {vector_bytes_, bytes};
      vector_bytes_ += bytes;
    }
    return it->second.first;
  }
  /// Bytes to reserve below the saved registers, before rounding rsp down to 64.
  int bytes() const { return static_cast<int>(slots_.size()) * 8 + vector_bytes_ + 64; }

 private:
  std::map<std::string, int> slots_;
  std::map<std::string, std::pair<int, int>> regions_;
  int vector_bytes_ = 0;
};

/// Labels and notes by offset, for listings and profilers.
class Recorder {
 public:
  explicit Recorder(const Xbyak::CodeGenerator& code) : code_(code) {}
  void label(std::string name) { labels.push_back({std::move(name), code_.getSize()}); }
  /// Starts a note; the one before it ends here.
  void note(std::string text) {
    end();
    if (!text.empty()) notes.push_back({code_.getSize(), 0, std::move(text)});
  }
  void end() {
    if (!notes.empty() && notes.back().end == 0) notes.back().end = code_.getSize();
  }
  std::vector<CodeLabel> labels;
  std::vector<CodeNote> notes;

 private:
  const Xbyak::CodeGenerator& code_;
};

/// Shared by the parts of one emission.
template <class Vmm>
struct EmitContext {
  static constexpr int kBytes = VecCode<Vmm>::kBytes;

  EmitContext(Xbyak::CodeGenerator& generator, const KernelPlan& the_plan)
      : code(generator), pool(the_plan.isa), vec(generator, pool), plan(the_plan), record(code) {}

  Xbyak::CodeGenerator& code;
  ConstantPool pool;
  VecCode<Vmm> vec;
  const KernelPlan& plan;
  Frame frame;
  Recorder record;
  /// Whether an epilogue is woven into the products of the next panel.
  bool weave = false;
  /// Whether products may look at rings as they read them, see RingWaits. Only if epilogues are
  /// woven in.
  bool looks = false;
  /// Whether there are tiles of one row less than the full height.
  bool even_tiles = false;
  /// Whether tiles of several rows fetch what the plan says (Product::fetch).
  bool fetches = false;
  /// Columns of an epilogue that are emitted together, at most: see by_waves().
  int columns = 1;
  /// Whether products are cut where the plan says so (Product::k_block).
  bool pieces = false;
  /// Start of the routine that ends a tile of plan.ahead and begins the next one.
  Xbyak::Label next_ahead;
  /// With plan.weights_in_registers: the first register of each product's weights, in the order of
  /// stages and products, and the range that they take all through the time loop.
  std::map<const Product*, int> resident;
  int resident_begin = 0;
  int resident_end = 0;

  static Vmm vmm(int index) { return Vmm(index); }
  bool one_row() const { return plan.rows == 1; }
  /// Vector registers, from the top, that products of one row take besides their sums: two for
  /// broadcasts, and with plan.ahead its sums and a vector of weights.
  int high_vectors() const { return plan.ahead ? 3 + static_cast<int>(plan.ahead->rows) : 2; }

  Xbyak::Address arg(std::size_t offset) const { return Xbyak::util::qword[reg::args + offset]; }
  Xbyak::Address buffer_arg(std::uint16_t id) const {
    return arg(offsetof(KernelArgs, buffer) + 8U * id);
  }
  Xbyak::Address stride_arg(std::uint16_t id) const {
    return arg(offsetof(KernelArgs, stride) + 8U * id);
  }
  Xbyak::Address buffer_slot(const char* what, std::uint16_t id) {
    return frame.slot(std::string(what) + std::to_string(id));
  }

  /// dst = address of `row` (a register, ignored if there is one row only) in the buffer of `ref`,
  /// without ref.offset. Overwrites reg::scratch.
  void row_pointer(const Xbyak::Reg64& dst, const Ref& ref, const Xbyak::Reg64& row) {
    const Buffer& b = plan.buffers[ref.buffer];
    switch (b.space) {
      case Space::params:
        code.mov(dst, arg(offsetof(KernelArgs, weights)));
        return;
      case Space::external:
        code.mov(dst, buffer_arg(ref.buffer));
        if (one_row()) {
          code.mov(dst, Xbyak::util::ptr[dst]);
        } else {
          code.mov(dst, Xbyak::util::ptr[dst + row * 8]);
        }
        code.add(dst, buffer_slot("time", ref.buffer));
        return;
      case Space::strided:
        code.mov(dst, row);
        code.imul(dst, stride_arg(ref.buffer));
        code.add(dst, buffer_arg(ref.buffer));
        return;
      case Space::slots:
        if (b.slots > 1) {
          code.mov(dst, buffer_slot(ref.next ? "next" : "current", ref.buffer));
        } else {
          code.mov(dst, buffer_arg(ref.buffer));
        }
        break;
      case Space::block:
        code.mov(dst, buffer_slot("time", ref.buffer));
        break;
    }
    if (one_row()) return;
    code.imul(reg::scratch, row, static_cast<int>(b.row_stride));
    code.add(dst, reg::scratch);
  }

  /// Beside a read of a vector of `ref` at `from`, `offset` bytes on.
  void fetch_next_step(const Ref& ref, const Xbyak::RegExp& from, int offset) {
    const Buffer& b = plan.buffers[ref.buffer];
    if (!b.fetch_next) return;
    code.prefetcht0(Xbyak::util::ptr[from + disp(offset + static_cast<int>(b.step_stride))]);
  }

  /// pointer = pointer of the row before it -> pointer of the next row of the same buffer.
  void next_row(const Xbyak::Reg64& dst, const Xbyak::Reg64& previous, const Ref& ref, int index) {
    const Buffer& b = plan.buffers[ref.buffer];
    if (b.space == Space::external) {
      code.mov(dst, buffer_arg(ref.buffer));
      code.mov(dst, Xbyak::util::ptr[dst + reg::row * 8 + disp(index * 8)]);
      code.add(dst, buffer_slot("time", ref.buffer));
    } else if (b.space == Space::strided) {
      code.mov(dst, previous);
      code.add(dst, stride_arg(ref.buffer));
    } else {
      code.lea(dst, Xbyak::util::ptr[previous + b.row_stride]);
    }
  }
};

}  // namespace deepcpu::jit
