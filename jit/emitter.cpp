// SPDX-License-Identifier: Apache-2.0
#include "jit/emitter.hpp"

#include <fmt/format.h>

#include <algorithm>
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

/// How much code there may be. Products that look at rings are long straight code; without them
/// there is most of it. Epilogues of several columns together are as many copies; without them
/// there is much. Fetching makes the loops of tiles longer; without it there is some. Weaving takes
/// a second copy of products and epilogue, and registers for both at a time; tiles of one row less
/// take a further copy of the products; without these there is less, without pieces of k the least.
enum class Room : std::uint8_t { all, most, much, some, less, least };

template <class Vmm>
Result<CodeBlob> emit_for(const KernelPlan& plan, Room room) {
  // As aligned as the pages that the code is copied to: align() looks at addresses.
  const auto free = [](void* p) { std::free(p); };
  const std::unique_ptr<void, decltype(free)> buffer(std::aligned_alloc(4096, kBufferBytes), free);
  if (!buffer) return Error::memory("emit code");
  Xbyak::CodeGenerator code(kBufferBytes, buffer.get());
  EmitContext<Vmm> ctx(code, plan);
  ctx.looks = room == Room::all;
  ctx.weave = room <= Room::some && plan.rows == 1 && !plan.weights_in_registers;
  ctx.even_tiles = room <= Room::some;
  ctx.fetches = room <= Room::much;
  if (room <= Room::most) ctx.columns = EpilogueEmitter<Vmm>::kMostColumns;
  ctx.pieces = room != Room::least;
  TimestepEmitter<Vmm>(ctx).emit();
  const std::size_t data_begin = code.getSize();
  ctx.pool.place(code);
  if (code.hasUndefinedLabel()) return Error("emission: a label was left undefined");
  if (code.getSize() > kMaxCodeBytes) {
    return Error(fmt::format("kernel {}: {} bytes of code, at most {} are allowed", plan.name,
                             code.getSize(), kMaxCodeBytes),
                 ErrorKind::code_size);
  }
  auto memory = CodeMemory::make(std::as_bytes(std::span(code.getCode(), code.getSize())));
  if (!memory) return memory.error();
  CodeBlob blob;
  blob.symbol = kernel_symbol(plan);
  blob.isa = plan.isa;
  blob.memory = std::move(*memory);
  blob.labels = std::move(ctx.record.labels_);
  blob.notes = std::move(ctx.record.notes_);
  blob.data_begin = data_begin;
  return blob;
}

Result<CodeBlob> emit_for_isa(const KernelPlan& plan, Room room) {
  try {
    return plan.isa == Isa::avx2 ? emit_for<Xbyak::Ymm>(plan, room)
                                 : emit_for<Xbyak::Zmm>(plan, room);
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
  Result<CodeBlob> blob = emit_for_isa(plan, polls ? Room::all : Room::most);
  for (const Room room : {Room::most, Room::much, Room::some, Room::less, Room::least}) {
    if (blob || blob.error().kind() == ErrorKind::memory) break;
    blob = emit_for_isa(plan, room);
  }
  if (!blob) return blob.error();
  return publish(std::move(*blob));
}

}  // namespace deepcpu::jit
