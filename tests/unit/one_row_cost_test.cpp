// SPDX-License-Identifier: Apache-2.0
/// CostModel, one batch row: what runs while a step waits, and what does not.
#include <algorithm>
#include <string>

#include "src/tune/cost_model.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

ModelWork work_of(const std::string& problem) {
  return ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
}

Schedule schedule_of(int hoist_block, bool ahead = false, Panel panel = Panel::narrow) {
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(1);
  s.layers[0].hoist_block = hoist_block;
  s.layers[0].hoist_rows = 6;
  s.layers[0].hoist_ahead = ahead;
  s.layers[0].panel = panel;
  return s;
}

CostParts parts_of(const MachineModel& m, const ModelWork& work, const Schedule& s,
                   const OwnCosts& own = {}) {
  return CostModel(m, Isa::avx512, own).predict(work, s, 1000).parts;
}

// A cycle of the round machine: 0.25 ns, in which one multiply-add starts.
constexpr double kCycleUs = 0.25e-3;

/// Of the element-wise work of one unit block: arithmetic, loads and stores.
double cycles(const StageWork& s) {
  return std::max(s.vectors, OwnCosts().division_cycles * s.divisions) + s.row_bytes / 64.0;
}

TEST_CASE("one row's cost: products with x start while the step before ends") {
  const MachineModel m = test::round_machine();
  const ModelWork work = work_of("lstm:i16h16");
  const StageWork& stage = work.layers[0].step[0][1].stages[0];
  const double wait = stage.latency_cycles - cycles(stage);
  REQUIRE(wait > 8.0);
  // A product of 16 x 4 multiply-adds, with what is around its tile, starts in that time; with
  // hoisted products none does.
  const double early = std::min(wait, 16.0 * 4 + OwnCosts().tile_cycles);
  const double gates =
      parts_of(m, work, schedule_of(16)).gates - parts_of(m, work, schedule_of(0)).gates;
  CHECK(gates == Approx(1000 * early * kCycleUs).epsilon(0.01));
}

TEST_CASE("one row's cost: the unit blocks of a last wide panel end one after the other") {
  const MachineModel m = test::round_machine();
  const auto gates = [&](const std::string& problem) {
    return parts_of(m, work_of(problem), schedule_of(16, false, Panel::wide)).gates;
  };
  const StageWork stage = work_of("lstm:i8h32").layers[0].step[1][1].stages[0];
  const double more = gates("lstm:i8h32") - gates("lstm:i8h16");
  CHECK(more == Approx(1000 * cycles(stage) * kCycleUs).epsilon(0.01));
}

TEST_CASE("one row's cost: products ahead hide only where the loop waits and W comes in time") {
  MachineModel m = test::round_machine();
  for (IsaModel& isa : m.isas) isa.overlap = 1.0;
  const auto more = [&](const std::string& problem) {
    const ModelWork work = work_of(problem);
    return parts_of(m, work, schedule_of(16, true)).total() /
           parts_of(m, work, schedule_of(16)).total();
  };
  CHECK(more("lstm:i128h128") < 0.9);    // U from L2
  CHECK(more("lstm:i512h512") < 0.97);   // U and W from L3
  CHECK(more("lstm:i64h40") > 1.0);      // U from L1
  CHECK(more("lstm:i1024h1024") > 1.0);  // W from memory
}

}  // namespace
}  // namespace deepcpu
