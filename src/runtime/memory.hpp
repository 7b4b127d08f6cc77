// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "deepcpu/result.hpp"
#include "src/aligned_bytes.hpp"

namespace deepcpu {

/// Whether this process may have that many bytes now, before it touches them: the system gives out
/// more than it has, and ends who then uses it. Absent: more than 64 bits can count. The error is
/// "<what> <bytes> bytes, <n> are available".
Status check_available(std::string_view what, std::optional<std::uint64_t> bytes);

}  // namespace deepcpu
