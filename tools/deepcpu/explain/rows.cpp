// SPDX-License-Identifier: Apache-2.0
/// The tables of an explanation.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "tools/deepcpu/explain/render.hpp"

namespace deepcpu::cli {
namespace {

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

std::vector<PartRow> part_rows(const Explanation& e) {
  const CostParts& p = e.predicted.parts;
  std::vector<PartRow> rows = {
      {"hoisted products", p.hoist, {}, "their kernels alone, less what hoist_ahead gains"},
      {"recurrent products", p.products, {}, "the time loop alone, less the gates"},
      {"gates", p.gates, {}, "the time loop with its products left out"},
      {"exchange and waiting", p.exchange, {}, "what is left of a run"},
      {"calls", p.calls, {}, "runs with empty kernels"},
      {"whole run", e.predicted.us, {}, "runs, all parts taking turns"},
  };
  if (!e.measured) return rows;
  const PartTimes& m = *e.measured;
  const OwnTimes& own = m.participants[m.busiest()];
  const double values[] = {own.hoist_us, own.loop_us - own.gates_us,
                           own.gates_us, m.rest_us(),
                           m.calls_us,   m.run.median_us};
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].measured_us = values[i];
  return rows;
}

int active_cores(const Explanation& e) {
  return std::clamp(e.schedule.threads, 1, std::max(1, e.machine.cores));
}

std::vector<LevelRow> level_rows(const Explanation& e) {
  std::vector<LevelRow> rows;
  const int active = active_cores(e);
  const auto& levels = e.machine.of(e.isa).levels;
  for (std::size_t l = 0; l < levels.size(); ++l) {
    LevelRow row;
    row.name = levels[l].name;
    row.gbytes_per_s = e.machine.gbytes_per_s(e.isa, l, active);
    if (l + 1 < levels.size()) {
      row.serves_bytes = static_cast<double>(e.machine.usable_bytes(e.isa, l, true, active));
    }
    row.hoisted_bytes = e.predicted.hoisted.level_bytes[l];
    row.in_loop_bytes = e.predicted.in_loop.level_bytes[l];
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<RooflinePoint> roofline_points(const Explanation& e) {
  const std::vector<PartRow> parts = part_rows(e);
  std::vector<RooflinePoint> out;
  const auto add = [&](std::string_view name, const Traffic& t, const PartRow& part) {
    RooflinePoint p{name, t.flops, sum(t.level_bytes), part.predicted_us, false};
    if (part.measured_us && *part.measured_us > 0) {
      p.us = *part.measured_us;
      p.measured = true;
    }
    if (p.flops > 0 && p.bytes > 0 && p.us > 0) out.push_back(p);
  };
  PartRow hoisted = parts[0];
  if (e.measured && e.schedule.parallel == Parallel::hoist) {
    // Who computes how much was not measured, but how long all of it takes: at that rate.
    const auto own = [](double us, const OwnTimes& t) { return us + t.hoist_us; };
    const auto& all = e.measured->participants;
    hoisted.measured_us =
        e.predicted.hoist_share * std::accumulate(all.begin(), all.end(), 0.0, own);
  }
  add("hoisted", e.predicted.hoisted, hoisted);
  add("recurrent", e.predicted.in_loop, parts[1]);
  return out;
}

std::vector<LimitRow> limit_rows(const Explanation& e) {
  return {
      {"hoisted products", e.limit.hoist_us, "FLOPs or bytes, whichever takes longer"},
      {"time loop, FLOPs", e.limit.flops_us, "products and gates at the FMA peak"},
      {"time loop, bytes", e.limit.bytes_us, "weights from where they fit"},
      {"time loop, chain", e.limit.chain_us, "latency from one h to the next"},
      {"exchange", e.limit.exchange_us, "one transfer per dependent level and step"},
      {"limit", e.limit.us, "hoisted + the longest of the time loop + exchange"},
      {"floor", e.limit.floor_us, "hoisted FLOPs inside the time loop: holds with overlap, too"},
  };
}

std::string machine_line(const Explanation& e) {
  return fmt::format("{}: {} ({}), {} cores, {:.2f} GHz", to_string(e.machine.source),
                     e.machine.key, e.machine.note, e.machine.cores, e.machine.clock_ghz);
}

std::string fraction_line(const Explanation& e) {
  const bool beyond = e.fraction() > 1.005;
  return fmt::format(
      "{:.1f} % of the limit is reached ({:.1f} us {}, the limit is {:.1f} us on {} thread{}{}){}",
      100 * e.fraction(), e.run_us(), e.measured ? "measured" : "predicted", e.limit.us,
      e.limit.threads, e.limit.threads == 1 ? "" : "s",
      e.machine.source == ModelSource::estimate
          ? ", by rates that are estimated: deepcpu machine --calibrate measures them"
          : "",
      beyond ? "; it has x·W apart from the time loop, and both may run at once" : "");
}

std::string us_text(std::optional<double> us) { return us ? fmt::format("{:.1f}", *us) : "-"; }

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes * 1e-9);
  if (bytes >= 1e6) return fmt::format("{:.2f} MB", bytes * 1e-6);
  return bytes > 0 ? fmt::format("{:.1f} kB", bytes * 1e-3) : "0";
}

std::string count_text(const Count& count) {
  const std::string digits = count.str();
  return digits.size() <= 12 ? digits : fmt::format("10^{:.1f}", count.log10());
}

std::string indented(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out += fmt::format("  {}\n", text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

}  // namespace deepcpu::cli
