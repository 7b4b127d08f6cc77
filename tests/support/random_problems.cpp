// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <vector>

#include "src/runtime/program.hpp"
#include "src/tune/wisdom_check.hpp"
#include "tests/support/random_cells.hpp"

namespace deepcpu::test {
namespace {

constexpr std::string_view kDotted = "random.";
constexpr std::string_view kRegistered = "random_";

/// Registers the random cell of this seed unless that was done before.
Status register_random(std::uint64_t seed) {
  const std::string name = std::string(kRegistered) + std::to_string(seed);
  for (const CellInfo& info : list_cells()) {
    if (info.name == name) return {};
  }
  return register_cell(random_cell(seed));
}

/// Mostly 1..70, which holds every tail of 8 and 16 lanes several times; some exact multiples and
/// some larger ones.
std::int64_t random_size(Random& random) {
  const int kind = random.integer(0, 9);
  if (kind == 0) return random.pick(std::vector<std::int64_t>{8, 16, 32, 48, 64, 96, 128});
  if (kind == 1) return random.range(71, 160);
  if (kind == 2) return random.range(1, 4);
  return random.range(1, 70);
}

/// Hidden sizes of 1 to 3 layers.
std::vector<std::int64_t> random_hidden(Random& random, bool equal) {
  const int layers = random.chance(0.6) ? 1 : random.integer(2, 3);
  const bool same = equal || random.chance(0.4);
  std::vector<std::int64_t> hidden{random_size(random)};
  while (static_cast<int>(hidden.size()) < layers) {
    hidden.push_back(same ? hidden[0] : random_size(random));
  }
  return hidden;
}

std::string hidden_text(const std::vector<std::int64_t>& hidden) {
  std::string text = "h";
  for (const std::int64_t size : hidden) text += std::to_string(size) + "/";
  text.pop_back();
  return text;
}

struct BuiltIn {
  const char* cell;
  const char* options;
  bool projection;
};

const std::vector<BuiltIn>& built_ins() {
  static const std::vector<BuiltIn> table = {
      {"lstm", "", false},
      {"lstm", "", true},
      {"lstm", ",peephole=1", false},
      {"lstm", ",clip=0.5,coupled=1,peephole=1", true},
      {"gru", "", false},
      {"gru", ",reset=before", false},
      {"rnn", "", false},
      {"rnn", ",act=relu", false},
      {"rnn", ",act=sigmoid", false},
      {"augru", "", false},
      {"augru", ",reset=after", false},
  };
  return table;
}

/// A further input of hidden width is one array for all layers, so they must be equally wide.
bool needs_equal_layers(const Cell& cell) {
  return std::any_of(cell.inputs().begin() + 1, cell.inputs().end(), [&](int id) {
    return cell.nodes()[static_cast<std::size_t>(id)].dim == Dim::hidden;
  });
}

}  // namespace

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

Result<ModelSpec> parse_problem(std::string_view problem) {
  if (!problem.starts_with(kDotted)) return ModelSpec::parse(problem);
  const std::string_view rest = problem.substr(kDotted.size());
  std::uint64_t seed = 0;
  const auto [end, code] = std::from_chars(rest.data(), rest.data() + rest.size(), seed);
  if (code != std::errc() || end == rest.data() + rest.size() || *end != ':') {
    return Error("problem " + std::string(problem) + ": random. must be followed by <seed>:");
  }
  if (Status status = register_random(seed); !status.ok()) return status.error();
  return ModelSpec::parse(std::string(kRegistered) + std::string(rest));
}

std::string problem_of(const ModelSpec& spec) {
  std::string text = spec.str();
  if (text.starts_with(kRegistered)) text.replace(0, kRegistered.size(), kDotted);
  return text;
}

std::string random_problem(std::uint64_t seed) {
  Random random(seed);
  const std::vector<int> steps = {0, 1, 2, 3, 5, 8, 17, 33};
  std::string cell_name;
  std::string options;
  bool equal = false;
  bool projection = false;
  if (random.chance(0.75)) {
    const Cell cell = random_cell(seed);
    cell_name = std::string(kDotted) + std::to_string(seed);
    equal = needs_equal_layers(cell);
    projection = cell.uses(Dim::proj);
  } else {
    const BuiltIn& cell = random.pick(built_ins());
    cell_name = cell.cell;
    options = cell.options;
    projection = cell.projection;
  }
  const std::vector<std::int64_t> hidden = random_hidden(random, equal);
  std::string dims = "i" + std::to_string(random_size(random)) + hidden_text(hidden);
  const std::int64_t narrowest = *std::min_element(hidden.begin(), hidden.end());
  if (projection) dims += "p" + std::to_string(random.range(1, narrowest));
  const int direction = random.integer(0, 9);
  if (direction <= 1) dims += direction == 0 ? "rev" : "bi";
  dims += "b" + std::to_string(random.chance(0.4) ? 1 : random.range(2, 9));
  dims += "t" + std::to_string(random.pick(steps));
  return cell_name + ":" + dims + options;
}

/// Computes hoisted sums ahead in every layer that can.
static void hoist_ahead(Random& random, const ModelSpec& spec, Schedule& schedule) {
  const Schedule before = schedule;
  const int block = random.pick(std::vector<int>{8, 8, 16, 24});
  for (LayerSchedule& layer : schedule.layers) {
    layer.hoist_block = block;
    layer.weights = Residency::streamed;
  }
  bool any = false;
  for (LayerSchedule& layer : schedule.layers) {
    layer.hoist_ahead = true;
    if (!check_lowering(spec, schedule)) layer.hoist_ahead = false;
    any = any || layer.hoist_ahead;
  }
  if (!any) schedule = before;
}

Schedule random_schedule(Random& random, const ModelSpec& spec, Isa isa) {
  Schedule schedule;
  schedule.isa = isa;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule one;
    one.fuse_gates = random.chance(0.5);
    one.hoist_block = random.pick(std::vector<int>{0, 0, 1, 2, 3, 7, 16, 100});
    one.tile_rows = random.integer(1, 6);
    one.hoist_rows = random.integer(1, 6);
    one.fetch_lines = random.integer(0, 16);
    one.cut_panels = random.chance(0.5);
    one.panel = random.chance(0.5) ? Panel::narrow : Panel::wide;
    one.sweep = random.chance(0.5) ? Sweep::forward : Sweep::alternating;
    one.group = random.pick(std::vector<int>{1, 1, 2, 3, 8});
    // Only the smallest layers fit into registers.
    const bool small = spec.batch == 1 && spec.hidden[static_cast<std::size_t>(layer)] <= 8;
    one.weights = small && random.chance(0.5) ? Residency::registers : Residency::streamed;
    schedule.layers.push_back(one);
  }
  if (spec.batch == 1 && random.chance(0.7)) hoist_ahead(random, spec, schedule);
  return schedule;
}

