// SPDX-License-Identifier: Apache-2.0
/// What explain says in words.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "src/schedule/names.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/explain.hpp"

namespace deepcpu {
namespace {

/// Parts whose difference is below this share of the largest one are not worth a word.
constexpr double kWorthAWord = 0.15;
/// Differences in bytes that are worth one: this many, and this share of what is read.
constexpr double kLeastBytes = 32e3;
constexpr double kLeastByteShare = 0.01;
/// Times that are closer than this are called equal (the tuner's tie rule).
constexpr double kEqual = 0.01;

struct PartName {
  std::string_view name;
  double CostParts::*part;
};
constexpr std::array kPartNames = {
    PartName{"hoisted products", &CostParts::hoist},
    PartName{"products", &CostParts::products},
    PartName{"gate work", &CostParts::gates},
    PartName{"exchange", &CostParts::exchange},
    PartName{"calls", &CostParts::calls},
};

std::string join(const std::vector<std::string>& words, std::string_view between) {
  return fmt::format("{}", fmt::join(words, between));
}

/// Three digits, without an exponent.
std::string short_number(double v) {
  return v >= 100 ? fmt::format("{:.0f}", v) : fmt::format("{:.3g}", v);
}

std::string_view more(double difference) { return difference > 0 ? "more" : "less"; }

std::vector<std::string> part_words(const CostParts& chosen, const CostParts& other) {
  std::vector<std::pair<double, std::string_view>> all;
  for (const PartName& p : kPartNames) all.emplace_back(other.*p.part - chosen.*p.part, p.name);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::abs(a.first) > std::abs(b.first);
  });
  std::vector<std::string> out;
  for (const auto& [us, name] : all) {
    if (std::abs(us) < 0.005 || std::abs(us) < kWorthAWord * std::abs(all.front().first)) break;
    out.push_back(fmt::format("{} us {} {}", short_number(std::abs(us)), more(us), name));
  }
  return out;
}

/// Levels beyond the first: what comes from L1 costs what arithmetic costs.
std::vector<std::string> byte_words(const Prediction& chosen, const Prediction& other,
                                    const std::vector<LevelModel>& levels) {
  std::vector<std::string> out;
  for (std::size_t l = 1; l < levels.size(); ++l) {
    const double difference = other.level_bytes[l] - chosen.level_bytes[l];
    const double most = std::max(other.level_bytes[l], chosen.level_bytes[l]);
    if (std::abs(difference) < std::max(kLeastBytes, kLeastByteShare * most)) continue;
    out.push_back(fmt::format("reads {} MB {} from {}", short_number(std::abs(difference) * 1e-6),
                              more(difference), levels[l].name));
  }
  return out;
}

std::string timed_words(const Explanation& chosen, const Alternative& a) {
  if (a.measured.rounds == 0 || chosen.raced.rounds == 0) return "";
  const double slower = a.measured.ratio / chosen.raced.ratio - 1.0;
  // Its few rounds were disturbed by something else.
  if (slower < kEqual && a.measured.rounds < chosen.raced.rounds) {
    return fmt::format("left the race after {} rounds", a.measured.rounds);
  }
  if (std::abs(slower) < kEqual) return "timed as fast";
  std::string out =
      fmt::format("timed {:.1f} % {}", 100 * std::abs(slower), slower > 0 ? "slower" : "faster");
  if (a.measured.rounds < chosen.raced.rounds) {
    out += fmt::format(" in {} rounds, then left", a.measured.rounds);
  }
  return out;
}

std::string predicted_words(const Explanation& chosen, const Alternative& a) {
  const double us = a.predicted.us - chosen.predicted.us;
  std::vector<std::string> reasons = part_words(chosen.predicted.parts, a.predicted.parts);
  for (std::string& text :
       byte_words(chosen.predicted, a.predicted, chosen.machine.of(chosen.isa).levels)) {
    reasons.push_back(std::move(text));
  }
  if (reasons.empty()) return "the cost model sees no difference";
  std::string out = fmt::format("predicted {} us {}: {}", short_number(std::abs(us)), more(us),
                                join(reasons, ", "));
  const bool one = chosen.schedule.threads == 1 && a.schedule.threads > 1;
  if (us < 0 && one && cautious_us(a.schedule, a.predicted) >= chosen.predicted.us) {
    out += fmt::format(
        "; further threads must gain {:.0f} % by prediction even if exchanges take {:.0f} % longer",
        100 * kThreadGain, 100 * kJourneyRisk);
  }
  const bool both = chosen.schedule.threads > 1 && a.schedule.threads > 1;
  if (both &&
      cautious_us(a.schedule, a.predicted) < cautious_us(chosen.schedule, chosen.predicted) &&
      ranking_us(a.schedule, a.predicted) >= ranking_us(chosen.schedule, chosen.predicted)) {
    out += fmt::format("; not chosen, as unequal cores would cost it more ({:.0f} % are allowed)",
                       100 * kEvenGain);
  }
  return out;
}

