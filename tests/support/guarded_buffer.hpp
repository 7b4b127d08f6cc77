// SPDX-License-Identifier: Apache-2.0
/// Memory that faults on the first byte read or written past either end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace deepcpu::test {

/// Bits of the signalling NaN that fills memory nobody may read.
inline constexpr std::uint32_t kSignallingNan = 0x7fa0dead;

/// `count` float32 patterns of the signalling NaN; written as integers, so that they stay
/// signalling.
inline void poison(void* data, std::size_t bytes) {
  auto* out = static_cast<unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<unsigned char>(kSignallingNan >> (8 * (i % 4)));
  }
}

/// Which end of the data stands against a page without access.
enum class Against { start, end };

/// Bytes between two pages without access. With Against::end the last byte stands directly before
/// the guard page, up to `alignment`; with Against::start the first byte directly after the other.
/// What is left of the pages on the far side holds a pattern that intact() checks, so a stray
/// write there is seen too (a stray read is not). The data begin as signalling NaN.
class GuardedBuffer {
 public:
  /// `alignment` of the first byte: a power of two up to 4096. `skew` is added to an aligned
  /// address, so {alignment 64, skew 4} is an address that is a multiple of 4 but not of 8.
  explicit GuardedBuffer(std::size_t bytes, Against against = Against::end,
                         std::size_t alignment = 4, std::size_t skew = 0);
  GuardedBuffer(GuardedBuffer&& other) noexcept { swap(other); }
  GuardedBuffer& operator=(GuardedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  ~GuardedBuffer();

  unsigned char* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }
  std::span<float> floats() const noexcept {
    return {reinterpret_cast<float*>(data_), bytes_ / sizeof(float)};
  }
  /// Copies the numbers in; the counts must agree.
  void fill(std::span<const float> values) const {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size_bytes());
  }
  /// No byte between the data and the guard pages has been written.
  bool intact() const noexcept;
  /// From now on a write to the data faults (whole pages; the data can be read on).
  void make_read_only() const;

 private:
  void swap(GuardedBuffer& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(mapped_, other.mapped_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  unsigned char* mapping_ = nullptr;  ///< first guard page
  std::size_t mapped_ = 0;            ///< bytes with both guard pages
  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace deepcpu::test
