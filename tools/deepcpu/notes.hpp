// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

namespace deepcpu::cli {

/// Fallbacks that the library took, each as one line `deepcpu: note: ...` on stderr.
void print_notes(std::span<const std::string> notes);

}  // namespace deepcpu::cli
