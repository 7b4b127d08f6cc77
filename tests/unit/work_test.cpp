// SPDX-License-Identifier: Apache-2.0
/// ModelWork: numbers of small layers by hand.
#include "src/lower/work.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "src/lower/lower.hpp"
#include "tests/catch.hpp"
#include "tests/support/random_cells.hpp"

namespace deepcpu {
namespace {

ModelWork work_of(const char* problem, Isa isa) {
  return ModelWork::of(ModelSpec::parse(problem).value(), isa).value();
}

/// What lstm:i5h20 needs with vectors of `lanes` numbers, of which 20 units take `blocks`. In the
/// last one four units are left, so that the four gates share vectors.
/// Wide panels have two of them if nobody shares the layer, `shared` if two do.
void check_lstm(Isa isa, std::uint32_t lanes, std::uint32_t blocks, std::uint32_t shared) {
  const ModelWork work = work_of("lstm:i5h20", isa);
  CHECK(work.lanes == lanes);
  REQUIRE(work.layers.size() == 1);
  const LayerWork& layer = work.layers[0];
  const double vector = 4.0 * lanes;
  const double last = 4.0 * 4 / lanes;
  const double vectors = 4 * (blocks - 1) + last;  // of weights of one k
  CHECK(layer.panels(1, Panel::narrow) == blocks);
  CHECK(layer.panels(2, Panel::narrow) == blocks);
  CHECK(layer.panels(1, Panel::wide) == (blocks + 1) / 2);
  CHECK(layer.panels(2, Panel::wide) == 2);
  CHECK(layer.own_panels(1, Panel::narrow) == blocks);
  CHECK(layer.own_panels(2, Panel::wide) == 1);
  CHECK(layer.shares(2) == blocks);
  CHECK_FALSE(layer.one_gate_stages);
  CHECK(layer.step[0][1].weight_bytes == (5 + 20) * vectors * vector);
  CHECK(layer.step[1][1].weight_bytes == 20 * vectors * vector);
  CHECK(layer.step[1][0].weight_bytes == 20 * 4 * blocks * vector);  // a vector for each gate
  CHECK(layer.hoist.weight_bytes == 5 * vectors * vector);
  CHECK(layer.hoisted_row_bytes >= 4 * blocks * vector);

  REQUIRE(layer.step[0][1].stages.size() == 1);
  const StageWork& both = layer.step[0][1].stages[0];
  CHECK(both.gates == 4);
  for (const int sharers : {1, 2, 3}) CHECK(both.panel_units(sharers, Panel::narrow) == 1);
  CHECK(both.panel_units(1, Panel::wide) == 2);
  CHECK(both.panel_units(2, Panel::wide) == shared);
  CHECK(both.panel_units(3, Panel::wide) == 1);
  CHECK(both.own_blocks(1) == blocks);
  CHECK(both.own_blocks(2) == (blocks + 1) / 2);
  CHECK(both.own_blocks(5) == 1);
  CHECK(both.width.blocks == blocks);
  CHECK(both.exchange);
  REQUIRE(both.products.size() == 2);
  CHECK(both.products[0].of_input);
  CHECK(both.products[0].k == 5);
  CHECK(both.products[0].gates == 4);
  CHECK_FALSE(both.products[1].of_input);
  CHECK(both.products[1].k == 20);
  CHECK(both.products[1].chains == 1);
  CHECK(both.outputs == 20);
  CHECK(both.products[0].last == last);
  CHECK(both.weight_bytes(lanes, 1) == 25 * vectors * vector);
  // Of two blocks the second participant has the last one, of three that and a whole one; with as
  // many participants as blocks nobody has more than one.
  const double half = blocks == 2 ? 4 : 4 + last;
  CHECK(both.weight_bytes(lanes, 2) == 25 * half * vector);
  CHECK(both.weight_bytes(lanes, static_cast<int>(blocks)) == 25 * 4 * vector);
  CHECK(both.weight_bytes(lanes, 5) == 25 * 4 * vector);

  const StageWork& recurrent = layer.step[1][1].stages[0];
  REQUIRE(recurrent.products.size() == 1);
  CHECK(recurrent.products[0].k == 20);
  CHECK(recurrent.operations.sigmoids == 3);  // i, f, o
  CHECK(recurrent.operations.tanhs == 2);     // g and of c
  CHECK(recurrent.operations.others == 3);    // i * g, fma, o * tanh(c)
  CHECK(recurrent.divisions == 5);
  // i, product, fma, tanh, product: sigmoid has 11 steps of 4 cycles and tanh 10, and each a
  // division of 14.
  CHECK(recurrent.latency_cycles == (11 + 10) * 4 + 2 * 14 + 3 * 4);
  // Four sums, c twice, h, y.
  CHECK(recurrent.row_bytes == 8 * vector);

  REQUIRE(layer.hoist.stages.size() == 1);
  CHECK_FALSE(layer.hoist.stages[0].exchange);
  CHECK(layer.hoist.stages[0].gates == 4);
  // Unfused: a stage per gate.
  CHECK(layer.step[1][0].stages.size() == 4);
}

TEST_CASE("work: an LSTM layer with 16 lanes") { check_lstm(Isa::avx512, 16, 2, 1); }
TEST_CASE("work: an LSTM layer with 8 lanes") { check_lstm(Isa::avx2, 8, 3, 2); }

TEST_CASE("work: equal layers have equal work, others their own") {
  const ModelWork work = work_of("lstm:i20h20l3", Isa::avx512);
  REQUIRE(work.layers.size() == 3);
  CHECK(work.layers[0].hoist.weight_bytes == work.layers[2].hoist.weight_bytes);
  const ModelWork stack = work_of("lstm:i5h20/40/40", Isa::avx512);
  CHECK(stack.layers[0].hoist.stages[0].products[0].k == 5);
  CHECK(stack.layers[1].hoist.stages[0].products[0].k == 20);
  CHECK(stack.layers[2].hoist.stages[0].products[0].k == 40);
  const ModelWork both = work_of("lstm:i5h20l2bi", Isa::avx512);
  CHECK(both.layers[1].hoist.stages[0].products[0].k == 40);
}

TEST_CASE("work: participants wait where one reads what another wrote") {
  // r * h before the second product, then h.
  const ModelWork before = work_of("gru:i5h20,reset=before", Isa::avx512);
  REQUIRE(before.layers[0].step[1][1].stages.size() == 2);
  CHECK(before.layers[0].step[1][1].stages[0].exchange);
  CHECK(before.layers[0].step[1][1].stages[1].exchange);
  // The unfused gates of one level wait once.
  const ModelWork rnn = work_of("rnn:i5h20", Isa::avx512);
  for (const bool hoisted : {false, true}) {
    int exchanges = 0;
    for (const StageWork& s : rnn.layers[0].step[hoisted][1].stages) {
      exchanges += s.exchange ? 1 : 0;
    }
    CHECK(exchanges == 1);
  }
  // Projection: the cell's output, then h.
  const ModelWork projected = work_of("lstm:i5h20p7", Isa::avx512);
  REQUIRE(projected.layers[0].step[1][1].stages.size() == 2);
  CHECK(projected.layers[0].step[1][1].stages[0].exchange);
  CHECK(projected.layers[0].step[1][1].stages[1].exchange);
}

TEST_CASE("work: registers hold one panel of at most 16 or 6 vectors for one row") {
  const auto fits = [](const char* problem, Isa isa, bool hoisted) {
    return work_of(problem, isa).layers[0].narrow.registers[hoisted][1];
  };
  CHECK(fits("lstm:i3h4", Isa::avx512, true));         // 4 x 4
  CHECK_FALSE(fits("lstm:i3h4", Isa::avx512, false));  // 7 x 4
  CHECK_FALSE(fits("lstm:i3h5", Isa::avx512, true));   // 5 x 4
  CHECK_FALSE(fits("lstm:i3h4b2", Isa::avx512, true));
  CHECK(fits("rnn:i2h4", Isa::avx2, false));  // 2 + 4
  CHECK_FALSE(fits("rnn:i3h4", Isa::avx2, false));
  CHECK(fits("rnn:i3h4", Isa::avx2, true));
}

TEST_CASE("work: wide panels are fewer, so that less can be computed ahead of them") {
  // Of i inputs 4 gates x 4 blocks x i steps over k for eight rows; four times those of U at most:
  // 4 x 8 x 64 x 4 narrow panels, or 2 wide ones, i.e. i <= 512 and i <= 256.
  const auto fits = [](const char* problem, Panel panel) {
    return work_of(problem, Isa::avx512).layers[0].fits(panel).ahead[1][0];
  };
  CHECK(fits("lstm:i256h64", Panel::wide));
  CHECK_FALSE(fits("lstm:i257h64", Panel::wide));
  CHECK(fits("lstm:i512h64", Panel::narrow));
  CHECK_FALSE(fits("lstm:i513h64", Panel::narrow));
}

TEST_CASE("work: how much can be computed ahead depends on the panels of so many sharers") {
  // 3 gates x 6 blocks x i steps over k for eight rows; four times those of U at most: 4 x 8 x 96
  // for each of three panels, or of two, or of six, i.e. i <= 512, 341 and 1024.
  const auto fits = [](const char* problem, int sharers, Panel panel = Panel::narrow) {
    const ModelWork work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512, 4).value();
    LayerSchedule schedule;
    schedule.panel = panel;
    return work.layers[0].fits_ahead(schedule, sharers);
  };
  for (const int sharers : {1, 3}) {
    CHECK(fits("gru:i512h96", sharers));
    CHECK_FALSE(fits("gru:i513h96", sharers));
  }
  CHECK(fits("gru:i341h96", 2, Panel::wide));
  CHECK_FALSE(fits("gru:i342h96", 2, Panel::wide));
  for (const int sharers : {2, 4}) {
    CHECK(fits("gru:i1024h96", sharers));
    CHECK_FALSE(fits("gru:i1025h96", sharers));
  }
  CHECK_FALSE(fits("gru:i8h96", 5));  // of more than ModelWork::of was told of
}

/// Unit blocks of the participant that has the most, as lower::Sharing divides them.
std::uint32_t busiest(const jit::KernelPlan& plan, const jit::Stage& stage, std::uint32_t n) {
  const std::uint32_t blocks = (stage.width + plan.lanes - 1) / plan.lanes;
  const std::uint32_t units = lower::share_units(plan, stage.width);
  const std::uint32_t shares = lower::shares(plan, stage.width);
  const auto before = [&](std::uint32_t s) { return std::min(blocks, s * units); };
  std::uint32_t most = 0;
  for (std::uint32_t p = 0; p < n; ++p) {
    most = std::max(most, before(shares * (p + 1) / n) - before(shares * p / n));
  }
  return most;
}

/// The plans of a schedule have the panels that the work says, and nobody owns more than it says.
void check_plans(const ModelWork& work, const LayerSchedule& schedule, int sharers) {
  const lower::StepGraph graph = lower::StepGraph::build(work.spec.cell);
  const lower::Widths widths = lower::widths_of(work.spec, 0);
  const auto layout = lower::PackLayout::build(work.spec.cell, graph, widths, work.lanes);
  const auto n = static_cast<std::uint32_t>(sharers);
  const auto rows = static_cast<std::uint32_t>(work.spec.batch);
  const auto plans = lower::lower_layer(
      {work.spec.cell, graph, widths, layout, schedule, work.isa, rows, {n, Exchange::flag}},
      "layer");
  REQUIRE(plans.ok());
  const jit::KernelPlan& plan = plans->step.plan;
  const KernelWork& kernel = work.layers[0].step[schedule.hoist_block > 0][schedule.fuse_gates];
  REQUIRE(plan.stages.size() == kernel.stages.size());
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const StageWork& stage = kernel.stages[s];
    CHECK(plan.stages[s].units_per_panel == stage.panel_units(sharers, schedule.panel));
    const std::uint32_t highest = stage.highest_tile(work.isa, sharers, schedule.panel);
    CHECK(plan.stages[s].tile_rows == highest);
    const std::uint32_t share = lower::share_units(plan, plan.stages[s].width);
    CHECK((share >= stage.width.blocks || share % plan.stages[s].units_per_panel == 0));
    const std::uint32_t most = busiest(plan, plan.stages[s], n);
    CHECK(most <= stage.own_blocks(sharers));
    if (schedule.panel == Panel::narrow) CHECK(most == stage.own_blocks(sharers));
  }
  if (!schedule.fuse_gates) return;  // LayerWork::hoist is that of fused gates
  for (std::size_t s = 0; plans->hoist && s < plans->hoist->plan.stages.size(); ++s) {
    const jit::Stage& hoisted = plans->hoist->plan.stages[s];
    const StageWork& stage = work.layers[0].hoist.stages[s];
    CHECK(hoisted.units_per_panel == stage.panel_units(sharers, schedule.panel));
    CHECK(hoisted.tile_rows == stage.highest_tile(work.isa, sharers, schedule.panel));
    const std::uint32_t share = lower::share_units(plan, hoisted.width);
    CHECK((sharers == 1 || share % hoisted.units_per_panel == 0));
  }
}