std::string plural(std::int64_t n, std::string_view noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

/// The parts that run side by side, without what happens inside of them.
std::string parallel_words(const Schedule& s, const ModelSpec& spec) {
  switch (s.parallel) {
    case Parallel::directions:
      return fmt::format("{} threads: each direction has {} of its own", s.threads, s.threads / 2);
    case Parallel::wavefront:
      return fmt::format(
          "{} threads in {} groups: each has a range of layers and runs a block behind the one "
          "before",
          s.threads, std::min(spec.layers(), s.threads));
    case Parallel::hoist:
      return fmt::format("{} threads: one runs the time loop, {} x*W of later blocks", s.threads,
                         s.threads == 2 ? "both compute" : "all compute");
    case Parallel::none:
    case Parallel::gates:
      break;
  }
  const int units = s.threads / (s.split_rows * s.split_k);
  return fmt::format("{} threads divide the {} (Xi*Xj*Xk = {}*{}*{}){}", s.threads,
                     s.split_rows == 1 ? "units"
                     : units == 1      ? "batch rows"
                                       : "batch rows, and the units of each part",
                     s.split_rows, units, s.split_k,
                     units == 1 ? ""
                                : ": all gates of a unit and its slice of the weights stay on one "
                                  "core");
}

/// Threads that divide the units of a product.
int sharers_of(const Schedule& s, const ModelSpec& spec) {
  int groups = s.split_rows;
  if (s.parallel == Parallel::hoist) groups = s.threads;
  if (s.parallel == Parallel::directions) groups *= 2;
  if (s.parallel == Parallel::wavefront) groups *= std::min(spec.layers(), s.threads);
  return s.threads / groups;
}

std::string sharing_words(const Schedule& s, const ModelSpec& spec) {
  if (s.threads == 1) return "one thread does everything";
  std::string out = parallel_words(s, spec);
  if (s.split_rows > 1) {
    out += fmt::format("; each of {} parts of the batch rows runs by itself and reads all weights",
                       s.split_rows);
  }
  if (sharers_of(s, spec) < 2) return out;
  return out + (s.exchange == Exchange::data
                    ? "; h itself tells readers when it has been written"
                    : "; a flag per thread tells the others that its part is written");
}

std::string layer_words(const LayerSchedule& l, std::int64_t batch) {
  std::vector<std::string> out;
  out.push_back(
      l.hoist_block > 0
          ? fmt::format("x*W is hoisted: computed for up to {} before the time loop runs over "
                        "them, in tiles of {}",
                        plural(l.hoist_block, "step"), plural(l.hoist_rows, "row"))
          : std::string("x*W stays inside the time loop"));
  if (l.hoist_ahead) {
    out.emplace_back(
        "but for the first block and a short last one, they are computed among the "
        "products of the block before, while the core waits for weights");
  }
  if (l.weights == Residency::registers) {
    out.emplace_back("the recurrent weights stay in registers");
  } else if (l.sweep == Sweep::forward) {
    out.emplace_back("every step reads the recurrent weights in the same order");
  } else {
    out.push_back(
        fmt::format("every other step reads the recurrent weights backwards, in groups "
                    "of {}: the cache still holds what was read last",
                    plural(l.group, "panel")));
  }
  if (l.panel == Panel::wide) {
    out.emplace_back("panels are wide: eight sums at a time, for two multiply-adds per cycle");
  }
  out.emplace_back(l.fuse_gates ? "gates with a common operand are one product"
                                : "every gate is a product of its own");
  if (batch > 1) {
    out.push_back(fmt::format("a register tile has {}", plural(l.tile_rows, "row")));
    if (l.fetch_lines > 0 && l.tile_rows > 1 && l.fuse_gates && batch > l.tile_rows) {
      out.push_back(
          fmt::format("tiles ask for up to {} of the weights that come next in four "
                      "steps over k",
                      plural(l.fetch_lines, "line")));
    }
  }
  if (!l.cut_panels) out.emplace_back("every tile of rows reads its panel as a whole");
  return join(out, "; ");
}

template <class T>
void note(std::vector<std::string>& out, std::string_view name, const T& mine, const T& other,
          const std::string& value) {
  if (!(mine == other)) out.push_back(fmt::format("{} {}", name, value));
}

void layer_differences(std::vector<std::string>& out, const LayerSchedule& a,
                       const LayerSchedule& b, const std::string& where) {
  const auto add = [&](std::string_view name, const auto& mine, const auto& its,
                       const std::string& value) {
    note(out, where + std::string(name), mine, its, value);
  };
  add("hoist_block", a.hoist_block, b.hoist_block, std::to_string(b.hoist_block));
  if (b.hoist_block > 0) {
    add("hoist_rows", a.hoist_rows, b.hoist_rows, std::to_string(b.hoist_rows));
  }
  add("hoist_ahead", a.hoist_ahead, b.hoist_ahead, b.hoist_ahead ? "true" : "false");
  add("tile_rows", a.tile_rows, b.tile_rows, std::to_string(b.tile_rows));
  if (a.tile_rows == b.tile_rows) {
    add("fetch_lines", a.fetch_lines, b.fetch_lines, std::to_string(b.fetch_lines));
  }
  add("cut_panels", a.cut_panels, b.cut_panels, b.cut_panels ? "true" : "false");
  add("panel", a.panel, b.panel, std::string(word(b.panel)));
  add("weights", a.weights, b.weights, std::string(word(b.weights)));
  add("sweep", a.sweep, b.sweep, std::string(word(b.sweep)));
  if (b.sweep == Sweep::alternating) add("group", a.group, b.group, std::to_string(b.group));
  add("fuse_gates", a.fuse_gates, b.fuse_gates, b.fuse_gates ? "true" : "false");
  add("phases", a.phases, b.phases, std::string(word(b.phases)));
}

}  // namespace

