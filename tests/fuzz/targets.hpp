// SPDX-License-Identifier: Apache-2.0
/// What libFuzzer calls with bytes of its own (preset fuzz), and the test suite with those of
/// tests/fuzz/corpus. Each aborts where a rule is broken.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace deepcpu::fuzz {

void wisdom(std::string_view bytes);
void problem(std::string_view bytes);

/// Like an assertion, in every kind of build.
inline void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", rule);
  std::abort();
}

}  // namespace deepcpu::fuzz
