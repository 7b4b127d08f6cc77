// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace deepcpu {

/// The text of every element of the first array inside a JSON object, without the space around it.
/// `text` must be valid JSON.
std::vector<std::string_view> element_spans(std::string_view text);

}  // namespace deepcpu
