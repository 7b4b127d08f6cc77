// SPDX-License-Identifier: Apache-2.0
/// LayerSchedule::cut_panels: what the space decides, what the plan says, what it costs.
#include <set>
#include <string>

#include "src/compile.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/cost_model.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

std::set<bool> decided(const std::string& problem, Isa isa, double overlap) {
  MachineModel m = test::round_machine();
  for (IsaModel& one : m.isas) one.overlap = one.isa == isa ? overlap : 0.0;
  const auto work = ModelWork::of(ModelSpec::parse(problem).value(), isa).value();
  std::set<bool> out;
  ScheduleSpace(work, m, 1).for_each([&](const Schedule& s) {
    const LayerSchedule& l = s.layers[0];
    // One tile of all rows reads each panel once.
    if (l.tile_rows < 6 && l.hoist_block == 0) out.insert(l.cut_panels);
    return true;
  });
  return out;
}

TEST_CASE("cut_panels: not where multiply-adds and reading from L2 hide each other") {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    const std::string problem = "lstm:i64h512b16";
    CHECK(decided(problem, isa, 0.99).count(false) == 1);
    CHECK(decided(problem, isa, 0.9).count(false) == 1);
    CHECK(decided(problem, isa, 0.8) == std::set<bool>{true});
    CHECK(decided(problem, isa, -0.5) == std::set<bool>{true});
    CHECK(decided("lstm:i64h100b16", isa, 0.99) == std::set<bool>{true});  // panels of 25 KiB
    CHECK(decided("lstm:i64h512", isa, 0.99) == std::set<bool>{true});     // one row
    CHECK(decided("rnn:i64h512b16", isa, 0.99) == std::set<bool>{true});   // two chains
  }
}

Schedule schedule_of(int hoist_block, bool cut) {
  Schedule s;
  s.layers.resize(1);
  s.layers[0].hoist_block = hoist_block;
  s.layers[0].tile_rows = 4;
  s.layers[0].hoist_rows = 4;
  s.layers[0].cut_panels = cut;
  return s;
}

TEST_CASE("cut_panels: false leaves every product of both kernels whole") {
  for (const int hoist_block : {0, 2}) {
    for (const bool cut : {true, false}) {
      CompileOptions options;
      options.schedule = schedule_of(hoist_block, cut);
      const auto spec = ModelSpec::parse("lstm:i256h256b16t4").value();
      const Compilation c = compile_program(spec, options).value();
      const LayerCode& layer = c.layers.front();
      for (const jit::Product& p : layer.step.bound.plan.stages[0].products) {
        CHECK((p.k_block > 0) == cut);
      }
      if (hoist_block == 0) continue;
      for (const jit::Product& p : layer.hoist->bound.plan.stages[0].products) {
        CHECK((p.k_block > 0) == cut);
      }
    }
  }
}

TEST_CASE("cut_panels: a whole panel is read from L2 by every tile") {
  const auto slower = [](const std::string& problem, double l2_rate) {
    MachineModel m = test::round_machine();
    for (IsaModel& isa : m.isas) isa.levels[1].gbytes_per_s = {l2_rate, l2_rate, l2_rate};
    const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
    const CostModel model(m, Isa::avx512);
    Schedule cut = schedule_of(0, true);
    Schedule whole = schedule_of(0, false);
    cut.isa = whole.isa = Isa::avx512;
    return model.predict(work, whole, 10).us / model.predict(work, cut, 10).us;
  };
  CHECK(slower("lstm:i256h256b16", 20.0) > 1.2);
  CHECK(slower("lstm:i256h256b16", 1000.0) < 1.0);       // no sums are stored in between
  CHECK(slower("lstm:i16h32b16", 20.0) == Approx(1.0));  // L1 holds a panel
}

TEST_CASE("cost model: reading from L2 hides beside several rows by the machine's overlap") {
  const auto us = [](const std::string& problem, double overlap) {
    MachineModel m = test::round_machine();
    m.isas[1].overlap = overlap;
    const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
    Schedule s = schedule_of(0, false);
    s.isa = Isa::avx512;
    return CostModel(m, Isa::avx512).predict(work, s, 10).us;
  };
  const double none = us("lstm:i256h256b16", 0.0);
  const double half = us("lstm:i256h256b16", 0.5);
  const double all = us("lstm:i256h256b16", 1.0);
  CHECK(all < 0.97 * none);
  CHECK(half == Approx((none + all) / 2));
  CHECK(us("lstm:i256h256b16", -1.0) == Approx(none));
}

}  // namespace
}  // namespace deepcpu
