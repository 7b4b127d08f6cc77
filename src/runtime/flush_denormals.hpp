// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xmmintrin.h>

namespace deepcpu {

/// While it lives: default rounding, exceptions masked, results below 2^-126 become 0 and such
/// inputs count as 0 (FTZ, DAZ). A decaying state would otherwise reach denormals, which cost a
/// hundred cycles each. The caller's mode comes back on destruction.
class FlushDenormals {
 public:
  FlushDenormals() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(kMode); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static constexpr unsigned kMode = 0x1f80U | 0x8000U | 0x0040U;
  unsigned saved_;
};

}  // namespace deepcpu
