// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace deepcpu {

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv). Files hold its values.
class Fnv1a {
 public:
  /// The lowest `bytes` bytes of a number, lowest first.
  void add(std::uint64_t number, int bytes) noexcept {
    for (int i = 0; i < bytes; ++i) {
      hash_ = (hash_ ^ (number & 0xffU)) * 0x100000001b3U;
      number >>= 8U;
    }
  }
  std::uint64_t value() const noexcept { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325U;
};

}  // namespace deepcpu
