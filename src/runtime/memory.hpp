// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string_view>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// Whether this process may have that many bytes now, before it touches them: the system gives out
/// more than it has, and ends who then uses it. Absent: more than 64 bits can count. The error is
/// "<what> <bytes> bytes, <n> are available".
Status check_available(std::string_view what, std::optional<std::uint64_t> bytes);

/// For tests: while it is set, new memory is full of NaN instead of zero, so that whoever reads
/// what nobody wrote is found out.
inline std::atomic<bool> poison_new_memory{false};

/// Zeroed bytes at a multiple of 4096; none if `bytes` is 0. Throws std::bad_alloc.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t bytes) {
    if (bytes == 0) return;
    if (bytes > SIZE_MAX - kAlignment) throw std::bad_alloc();
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
    if (!data_) throw std::bad_alloc();
    std::memset(data_.get(), poison_new_memory.load() ? 0xFF : 0, rounded);
    size_ = bytes;
  }
  std::byte* data() const noexcept { return data_.get(); }
  std::size_t size() const noexcept { return size_; }

 private:
  static constexpr std::size_t kAlignment = 4096;
  struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace deepcpu
