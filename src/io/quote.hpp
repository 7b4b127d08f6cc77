// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace deepcpu {

/// Text of unknown origin as an error sentence may show it: at most 60 bytes, then "...", with
/// every byte outside printable ASCII written as \xNN.
std::string quote(std::string_view text);

}  // namespace deepcpu
