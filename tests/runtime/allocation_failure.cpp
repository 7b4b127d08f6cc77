// SPDX-License-Identifier: Apache-2.0
#include "tests/runtime/allocation_failure.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

#include "tests/support/sanitizers.hpp"

namespace deepcpu::test {
namespace {

struct State {
  std::int64_t left = -1;  ///< allocations until the one that fails; below 0: none does
  bool persist = false;
  bool hit = false;
};
thread_local State state;

}  // namespace

AllocationFailure::AllocationFailure(std::int64_t nth, bool persist) noexcept {
  state = {nth, persist, false};
}
AllocationFailure::~AllocationFailure() { state = {}; }
bool AllocationFailure::hit() const noexcept { return state.hit; }

bool allocation_fails() noexcept {
  if (state.left < 0) return false;
  if (state.left-- > 0) return false;
  state.hit = true;
  if (state.persist) state.left = 0;
  return true;
}

}  // namespace deepcpu::test

#if !DEEPCPU_THREAD_SANITIZER  // its own operators cannot be replaced; no test may need it there

namespace {

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (deepcpu::test::allocation_fails()) return nullptr;
  if (alignment == 0) return std::malloc(bytes == 0 ? 1 : bytes);
  void* out = nullptr;
  return posix_memalign(&out, alignment, bytes) == 0 ? out : nullptr;
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const out = allocate(bytes, alignment);
  if (out == nullptr) throw std::bad_alloc();
  return out;
}

std::size_t number(std::align_val_t alignment) { return static_cast<std::size_t>(alignment); }

}  // namespace

// Every form is replaced: a sanitizer's own ones must not meet these.
void* operator new(std::size_t n) { return allocate_or_throw(n, 0); }
void* operator new[](std::size_t n) { return allocate_or_throw(n, 0); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, number(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, number(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, 0); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, 0); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, number(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, number(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }

#endif
