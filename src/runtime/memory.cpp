// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/memory.hpp"

#include <fmt/format.h>

#include "src/machine/system.hpp"

namespace deepcpu {
namespace {

/// Less than this is not looked up: every process has it, and the files take time to read.
constexpr std::uint64_t kSmall = std::uint64_t{4} << 20;

}  // namespace

Status check_available(std::string_view what, std::optional<std::uint64_t> bytes) {
  if (bytes && *bytes <= kSmall) return {};
  const std::uint64_t available = available_memory("");
  if (bytes && *bytes <= available) return {};
  return Error(fmt::format("{} {} bytes, {} are available", what,
                           bytes ? std::to_string(*bytes) : "over 2^64", available),
               ErrorKind::memory);
}

}  // namespace deepcpu
