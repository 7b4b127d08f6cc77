// SPDX-License-Identifier: Apache-2.0
/// Executable memory that is never writable and executable at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "deepcpu/result.hpp"

namespace deepcpu::jit {

/// Owns the pages of one piece of machine code. The pages are mapped for it alone (no other code
/// and no heap data shares them), were writable only while the bytes were copied in, and are
/// unmapped on destruction. Movable, not copyable; reading it from several threads is safe.
class CodeMemory {
 public:
  CodeMemory() = default;
  CodeMemory(CodeMemory&& other) noexcept;
  CodeMemory& operator=(CodeMemory&& other) noexcept;
  CodeMemory(const CodeMemory&) = delete;
  CodeMemory& operator=(const CodeMemory&) = delete;
  ~CodeMemory();

  /// Copies `code` into fresh pages and makes them readable and executable. The code must be
  /// position independent; it starts at a multiple of kAlignment. Errors: empty code; the system
  /// refuses the pages or refuses to make them executable (a seccomp filter, SELinux, no memory).
  static Result<CodeMemory> make(std::span<const std::byte> code);

  const std::byte* data() const noexcept { return code_; }
  /// Bytes of code, without the padding around it.
  std::size_t size() const noexcept { return size_; }
  std::span<const std::byte> bytes() const noexcept { return {code_, size_}; }

  static constexpr std::size_t kAlignment = 64;

 private:
  void release() noexcept;

  void* pages_ = nullptr;
  std::size_t pages_size_ = 0;
  const std::byte* code_ = nullptr;
  std::size_t size_ = 0;
};

/// The step of CodeMemory::make that is made to fail.
enum class CodeMemoryFault : std::uint8_t { none, map, protect };

/// For tests of the path without executable memory: until it is called with `none`, every
/// CodeMemory::make in this process fails at that step as if the system had refused. Thread-safe.
void inject_code_memory_fault(CodeMemoryFault fault) noexcept;

}  // namespace deepcpu::jit
