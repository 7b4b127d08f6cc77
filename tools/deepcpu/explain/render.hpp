// SPDX-License-Identifier: Apache-2.0
/// An Explanation as text, as JSON and as a page; and the tables that all three show.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tune/explain.hpp"

namespace deepcpu::cli {

/// Where the time of a run goes, of the busiest participant.
struct PartRow {
  std::string_view name;
  double predicted_us = 0.0;
  std::optional<double> measured_us;
  std::string_view how;  ///< it is measured
};
/// The parts, then the whole run.
std::vector<PartRow> part_rows(const Explanation& e);

/// What one cache level (or memory) does in a run.
struct LevelRow {
  std::string name;
  double gbytes_per_s = 0.0;           ///< of one core, with as many active as the schedule has
  std::optional<double> serves_bytes;  ///< of a core's stream; none: no end
  double hoisted_bytes = 0.0;          ///< of weights, busiest participant
  double in_loop_bytes = 0.0;
};
std::vector<LevelRow> level_rows(const Explanation& e);

/// FLOPs, bytes and time of one kind of products on the busiest participant.
struct RooflinePoint {
  std::string_view name;
  double flops = 0.0;
  double bytes = 0.0;
  double us = 0.0;
  bool measured = false;
  double intensity() const { return flops / bytes; }
  double gflops() const { return 1e-3 * flops / us; }
};
/// Those that have bytes and time: hoisted products, products of the time loop.
std::vector<RooflinePoint> roofline_points(const Explanation& e);

/// A term of the limit, with what it stands for.
struct LimitRow {
  std::string_view name;
  double us = 0.0;
  std::string_view what;
};
std::vector<LimitRow> limit_rows(const Explanation& e);

/// Cores that are active under the schedule.
int active_cores(const Explanation& e);
/// One line: where the figures of the machine come from.
std::string machine_line(const Explanation& e);
/// "9 % of the limit's speed ...": what fraction is reached, in a sentence.
std::string fraction_line(const Explanation& e);
/// "-" for nothing.
std::string us_text(std::optional<double> us);
std::string bytes_text(double bytes);
/// A count, or its power of ten where it has more than 12 digits.
std::string count_text(const Count& count);
std::string indented(std::string_view text);

std::string explanation_text(const Explanation& e);
/// One object, indented, ending in a newline.
std::string explanation_json(const Explanation& e);
/// A whole HTML page that needs nothing else.
std::string explanation_page(const Explanation& e);

}  // namespace deepcpu::cli