std::string in_words(const Schedule& schedule, const ModelSpec& spec) {
  std::string out = sharing_words(schedule, spec) + "\n";
  std::vector<std::string> layers;
  for (const LayerSchedule& l : schedule.layers) layers.push_back(layer_words(l, spec.batch));
  for (std::size_t first = 0; first < layers.size();) {
    std::size_t last = first;
    while (last + 1 < layers.size() && layers[last + 1] == layers[first]) ++last;
    std::string where;
    if (layers.size() > 1) {
      where = first == last ? fmt::format("layer {}: ", first)
                            : fmt::format("layers {} to {}: ", first, last);
    }
    out += where + layers[first] + "\n";
    first = last + 1;
  }
  return out;
}

std::string differences(const Schedule& schedule, const Schedule& other) {
  std::vector<std::string> out;
  note(out, "isa", schedule.isa, other.isa, std::string(word(other.isa)));
  note(out, "threads", schedule.threads, other.threads, std::to_string(other.threads));
  note(out, "parallel", schedule.parallel, other.parallel, std::string(word(other.parallel)));
  note(out, "exchange", schedule.exchange, other.exchange, std::string(word(other.exchange)));
  note(out, "split_rows", schedule.split_rows, other.split_rows, std::to_string(other.split_rows));
  const std::size_t layers = std::min(schedule.layers.size(), other.layers.size());
  for (std::size_t l = 0; l < layers; ++l) {
    // Layers that decide like the one before are not said again.
    const bool again = l > 0 && schedule.layers[l] == schedule.layers[l - 1] &&
                       other.layers[l] == other.layers[l - 1];
    if (again) continue;
    const bool only = std::all_of(schedule.layers.begin(), schedule.layers.end(),
                                  [&](const auto& s) { return s == schedule.layers.front(); }) &&
                      std::all_of(other.layers.begin(), other.layers.end(),
                                  [&](const auto& s) { return s == other.layers.front(); });
    layer_differences(out, schedule.layers[l], other.layers[l],
                      only ? "" : fmt::format("layers[{}].", l));
  }
  return join(out, ", ");
}

std::string why_not(const Explanation& chosen, const Alternative& a) {
  const std::string timed = timed_words(chosen, a);
  const std::string predicted = predicted_words(chosen, a);
  return timed.empty() ? predicted : fmt::format("{}; {}", timed, predicted);
}

}  // namespace deepcpu
