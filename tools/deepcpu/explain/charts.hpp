// SPDX-License-Identifier: Apache-2.0
/// The charts of the page, each a whole SVG element, or nothing where there is nothing to draw.
#pragma once

#include <string>

#include "src/tune/explain.hpp"

namespace deepcpu::cli {

/// FLOP/s over FLOP per byte of one core: its ceilings, and where the problem stands.
std::string roofline_chart(const Explanation& e);
/// Where the time of a mean step goes, one bar per thread.
std::string timeline_chart(const Explanation& e);
/// Predicted against measured time, one dot per candidate.
std::string candidates_chart(const Explanation& e);
/// Runs per second over the number of threads.
std::string threads_chart(const Explanation& e);

}  // namespace deepcpu::cli
