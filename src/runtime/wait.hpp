// SPDX-License-Identifier: Apache-2.0
/// How one participant waits for another.
#pragma once

#include <atomic>
#include <cstdint>

namespace deepcpu {

/// A counter on a cache line pair of its own (adjacent lines are fetched together).
struct alignas(128) Counter {
  std::uint64_t value = 0;

  std::uint64_t load() const noexcept {
    return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(value))
        .load(std::memory_order_acquire);
  }
  void store(std::uint64_t v) noexcept {
    std::atomic_ref<std::uint64_t>(value).store(v, std::memory_order_release);
  }
};

/// Set for the calling thread while an object of this kind lives: a function that a wait calls
/// every few microseconds until it sleeps.
class WhileWaiting {
 public:
  using Call = void (*)(void* context) noexcept;

  WhileWaiting(Call call, void* context) noexcept;
  ~WhileWaiting();
  WhileWaiting(const WhileWaiting&) = delete;
  WhileWaiting& operator=(const WhileWaiting&) = delete;

 private:
  Call outer_call_;
  void* outer_context_;
};

/// Yields the processor, since another participant may want to run there; but rarely once that has
/// turned out to serve a thread that keeps it for milliseconds.
void give_way() noexcept;

/// Returns once *counter >= at_least. For 1 ms it pauses and, every 4 µs, gives way, since the one
/// that it waits for may want to run there; then it sleeps in slices of 100 µs. The
/// one who counts never has to wake anybody. Emitted code calls it after its own first polls.
void wait_until(const volatile std::uint64_t* counter, std::uint64_t at_least) noexcept;

/// The same for data that is its own sign: returns once none of `count` numbers holds the bits of
/// a number not yet written (jit::kUnwritten).
void wait_until_written(const volatile std::uint32_t* numbers, std::uint64_t count) noexcept;

}  // namespace deepcpu
