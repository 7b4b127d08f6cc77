// SPDX-License-Identifier: Apache-2.0
/// A piece of emitted code with everything needed to run, name and inspect it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepcpu/schedule.hpp"
#include "jit/code_memory.hpp"
#include "jit/kernel_plan.hpp"

namespace deepcpu::jit {

using KernelEntry = void (*)(const KernelArgs*);

/// A named position in the code, as `timestep` or `stage0.level1.k`.
struct CodeLabel {
  std::string name;
  std::size_t offset = 0;  ///< bytes from the start of the code
};

/// What the instructions in [begin, end) compute, as `c = f*c + i*g`.
struct CodeNote {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::string text;
};

/// Emitted code: the emitter fills the fields and hands the blob to publish(). Afterwards it is
/// immutable and may be used from any number of threads.
///
/// The code begins at its entry with `push rbp; mov rbp, rsp` and keeps rbp as its frame pointer,
/// so that one unwind rule holds from there to the end.
struct CodeBlob {
  static constexpr std::size_t kNoData = SIZE_MAX;

  std::string symbol;  ///< as `deepcpu.lstm.i256.h256.avx512.<hash>`, see kernel_symbol
  Isa isa = Isa::interpreter;
  CodeMemory memory;
  std::vector<CodeLabel> labels;
  std::vector<CodeNote> notes;
  /// Offset from which constants and tables stand instead of instructions; kNoData if none do.
  std::size_t data_begin = kNoData;
  /// Keeps the code known to debuggers; set by publish(). Destroyed before the memory.
  std::shared_ptr<const void> registration;

  KernelEntry entry() const noexcept {
    return reinterpret_cast<KernelEntry>(reinterpret_cast<std::uintptr_t>(memory.data()));
  }
  std::size_t size() const noexcept { return memory.size(); }
  std::span<const std::byte> code() const noexcept { return memory.bytes(); }
  /// Bytes of instructions in front of the constants.
  std::size_t instruction_bytes() const noexcept {
    return data_begin < size() ? data_begin : size();
  }
};

/// `deepcpu.<plan name>.<isa>.<hash of the plan>`.
std::string kernel_symbol(const KernelPlan& plan);

/// The one way by which code becomes usable: sorts labels and notes by offset and makes the code
/// known to the tools that the environment asks for:
///   DEEPCPU_PERF=map     one line per kernel in /tmp/perf-<pid>.map
///   DEEPCPU_PERF=labels  one line per label instead, so that perf shows the parts of a kernel
///   DEEPCPU_GDB=1        an in-memory ELF file for gdb's JIT interface, withdrawn with the blob
/// These are aids: when a tool cannot be served the code is published all the same. Thread-safe.
std::shared_ptr<const CodeBlob> publish(CodeBlob blob);

}  // namespace deepcpu::jit
