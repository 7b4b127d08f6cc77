// SPDX-License-Identifier: Apache-2.0
#include "src/io/quote.hpp"

#include <fmt/format.h>

namespace deepcpu {

std::string quote(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string shown;
  for (const char c : text.substr(0, kLongest)) {
    if (c >= ' ' && c <= '~') {
      shown.push_back(c);
    } else {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    }
  }
  if (text.size() > kLongest) shown += "...";
  return shown;
}

}  // namespace deepcpu
