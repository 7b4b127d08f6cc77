// SPDX-License-Identifier: Apache-2.0
#include "tests/runtime/allocation_counter.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>

#include "tests/runtime/allocation_failure.hpp"
#include "tests/support/sanitizers.hpp"

namespace {

std::atomic<bool> armed{false};
std::atomic<std::uint64_t> allocations{0};

void note_allocation() noexcept {
  if (armed.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

#if DEEPCPU_SANITIZER

// The sanitizers bring an allocator of their own, with a hook for this purpose.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             std::size_t),
                                                         void (*free_hook)(const volatile void*));

namespace {
const int hooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { note_allocation(); }, [](const volatile void*) {});
}  // namespace

#else

// A program's own definitions take precedence over those of the C library, also for calls from
// inside other libraries. What they return comes from the C library, so its free() takes it back.
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* old, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

void* malloc(std::size_t bytes) noexcept {
  note_allocation();
  return __libc_malloc(bytes);
}

void* calloc(std::size_t count, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_calloc(count, bytes);
}

void* realloc(void* old, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_realloc(old, bytes);
}

void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_memalign(alignment, bytes);
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  if (deepcpu::test::allocation_fails()) return nullptr;
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  void* const p = __libc_memalign(alignment, bytes);
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}
}

#endif

namespace deepcpu::test {

AllocationCounter::AllocationCounter() noexcept {
  allocations.store(0);
  armed.store(true);
}

AllocationCounter::~AllocationCounter() { armed.store(false); }

std::uint64_t AllocationCounter::count() const noexcept { return allocations.load(); }

}  // namespace deepcpu::test
