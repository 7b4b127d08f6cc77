// SPDX-License-Identifier: Apache-2.0
/// An explanation as text.
#include <fmt/format.h>

#include <algorithm>

#include "tools/deepcpu/explain/render.hpp"

namespace deepcpu::cli {
namespace {

std::string times(const Explanation& e) {
  std::string out =
      fmt::format("  {:<22} {:>10} {:>10}\n", "us, busiest thread", "predicted", "measured");
  for (const PartRow& row : part_rows(e)) {
    out += fmt::format("  {:<22} {:>10.1f} {:>10}  {}\n", row.name, row.predicted_us,
                       us_text(row.measured_us), e.measured ? row.how : "");
  }
  if (!e.measured) return out + fmt::format("  not measured: {}\n", e.not_measured);
  const PartTimes& m = *e.measured;
  out += fmt::format(
      "  {} rounds, spread {:.1f} %; differences of medians can be a little below "
      "zero\n",
      m.run.rounds, 100 * m.run.spread);
  for (std::size_t p = 0; m.participants.size() > 1 && p < m.participants.size(); ++p) {
    const OwnTimes& own = m.participants[p];
    out += fmt::format(
        "  thread {}: {:.1f} us hoisted, {:.1f} us time loop, of these {:.1f} us "
        "gates\n",
        p, own.hoist_us, own.loop_us, own.gates_us);
  }
  return out;
}

std::string work(const Explanation& e) {
  std::string out = fmt::format("  {:<8} {:>8} {:>10} {:>12} {:>12}\n", "level", "GB/s", "serves",
                                "hoisted", "in the loop");
  for (const LevelRow& row : level_rows(e)) {
    out += fmt::format("  {:<8} {:>8.1f} {:>10} {:>12} {:>12}\n", row.name, row.gbytes_per_s,
                       row.serves_bytes ? bytes_text(*row.serves_bytes) : "-",
                       bytes_text(row.hoisted_bytes), bytes_text(row.in_loop_bytes));
  }
  out += fmt::format(
      "  rates per core with {} active, bytes of weights of the busiest thread in a "
      "run, by the cost model\n",
      active_cores(e));
  out += fmt::format(
      "  {:.2f} MFLOP of products on all threads, {:.2f} hoisted and {:.2f} in the "
      "loop on the busiest; peak {:.1f} GFLOP/s a core\n",
      e.predicted.flops * 1e-6, e.predicted.hoisted.flops * 1e-6, e.predicted.in_loop.flops * 1e-6,
      e.machine.fma_gflops(e.isa, active_cores(e)));
  for (const RooflinePoint& p : roofline_points(e)) {
    out += fmt::format("  {} products: {:.2f} FLOP/byte, {:.1f} GFLOP/s, {:.1f} GB/s, {}\n", p.name,
                       p.intensity(), p.gflops(), 1e-3 * p.bytes / p.us,
                       p.measured ? "measured" : "predicted");
  }
  return out;
}

std::string limit(const Explanation& e) {
  std::string out;
  for (const LimitRow& row : limit_rows(e)) {
    out += fmt::format("  {:<20} {:>10.1f} us  {}\n", row.name, row.us, row.what);
  }
  return out + fmt::format("  {}\n", fraction_line(e));
}

std::string alternatives(const Explanation& e) {
  std::string out = fmt::format("  {:>10} {:>10}  {}\n", "predicted", "measured", "what differs");
  for (const Alternative& a : e.alternatives) {
    const bool timed = a.measured.rounds > 0;
    out += fmt::format("  {:>10.1f} {:>10}  {}\n{:>25}{}\n", a.predicted.us,
                       timed ? us_text(a.measured_us) : "-", a.differs, "", a.why);
  }
  return out;
}

std::string threads(const Explanation& e) {
  std::string out =
      fmt::format("  {:>7} {:>10} {:>10} {:>10}\n", "threads", "predicted", "measured", "limit");
  for (const ThreadPoint& p : e.over_threads) {
    out += fmt::format("  {:>7} {:>10.1f} {:>10} {:>10.1f}\n", p.threads, p.predicted_us,
                       p.measured_us > 0 ? us_text(p.measured_us) : "-", p.limit_us);
  }
  return out;
}

}  // namespace

std::string explanation_text(const Explanation& e) {
  std::string out = fmt::format("{}, {}, at most {} thread{}\n", e.spec.str(), to_string(e.isa),
                                e.threads, e.threads == 1 ? "" : "s");
  out += fmt::format("machine, {}\n", machine_line(e));
  const auto section = [&](std::string_view name, const std::string& text) {
    out += fmt::format("\n== {}\n{}", name, text);
  };
  section("MM-DAG", indented(e.dag));
  section("phases", indented(e.phases));
  section("schedule space", indented(to_text(e.space, e.spec.layers())));
  section(fmt::format("schedule, {}", e.chosen_by),
          indented(in_words(e.schedule, e.spec)) + indented(e.schedule.to_json()));
  section(fmt::format("time of a run over {:.0f} steps", e.steps), times(e));
  section("bytes and FLOPs", work(e));
  section("limit", limit(e));
  section("other schedules", alternatives(e));
  section("over threads, us", threads(e));
  return out;
}

}  // namespace deepcpu::cli