TEST_CASE("work: parts of the batch rows are models of as many rows") {
  const auto work_of_rows = [](int rows, int threads) {
    const std::string problem = "lstm:i16h40b" + std::to_string(rows);
    return ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512, threads).value();
  };
  const ModelWork seven = work_of_rows(7, 5);
  CHECK(&seven.part(1) == &seven);
  CHECK(seven.part(2).spec.batch == 4);
  CHECK(seven.part(3).spec.batch == 3);
  CHECK(seven.part(4).spec.batch == 2);
  CHECK(seven.part(5).spec.batch == 2);
  CHECK(seven.parts.size() == 3);
  // More parts than it was made for, and than there are rows.
  CHECK(seven.part(7).spec.batch == 2);
  CHECK(work_of_rows(2, 4).part(4).spec.batch == 1);
  CHECK(work_of_rows(7, 1).part(2).spec.batch == 7);
  // Tiles, panels and whatever else follows from the rows are those of a batch of so many.
  const KernelWork& of_part = seven.part(3).layers[0].step[0][1];
  const KernelWork of_three = work_of_rows(3, 1).layers[0].step[0][1];
  const auto height = [](const KernelWork& kernel) {
    return kernel.stages[0].highest_tile(Isa::avx512, 2, Panel::narrow);
  };
  CHECK(height(of_part) == height(of_three));
  CHECK(of_part.weight_bytes == of_three.weight_bytes);
  // A GRU's panels have one unit block for 16 rows, two for 8.
  const ModelSpec gru = ModelSpec::parse("gru:i8h64b16").value();
  const ModelWork sixteen = ModelWork::of(gru, Isa::avx512, 2).value();
  const auto panels = [](const ModelWork& work) {
    return work.layers[0].step[1][1].stages[0].panel_units(1, Panel::narrow);
  };
  CHECK(panels(sixteen) == 1);
  CHECK(panels(sixteen.part(2)) == 2);
}