void random_threads(Random& random, const ModelSpec& spec, Schedule& schedule) {
  schedule.threads = random.pick(std::vector<int>{1, 2, 2, 2, 2, 2, 3, 3, 3, 8, 8, 22});
  schedule.parallel =
      random.pick(std::vector<Parallel>{Parallel::none, Parallel::directions, Parallel::wavefront});
  schedule.exchange = random.chance(0.4) ? Exchange::flag : Exchange::data;
  // Rows in parts, at times more of them than rows.
  schedule.split_rows = random.chance(0.4) ? random.integer(1, std::min(schedule.threads, 6)) : 1;
  if (!check_division(spec, schedule)) schedule.split_rows = 1;
  // What one participant's panels have time for, fewer ones of several may not.
  for (LayerSchedule& layer : schedule.layers) {
    if (layer.hoist_ahead && !check_lowering(spec, schedule)) layer.hoist_ahead = false;
  }
  if (spec.layers() > 1 || spec.directions() > 1 || !random.chance(0.3)) return;
  schedule.parallel = Parallel::hoist;
  schedule.threads = std::max(schedule.threads, 2);
  schedule.split_rows = 1;
  LayerSchedule& layer = schedule.layers.front();
  layer.hoist_block = std::max(layer.hoist_block, random.integer(1, 6));
  layer.hoist_ahead = false;
}

}  // namespace deepcpu::test
