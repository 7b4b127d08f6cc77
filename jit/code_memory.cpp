// SPDX-License-Identifier: Apache-2.0
#include "jit/code_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace deepcpu::jit {
namespace {

std::atomic<CodeMemoryFault> g_fault{CodeMemoryFault::none};

/// Fills what is not code: a jump that goes astray traps at once.
constexpr int kBreakpoint = 0xCC;

/// Padding in front of the code. Checkers of indirect calls (clang's -fsanitize=function) read a
/// few bytes before a function's entry; those must be mapped.
constexpr std::size_t kLead = CodeMemory::kAlignment;

void* map_pages(std::size_t bytes) noexcept {
  if (g_fault.load(std::memory_order_relaxed) == CodeMemoryFault::map) {
    errno = ENOMEM;
    return nullptr;
  }
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

bool make_executable(void* pages, std::size_t bytes) noexcept {
  if (g_fault.load(std::memory_order_relaxed) == CodeMemoryFault::protect) {
    errno = EACCES;
    return false;
  }
  return mprotect(pages, bytes, PROT_READ | PROT_EXEC) == 0;
}

/// A lack of memory may pass; a system that forbids executable memory goes on doing so.
Error refused(const char* what, std::size_t bytes, int number) {
  return Error(fmt::format("executable memory: the system refused to {} {} bytes ({})", what, bytes,
                           std::generic_category().message(number)),
               number == ENOMEM ? ErrorKind::memory : ErrorKind::other);
}

}  // namespace

void inject_code_memory_fault(CodeMemoryFault fault) noexcept {
  g_fault.store(fault, std::memory_order_relaxed);
}

Result<CodeMemory> CodeMemory::make(std::span<const std::byte> code) {
  if (code.empty()) return Error("code size=0: must be at least 1 byte");
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (code.size() > SIZE_MAX / 2) {
    return Error(fmt::format("code size={}: must fit the address space", code.size()));
  }
  const std::size_t bytes = (kLead + code.size() + page - 1) / page * page;

  void* pages = map_pages(bytes);
  if (pages == nullptr) return refused("map", bytes, errno);
  CodeMemory memory;
  memory.pages_ = pages;
  memory.pages_size_ = bytes;
  memory.code_ = static_cast<const std::byte*>(pages) + kLead;
  memory.size_ = code.size();

  std::memset(pages, kBreakpoint, bytes);
  std::memcpy(static_cast<std::byte*>(pages) + kLead, code.data(), code.size());
  if (!make_executable(pages, bytes)) return refused("make executable", bytes, errno);
  return memory;
}

CodeMemory::CodeMemory(CodeMemory&& other) noexcept
    : pages_(std::exchange(other.pages_, nullptr)),
      pages_size_(std::exchange(other.pages_size_, 0)),
      code_(std::exchange(other.code_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

CodeMemory& CodeMemory::operator=(CodeMemory&& other) noexcept {
  if (this != &other) {
    release();
    pages_ = std::exchange(other.pages_, nullptr);
    pages_size_ = std::exchange(other.pages_size_, 0);
    code_ = std::exchange(other.code_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

CodeMemory::~CodeMemory() { release(); }

void CodeMemory::release() noexcept {
  if (pages_ != nullptr) munmap(pages_, pages_size_);
  pages_ = nullptr;
}

}  // namespace deepcpu::jit
