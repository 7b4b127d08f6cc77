// SPDX-License-Identifier: Apache-2.0
/// LayerSchedule::fetch_lines: what the space decides from rates and tiles, and what it does.
#include <set>
#include <string>
#include <vector>

#include "deepcpu/deepcpu.hpp"
#include "src/schedule/space.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

/// What schedules with register tiles of so many rows ask for, on a machine whose L3 is `faster`
/// than the round one's 32 GB/s.
std::set<int> lines(const std::string& problem, int tile_rows, double faster = 1.0) {
  MachineModel m = test::round_machine();
  for (IsaModel& isa : m.isas) {
    CoreRates& l3 = isa.levels[2].gbytes_per_s;
    l3 = {faster * l3.one, faster * l3.two, faster * l3.all};
  }
  const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
  std::set<int> out;
  ScheduleSpace(work, m, 1).for_each_valid([&](const Schedule& s) {
    const LayerSchedule& l = s.layers[0];
    if (l.tile_rows == tile_rows && l.fuse_gates) out.insert(l.fetch_lines);
    return true;
  });
  return out;
}

TEST_CASE("fetch_lines: what the next tiles need, as far as it arrives meanwhile") {
  // Four steps of 4 rows and 4 gates are 64 multiply-adds, 16 ns, in which 8 lines come from L3.
  // One further tile would need all 16 lines of these steps.
  CHECK(lines("lstm:i16h512b8", 4) == std::set<int>{8});
  CHECK(lines("lstm:i16h512b8", 4, 0.5) == std::set<int>{5});   // at least
  CHECK(lines("lstm:i16h512b8", 4, 4.0) == std::set<int>{12});  // at most
  CHECK(lines("lstm:i16h512b8", 4, 0.9) == std::set<int>{7});   // whole lines
  // Three further tiles need a third of the sixteen each, two a half.
  CHECK(lines("lstm:i16h512b16", 4, 4.0) == std::set<int>{6});
  CHECK(lines("lstm:i16h512b16", 6, 4.0) == std::set<int>{8});
  // Nobody follows, or L2 holds the weights.
  CHECK(lines("lstm:i16h512b4", 4, 4.0) == std::set<int>{5});
  CHECK(lines("lstm:i16h512", 1, 4.0) == std::set<int>{5});
  CHECK(lines("lstm:i16h128b8", 4, 4.0) == std::set<int>{5});
}

// Its panels are cut into pieces.
TEST_CASE("fetch_lines: they change no bit of what a model computes") {
  const ModelSpec spec = ModelSpec::parse("lstm:i24h264b8t3").value();
  const Weights weights = Weights::random(spec, 3).value();
  std::vector<float> x(3 * 8 * 24);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.01F * static_cast<float>(i % 97) - 0.4F;
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    const auto run = [&](int asked) {
      CompileOptions options;
      options.schedule.emplace();
      options.schedule->isa = isa;
      options.schedule->layers.resize(1);
      options.schedule->layers[0].tile_rows = 4;
      options.schedule->layers[0].fetch_lines = asked;
      const Model model = Model::compile(spec, weights, options).value();
      CHECK(model.notes().empty());
      Session session = model.session().value();
      std::vector<float> y(3 * 8 * 264);
      REQUIRE(session.run(x, y).ok());
      return y;
    };
    const std::vector<float> none = run(0);
    for (const int asked : {1, 5, 11, 12, 16}) CHECK(run(asked) == none);
  }
}

}  // namespace
}  // namespace deepcpu
