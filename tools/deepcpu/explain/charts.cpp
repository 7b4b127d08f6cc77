// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/explain/charts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "tools/deepcpu/explain/render.hpp"
#include "tools/deepcpu/explain/svg.hpp"

namespace deepcpu::cli {
namespace {

constexpr double kLeft = 50.0;
constexpr double kRight = 388.0;
constexpr double kTop = 56.0;
constexpr double kBottom = 258.0;

using Styles = std::vector<std::pair<std::string, std::string>>;

void place(Axis& x, Axis& y) {
  x.from = kLeft;
  x.to = kRight;
  y.from = kBottom;
  y.to = kTop;
}

/// One bar of the timeline.
struct Bar {
  std::string name;
  CostParts parts;  ///< of the whole run
};

struct Kind {
  std::string_view name;
  std::string_view style;
  double CostParts::*part;
};
constexpr std::array kKinds = {
    Kind{"hoisted", "hoist", &CostParts::hoist}, Kind{"products", "products", &CostParts::products},
    Kind{"gates", "gates", &CostParts::gates},   Kind{"waiting", "waiting", &CostParts::exchange},
    Kind{"calls", "calls", &CostParts::calls},
};

std::vector<Bar> bars(const Explanation& e) {
  std::vector<Bar> out;
  if (e.groups.size() == 1) {
    out.push_back({e.schedule.threads > 1 ? "busiest, predicted" : "predicted", e.predicted.parts});
  }
  for (std::size_t g = 0; e.groups.size() > 1 && g < e.groups.size(); ++g) {
    Bar bar{fmt::format("group {}, predicted", g), e.groups[g]};
    bar.parts.calls = e.predicted.parts.calls;
    bar.parts.exchange += e.predicted.us - bar.parts.total();
    out.push_back(bar);
  }
  if (!e.measured) return out;
  const PartTimes& m = *e.measured;
  for (std::size_t p = 0; p < m.participants.size(); ++p) {
    const OwnTimes& own = m.participants[p];
    Bar bar{fmt::format("thread {}, measured", p), {}};
    bar.parts.hoist = own.hoist_us;
    bar.parts.products = own.loop_us - own.gates_us;
    bar.parts.gates = own.gates_us;
    bar.parts.calls = m.calls_us;
    bar.parts.exchange = m.run.median_us - m.calls_us - own.total();
    out.push_back(bar);
  }
  return out;
}

struct Pair {
  double predicted;
  double measured;
  std::string tip;
  bool chosen;
};

std::vector<Pair> timed_pairs(const Explanation& e) {
  std::vector<Pair> out;
  for (const Alternative& a : e.alternatives) {
    if (a.measured.rounds == 0) continue;
    out.push_back({a.predicted.us, a.measured_us, a.differs, false});
  }
  const double own = e.raced.rounds > 0 ? e.raced.median_us : e.measured ? e.run_us() : 0.0;
  if (own > 0) out.push_back({e.predicted.us, own, "the schedule explained", true});
  return out;
}

/// Values of one line over the numbers of threads; zero: unknown.
using Speeds = std::vector<std::pair<double, double>>;

void draw_line(Svg& svg, const Axis& x, const Axis& y, const Speeds& speeds,
               const std::string& style) {
  std::vector<std::pair<double, double>> at;
  for (const auto& [threads, speed] : speeds) {
    if (speed > 0) at.emplace_back(x.at(threads), y.at(speed));
  }
  if (at.size() > 1) svg.lines(at, "line " + style);
  for (const auto& [threads, speed] : speeds) {
    if (speed <= 0) continue;
    svg.dot(x.at(threads), y.at(speed), style,
            fmt::format("{:.0f} threads: {:.4g} runs/s", threads, speed));
  }
}

void draw_ceilings(Svg& svg, const Axis& x, const Axis& y, const Explanation& e, double peak) {
  const std::vector<LevelRow> levels = level_rows(e);
  double label = y.from - 8 - 14 * static_cast<double>(levels.size());
  svg.text(x.to - 6, label, Anchor::end, "GB/s, lines from the left", "halo");
  for (const LevelRow& level : levels) {
    const double rate = level.gbytes_per_s;
    const double ridge = std::min(peak / rate, x.high);
    const double start = std::max(x.low, y.low / rate);
    svg.line(x.at(start), y.at(rate * start), x.at(ridge), y.at(rate * ridge), "ceiling");
    svg.text(x.to - 6, label += 14, Anchor::end, fmt::format("{} {:.3g}", level.name, rate),
             "halo");
  }
  svg.line(x.at(std::min(x.high, peak / levels.front().gbytes_per_s)), y.at(peak), x.at(x.high),
           y.at(peak), "ceiling");
  svg.text(x.to, y.at(peak) - 6, Anchor::end, fmt::format("FMA peak {:.3g} GFLOP/s", peak), "halo");
}

}  // namespace

std::string roofline_chart(const Explanation& e) {
  const double peak = e.machine.fma_gflops(e.isa, active_cores(e));
  const std::vector<RooflinePoint> points = roofline_points(e);
  std::vector<double> xs = {0.25, 4 * peak / level_rows(e).back().gbytes_per_s};
  std::vector<double> ys = {peak * 1.3, 0.2 * level_rows(e).back().gbytes_per_s};
  for (const RooflinePoint& p : points) {
    xs.push_back(p.intensity());
    ys.push_back(p.gflops());
  }
  Axis x = axis_of(xs, true);
  Axis y = axis_of(ys, true);
  place(x, y);
  Svg svg;
  svg.frame(x, y, "FLOP per byte of weights", "GFLOP/s of one core");
  draw_ceilings(svg, x, y, e, peak);
  Styles styles;
  for (const RooflinePoint& p : points) {
    const std::string style = p.name == "hoisted" ? "hoist" : "products";
    const std::string kind = p.measured ? "measured" : "predicted";
    svg.dot(x.at(p.intensity()), y.at(p.gflops()), style,
            fmt::format("{}: {:.3g} FLOP/byte, {:.3g} GFLOP/s, {}", p.name, p.intensity(),
                        p.gflops(), kind));
    styles.emplace_back(fmt::format("{}, {}", p.name, kind), style);
  }
  svg.legend(styles);
  return svg.str("Roofline of one core with the products of this problem");
}

std::string timeline_chart(const Explanation& e) {
  constexpr double kRow = 44.0;
  const std::vector<Bar> all = bars(e);
  std::vector<double> ends;
  for (const Bar& bar : all) ends.push_back(bar.parts.total() / e.steps);
  Axis x = axis_of(ends, false);
  const double height = kTop + kRow * static_cast<double>(all.size()) + 50;
  Axis y{0, 1, false, false, height - 44, kTop - 8};
  x.from = 12;
  x.to = kRight;
  Svg svg(height);
  Styles styles;
  for (const Kind& kind : kKinds) styles.emplace_back(kind.name, kind.style);
  svg.legend(styles);
  for (const double v : x.ticks(5)) {
    svg.line(x.at(v), y.from, x.at(v), y.to, "grid");
    svg.text(x.at(v), y.from + 15, Anchor::middle, fmt::format("{:.4g}", v), "tick");
  }
  svg.text((x.from + x.to) / 2, y.from + 32, Anchor::middle, "us per step, mean of the run");
  double top = kTop;
  for (const Bar& bar : all) {
    svg.text(x.from, top + 8, Anchor::start,
             fmt::format("{}: {:.3g} us", bar.name, bar.parts.total() / e.steps), "halo");
    double from = 0.0;
    for (const Kind& kind : kKinds) {
      const double us = std::max(0.0, bar.parts.*kind.part) / e.steps;
      svg.box(x.at(from), top + 13, x.at(from + us) - x.at(from), 18, kind.style,
              fmt::format("{}: {:.3g} us", kind.name, us));
      from += us;
    }
    top += kRow;
  }
  return svg.str("Where the time of a step goes on every thread");
}

std::string candidates_chart(const Explanation& e) {
  const std::vector<Pair> pairs = timed_pairs(e);
  if (pairs.empty()) return "";
  std::vector<double> values;
  for (const Pair& p : pairs) values.insert(values.end(), {p.predicted, p.measured});
  Axis x = axis_of(values, true);
  Axis y = x;
  place(x, y);
  Svg svg;
  svg.frame(x, y, "predicted us", "measured us");
  svg.line(x.from, y.from, x.to, y.to, "diagonal");
  for (const Pair& p : pairs) {
    svg.dot(
        x.at(p.predicted), y.at(p.measured), p.chosen ? "measured" : "predicted",
        fmt::format("{}: predicted {:.1f} us, measured {:.1f} us", p.tip, p.predicted, p.measured));
  }
  svg.legend({{"this schedule", "measured"}, {"others", "predicted"}});
  return svg.str("Predicted against measured time of the candidates");
}

std::string threads_chart(const Explanation& e) {
  Speeds predicted;
  Speeds measured;
  Speeds limit;
  std::vector<double> speeds;
  const auto add = [&](Speeds& line, int threads, double us) {
    line.emplace_back(threads, us > 0 ? 1e6 / us : 0.0);
    speeds.push_back(line.back().second);
  };
  for (const ThreadPoint& p : e.over_threads) {
    add(predicted, p.threads, p.predicted_us);
    add(measured, p.threads, p.measured_us);
    add(limit, p.threads, p.limit_us);
  }
  Axis x{0.0, e.threads + 0.5, false, true, 0, 1};
  Axis y = axis_of(speeds, false);
  place(x, y);
  Svg svg;
  svg.frame(x, y, "threads", "runs per second");
  draw_line(svg, x, y, limit, "limit");
  draw_line(svg, x, y, predicted, "predicted");
  draw_line(svg, x, y, measured, "measured");
  Styles styles = {{"limit", "limit"}, {"predicted", "predicted"}};
  const bool timed = std::any_of(measured.begin(), measured.end(),
                                 [](const auto& point) { return point.second > 0; });
  if (timed) styles.emplace_back("measured", "measured");
  svg.legend(styles);
  return svg.str("Runs per second over the number of threads");
}

}  // namespace deepcpu::cli
