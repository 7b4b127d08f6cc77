// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/notes.hpp"

#include <fmt/format.h>

namespace deepcpu::cli {

void print_notes(std::span<const std::string> notes) {
  for (const std::string& note : notes) fmt::print(stderr, "deepcpu: note: {}\n", note);
}

}  // namespace deepcpu::cli
