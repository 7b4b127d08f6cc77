// SPDX-License-Identifier: Apache-2.0
#include "jit/rate_kernels.hpp"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <exception>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "jit/xbyak.hpp"

namespace deepcpu::jit {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"fma_registers", "fma_memory",  "load",
                                                    "fma_mixed",     "fma_strided", "add_chain"};

/// Vec is Xbyak::Ymm or Xbyak::Zmm. Accumulators: enough to hide the latency of an FMA (two per
/// cycle, four or five cycles each), and two registers are left for the factors.
template <class Vec>
class RateEmitter : public Xbyak::CodeGenerator {
 public:
  static constexpr bool kWide = std::is_same_v<Vec, Xbyak::Zmm>;
  static constexpr int kAccumulators = kWide ? 24 : 12;
  static constexpr std::size_t kBytes = kWide ? 64 : 32;

  explicit RateEmitter(RateKind kind)
      : CodeGenerator(kCapacity, Xbyak::DontSetProtectRWE), kind_(kind) {
    prologue();
    Xbyak::Label pass;
    Xbyak::Label group;
    Xbyak::Label block;
    L(pass);
    mov(groups_left_, groups_);
    L(group);
    mov(at_, group_);
    mov(blocks_left_, blocks_);
    align(CodeMemory::kAlignment);
    mark("block");
    L(block);
    body();
    add(at_, static_cast<std::uint32_t>(kRateVectors * kBytes * rate_stride(kind_)));
    dec(blocks_left_);
    jnz(block, T_NEAR);
    mark("group");
    add(group_, stride_);
    dec(groups_left_);
    jnz(group, T_NEAR);
    turn();
    dec(passes_);
    jnz(pass, T_NEAR);
    epilogue();
  }

  std::vector<CodeLabel> labels() const { return labels_; }

 private:
  static constexpr std::size_t kCapacity = 4096;
  static constexpr int kMixedSums = 4;  // as many as a panel of an LSTM has

  void prologue() {
    push(rbp);
    mov(rbp, rsp);
    push(rbx);
    push(r12);
    mov(first_, ptr[args_ + offsetof(RateArgs, first)]);
    mov(stride_, ptr[args_ + offsetof(RateArgs, stride)]);
    mov(groups_, ptr[args_ + offsetof(RateArgs, groups)]);
    mov(blocks_, ptr[args_ + offsetof(RateArgs, blocks)]);
    mov(passes_, ptr[args_ + offsetof(RateArgs, passes)]);
    for (int i = 0; i < kAccumulators; ++i) vxorps(Xbyak::Xmm(i), Xbyak::Xmm(i), Xbyak::Xmm(i));
    vbroadcastss(a_, ptr[args_ + offsetof(RateArgs, a)]);
    vbroadcastss(b_, ptr[args_ + offsetof(RateArgs, b)]);
    mov(group_, first_);
  }

  void body() {
    for (std::size_t i = 0; i < kRateVectors; ++i) {
      const Vec accumulator(static_cast<int>(i) % kAccumulators);
      switch (kind_) {
        case RateKind::fma_registers:
          vfmadd231ps(accumulator, a_, b_);
          break;
        case RateKind::fma_memory:
        case RateKind::fma_strided:
          vfmadd231ps(accumulator, a_, ptr[at_ + i * kBytes * rate_stride(kind_)]);
          break;
        case RateKind::load:
          vmovaps(accumulator, ptr[at_ + i * kBytes]);
          break;
        case RateKind::fma_mixed:
          vfmadd231ps(Vec(static_cast<int>(i) % kMixedSums), a_, ptr[at_ + i * kBytes]);
          if (i % kMixedVectors == kMixedVectors - 1) further();
          break;
        // Register plus register: some CPUs fold additions of a constant into one.
        case RateKind::add_chain:
          add(sum_, blocks_);
          break;
      }
    }
  }

