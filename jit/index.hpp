// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepcpu {

/// A number that is not negative, as containers count.
constexpr std::size_t at(std::int64_t i) noexcept { return static_cast<std::size_t>(i); }

}  // namespace deepcpu