TEST_CASE("work: narrow and wide panels are those of the plans, for every number of sharers") {
  std::vector<std::string> problems = {"lstm:i48h48",
                                       "lstm:i9h100p40,peephole=1",
                                       "gru:i7h130",
                                       "gru:i30h90,reset=before",
                                       "rnn:i20h200",
                                       "augru:i9h70",
                                       "lstm:i5h70,coupled=1",
                                       "rnn:i7h90b3",
                                       "gru:i9h96",
                                       "gru:i9h160,reset=before",
                                       "rnn:i9h160"};
  for (std::uint64_t seed = 0; seed < 30; ++seed) problems.push_back(test::random_problem(seed));
  for (const std::string& problem : problems) {
    for (const Isa isa : {Isa::avx2, Isa::avx512}) {
      const ModelWork work = ModelWork::of(test::parse_problem(problem).value(), isa).value();
      for (int choice = 0; choice < 8; ++choice) {
        LayerSchedule schedule;
        schedule.panel = choice % 2 == 0 ? Panel::narrow : Panel::wide;
        schedule.hoist_block = choice / 2 % 2 * 8;
        schedule.fuse_gates = choice / 4 == 0;
        schedule.tile_rows = schedule.hoist_rows = 6;  // the highest
        for (const int sharers : {1, 2, 3, 4, 7}) {
          INFO(problem << " " << to_string(isa) << " choice " << choice << " of " << sharers);
          check_plans(work, schedule, sharers);
        }
      }
    }
  }
}

}  // namespace
}  // namespace deepcpu