  /// The further multiply-adds of fma_mixed. Their eight lines stay in the L1 cache.
  void further() {
    vmovaps(b_, ptr[first_]);
    for (std::size_t row = 0; row < kMixedVectors; ++row) {
      const Vec sum(kMixedSums + static_cast<int>(row));
      if constexpr (kWide) {
        vfmadd231ps(sum, b_, ptr_b[first_ + row * kBytes]);
      } else {
        vfmadd231ps(sum, b_, ptr[first_ + row * kBytes]);
      }
    }
  }

  /// Where the next pass begins: at the first group again, or at the group just read.
  void turn() {
    Xbyak::Label forward;
    Xbyak::Label next;
    mark("turn");
    cmp(qword[args_ + offsetof(RateArgs, alternate)], 0);
    je(forward);
    neg(stride_);
    add(group_, stride_);
    jmp(next);
    L(forward);
    mov(group_, first_);
    L(next);
  }

  void epilogue() {
    mark("sum");
    for (int i = 1; i < kAccumulators; ++i) vaddps(Vec(0), Vec(0), Vec(i));
    mov(first_, ptr[args_ + offsetof(RateArgs, sums)]);
    vmovups(ptr[first_], Vec(0));
    vzeroupper();
    pop(r12);
    pop(rbx);
    pop(rbp);
    ret();
  }

  void mark(const char* name) { labels_.push_back({name, getSize()}); }

  RateKind kind_;
  std::vector<CodeLabel> labels_;
  const Xbyak::Reg64 args_ = rdi;
  const Xbyak::Reg64 at_ = rax;           // the block being read
  const Xbyak::Reg64 group_ = rbx;        // the group being read; callee-saved
  const Xbyak::Reg64 groups_left_ = rcx;  // in this pass
  const Xbyak::Reg64 blocks_left_ = r12;
  const Xbyak::Reg64 stride_ = rdx;  // changes its sign at every turn of an alternating walk
  const Xbyak::Reg64 passes_ = rsi;  // passes left
  const Xbyak::Reg64 groups_ = r8;
  const Xbyak::Reg64 blocks_ = r9;
  const Xbyak::Reg64 first_ = r10;  // at the end: where the sums go
  const Xbyak::Reg64 sum_ = r11;    // of add_chain; its value does not matter
  const Vec a_{kWide ? 30 : 14};
  const Vec b_{kWide ? 31 : 15};
};

template <class Vec>
Result<CodeBlob> emit(RateKind kind, Isa isa) {
  try {
    RateEmitter<Vec> emitter(kind);
    emitter.ready(Xbyak::CodeArray::PROTECT_RW);
    const auto bytes = std::as_bytes(std::span(emitter.getCode(), emitter.getSize()));
    Result<CodeMemory> memory = CodeMemory::make(bytes);
    if (!memory.ok()) return memory.error();
    CodeBlob blob;
    blob.symbol = fmt::format("deepcpu.rate.{}.{}", to_string(kind), to_string(isa));
    blob.isa = isa;
    blob.memory = std::move(*memory);
    blob.labels = emitter.labels();
    return blob;
  } catch (const std::exception& e) {
    return Error(fmt::format("rate loop {}: emission failed: {}", to_string(kind), e.what()));
  }
}

}  // namespace

std::string_view to_string(RateKind kind) noexcept {
  return kNames[static_cast<std::size_t>(kind)];
}

std::size_t rate_block_bytes(Isa isa) noexcept {
  return kRateVectors * static_cast<std::size_t>(lanes(isa)) * sizeof(float);
}

Result<RateKernel> RateKernel::make(RateKind kind, Isa isa) {
  if (isa == Isa::interpreter) return Error("isa=interpreter: rates need emitted code");
  Result<CodeBlob> blob =
      isa == Isa::avx512 ? emit<Xbyak::Zmm>(kind, isa) : emit<Xbyak::Ymm>(kind, isa);
  if (!blob.ok()) return blob.error();
  return RateKernel(publish(std::move(*blob)));
}

void RateKernel::run(const RateArgs& args) const noexcept {
  if (args.groups == 0 || args.blocks == 0 || args.passes == 0) return;
  using Loop = void (*)(const RateArgs*);
  const auto address = reinterpret_cast<std::uintptr_t>(blob_->memory.data());
  reinterpret_cast<Loop>(address)(&args);
}

}  // namespace deepcpu::jit
