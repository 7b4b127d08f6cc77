// SPDX-License-Identifier: Apache-2.0
#include "jit/emitter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "jit/emit_context.hpp"
#include "jit/emit_epilogue.hpp"
#include "jit/emit_timestep.hpp"

namespace deepcpu::jit {
namespace {

/// Room to write into: more than is allowed, so that the error can say how much too large it is.
constexpr std::size_t kBufferBytes = 8 * kMaxCodeBytes;

/// What a kernel may have that makes it longer. Where the code would be too long, or registers do
/// not suffice, what costs most code for its gain is left out first.
struct Features {
  bool looks = true;       ///< products that look at rings: long straight code
  bool columns = true;     ///< epilogues of several columns together: as many copies
  bool fetches = true;     ///< loops of tiles ask for weights to come
  bool weave = true;       ///< a second copy of products and epilogue, and registers for both
  bool even_tiles = true;  ///< tiles of one row less: a further copy of the products
  bool pieces = true;      ///< of k
};

constexpr std::array kChoices = {
    Features{},
    Features{.looks = false},
    Features{.looks = false, .columns = false},
    Features{.looks = false, .columns = false, .fetches = false},
    Features{
        .looks = false, .columns = false, .fetches = false, .weave = false, .even_tiles = false},
    Features{.looks = false,
             .columns = false,
             .fetches = false,
             .weave = false,
             .even_tiles = false,
             .pieces = false},
};

/// A kernel whose code has not been made executable yet.
struct Emitted {
  CodeBlob blob;
  std::vector<std::byte> code;
};

template <class Vmm>
Result<Emitted> emit_for(const KernelPlan& plan, const Features& features) {
  // As aligned as the pages that the code is copied to: align() looks at addresses.
  const auto free = [](void* p) { std::free(p); };
  const std::unique_ptr<void, decltype(free)> buffer(std::aligned_alloc(4096, kBufferBytes), free);
  if (!buffer) return Error::memory("emit code");
  Xbyak::CodeGenerator code(kBufferBytes, buffer.get());
  EmitContext<Vmm> ctx(code, plan);
  ctx.looks = features.looks;
  ctx.weave = features.weave && plan.rows == 1 && !plan.weights_in_registers;
  ctx.even_tiles = features.even_tiles;
  ctx.fetches = features.fetches;
  if (features.columns) ctx.columns = EpilogueEmitter<Vmm>::kMostColumns;
  ctx.pieces = features.pieces;
  TimestepEmitter<Vmm>(ctx).emit();
  const std::size_t data_begin = code.getSize();
  ctx.pool.place(code);
  if (code.hasUndefinedLabel()) return Error("emission: a label was left undefined");
  if (code.getSize() > kMaxCodeBytes) {
    return Error(fmt::format("kernel {}: {} bytes of code, at most {} are allowed", plan.name,
                             code.getSize(), kMaxCodeBytes),
                 ErrorKind::code_size);
  }
  Emitted out;
  const auto bytes = std::as_bytes(std::span(code.getCode(), code.getSize()));
  out.code.assign(bytes.begin(), bytes.end());
  out.blob.symbol = kernel_symbol(plan);
  out.blob.isa = plan.isa;
  out.blob.labels = std::move(ctx.record.labels);
  out.blob.notes = std::move(ctx.record.notes);
  out.blob.data_begin = data_begin;
  return out;
}

Result<Emitted> emit_for_isa(const KernelPlan& plan, const Features& features) {
  try {
    return plan.isa == Isa::avx2 ? emit_for<Xbyak::Ymm>(plan, features)
                                 : emit_for<Xbyak::Zmm>(plan, features);
  } catch (const Xbyak::Error& e) {
    const bool too_large = static_cast<int>(e) == Xbyak::ERR_CODE_IS_TOO_BIG;
    return Error(fmt::format("kernel {}: emission failed: {}", plan.name, e.what()),
                 too_large ? ErrorKind::code_size : ErrorKind::other);
  } catch (const std::bad_alloc&) {
    return Error::memory("emit code");
  }
}

}  // namespace

Result<std::shared_ptr<const CodeBlob>> emit(const KernelPlan& plan) {
  if (plan.isa == Isa::interpreter) {
    return Error(fmt::format("kernel {}: isa=interpreter: has no code", plan.name));
  }
  const bool polls = std::any_of(plan.stages.begin(), plan.stages.end(),
                                 [](const Stage& s) { return !s.polls.empty(); });
  std::size_t choice = polls ? 0 : 1;
  Result<Emitted> emitted = emit_for_isa(plan, kChoices[choice]);
  while (!emitted && emitted.error().kind() != ErrorKind::memory && ++choice < kChoices.size()) {
    emitted = emit_for_isa(plan, kChoices[choice]);
  }
  if (!emitted) return emitted.error();
  auto memory = CodeMemory::make(emitted->code);
  if (!memory) return memory.error();
  emitted->blob.memory = std::move(*memory);
  return publish(std::move(emitted->blob));
}

}  // namespace deepcpu::jit
