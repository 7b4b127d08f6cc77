// SPDX-License-Identifier: Apache-2.0
/// Panels are cut so that no participant has more to do than need be.
#include <algorithm>
#include <cstdint>
#include <string>

#include "src/lower/lower.hpp"
#include "src/lower/work.hpp"
#include "src/tune/kernel_cost.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

using lower::largest_share;
using lower::PanelWidth;

TEST_CASE("panel width: the largest share is that of the participant with the most") {
  for (std::uint32_t blocks = 1; blocks <= 40; ++blocks) {
    for (std::uint32_t units = 1; units <= blocks; ++units) {
      for (std::uint32_t n = 1; n <= 9; ++n) {
        const std::uint32_t parts = (blocks + units - 1) / units;
        const auto before = [&](std::uint32_t part) { return std::min(blocks, part * units); };
        std::uint32_t most = 0;
        for (std::uint32_t p = 0; p < n; ++p) {
          most = std::max(most, before(parts * (p + 1) / n) - before(parts * p / n));
        }
        INFO(blocks << " blocks in parts of " << units << " for " << n);
        CHECK(largest_share(blocks, units, n) == most);
      }
    }
  }
}

TEST_CASE("panel width: of the widths that divide evenly the narrow one, else the widest") {
  PanelWidth width{.blocks = 6, .narrow = 2, .wide = 4, .most = 4};
  CHECK(width.units(1, Panel::narrow) == 2);
  CHECK(width.units(1, Panel::wide) == 4);
  CHECK(width.units(2, Panel::narrow) == 1);  // 3 + 3 blocks instead of 2 + 4
  CHECK(width.units(2, Panel::wide) == 3);
  CHECK(width.units(3, Panel::narrow) == 2);
  CHECK(width.units(4, Panel::narrow) == 1);  // three panels of two are too few for four
  CHECK(width.units(6, Panel::narrow) == 1);
  CHECK(width.units(7, Panel::narrow) == 1);
  width.fewest = 2;
  CHECK(width.units(2, Panel::narrow) == 3);
  width.most = 2;
  CHECK(width.units(2, Panel::narrow) == 2);
  CHECK(width.units(2, Panel::wide) == 4);  // 4 of 6 blocks, as with narrow ones
  // 9 blocks in panels of two are 4 + 5 as they are.
  width.blocks = 9;
  width.most = 4;
  CHECK(width.units(2, Panel::narrow) == 2);
  // 19 of 38 blocks each: panels of one block for 19 instead of 20 are not worth it.
  width.blocks = 38;
  width.fewest = 1;
  CHECK(width.units(2, Panel::narrow) == 2);
  width.blocks = 34;
  CHECK(width.units(2, Panel::narrow) == 1);
}

TEST_CASE("panel width: where no panels divide evenly they are as decided, if nobody is left out") {
  PanelWidth width{.blocks = 14, .narrow = 2, .wide = 4, .fewest = 2, .most = 6};
  CHECK(width.units(2, Panel::narrow) == 2);
  CHECK(width.units(2, Panel::wide) == 4);  // 8 of 14 blocks, as with narrow ones
  width.blocks = 15;
  CHECK(width.units(6, Panel::narrow) == 2);  // at most 4 instead of 3, but eight panels for six
  CHECK(width.units(6, Panel::wide) == 2);    // four would leave two without
}

TEST_CASE("panel width: the cost model knows what low panels lose and products ahead regain") {
  const ModelSpec spec = ModelSpec::parse("gru:i9h96").value();
  const ModelWork work = ModelWork::of(spec, Isa::avx512, 2).value();
  const MachineModel machine = test::round_machine();
  const StreamCost streams(machine, Isa::avx512, 2);
  const OwnCosts own;
  const auto stalled = [&](int sharers, Panel panel) {
    const KernelCosts costs(streams, own, work, sharers, panel);
    return costs.cost(work.layers[0].step[1][1], 1.0, {}, StreamTime{}, Tiles::own).stalled;
  };
  CHECK(stalled(1, Panel::narrow) == 0.0);
  CHECK(stalled(2, Panel::wide) == 0.0);
  // Three panels of three sums: one in four cycles of each of 96 steps over k.
  CHECK(stalled(2, Panel::narrow) == Approx(3 * 96 * streams.vector_seconds()));
  // Beside nine sums, tiles of products ahead have 8 rows instead of 16.
  Schedule s;
  s.isa = Isa::avx512;
  s.threads = 2;
  s.exchange = Exchange::data;
  s.layers.resize(1);
  s.layers[0].hoist_block = 16;
  s.layers[0].hoist_ahead = true;
  const auto hoist_us = [&](Panel panel) {
    s.layers[0].panel = panel;
    return CostModel(machine, Isa::avx512).predict(work, s, 1600).parts.hoist;
  };
  CHECK(hoist_us(Panel::narrow) < hoist_us(Panel::wide));
}

TEST_CASE("panel width: panels that together store whole cache lines") {
  CHECK(lower::panels_per_line(16, 1) == 1);
  CHECK(lower::panels_per_line(16, 3) == 1);
  CHECK(lower::panels_per_line(8, 1) == 2);
  CHECK(lower::panels_per_line(8, 2) == 1);
  CHECK(lower::panels_per_line(8, 3) == 2);  // 96 bytes each
  CHECK(lower::panels_per_line(4, 3) == 4);
}

/// Unit blocks of a panel of the time loop with two participants.
std::uint32_t units_of_two(const std::string& problem, Isa isa, Panel panel = Panel::narrow) {
  const ModelWork work = ModelWork::of(ModelSpec::parse(problem).value(), isa, 2).value();
  const auto& stages = work.layers[0].step[1][1].stages;
  for (const StageWork& s : stages) {
    CHECK(s.panel_units(2, panel) == stages[0].panel_units(2, panel));
  }
  return stages[0].panel_units(2, panel);
}

TEST_CASE("panel width: two threads own as much of a layer each as single blocks allow") {
  CHECK(units_of_two("gru:i9h96", Isa::avx512) == 1);
  CHECK(units_of_two("gru:i9h96", Isa::avx512, Panel::wide) == 3);
  CHECK(units_of_two("gru:i9h96,reset=before", Isa::avx512) == 3);  // both stages
  CHECK(units_of_two("gru:i9h128", Isa::avx512) == 2);
  CHECK(units_of_two("gru:i9h160", Isa::avx512) == 1);  // 5 blocks of 3 gates: too many registers
  CHECK(units_of_two("gru:i9h32", Isa::avx512) == 1);
  CHECK(units_of_two("rnn:i9h160", Isa::avx512) == 5);
  CHECK(units_of_two("rnn:i9h32", Isa::avx512) == 2);  // two sums are too few to be fast
  CHECK(units_of_two("lstm:i9h96", Isa::avx512) == 1);
  CHECK(units_of_two("gru:i9h96b16", Isa::avx512) == 1);  // several rows: by their tiles
  CHECK(units_of_two("gru:i9h96b4", Isa::avx512) == 2);
  CHECK(units_of_two("gru:i9h80", Isa::avx2) == 2);  // three sums are too few to be fast
  CHECK(units_of_two("rnn:i9h144", Isa::avx2) == 3);
  CHECK(units_of_two("gru:i9h64b3", Isa::avx2) == 1);  // one tile of three rows
  CHECK(units_of_two("gru:i9h64b4", Isa::avx2) == 2);
  CHECK(units_of_two("rnn:i9h64b4", Isa::avx2) == 2);  // two sums for four numbers of h
}

}  // namespace
}  // namespace deepcpu
