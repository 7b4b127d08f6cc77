// SPDX-License-Identifier: Apache-2.0
/// StreamCost and CostModel: what must hold of them whatever their constants are.
#include "src/tune/cost_model.hpp"

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "src/compile.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/stream_cost.hpp"
#include "tests/catch.hpp"
#include "tests/support/random_cells.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// The round machine with an L1 and an L2 that keep more of an alternating stream.
MachineModel uneven_machine() {
  MachineModel m = test::round_machine();
  for (IsaModel& isa : m.isas) {
    isa.levels[0].alternating_bytes = 40 << 10;
    isa.levels[1].alternating_bytes = 1500 << 10;
  }
  return m;
}

constexpr double kSizes[] = {0,       64,       4096,     30000,    32768,    32769,
                             40000,   49152,    65536,    1 << 20,  1200000,  1573000,
                             3 << 20, 10 << 20, 16 << 20, 20 << 20, 30 << 20, 64 << 20};

TEST_CASE("stream cost: a stream that a level holds is read at its rate") {
  const MachineModel m = test::round_machine();
  const StreamCost cost(m, Isa::avx512, 1);
  REQUIRE(cost.levels() == 4);
  const StreamTime l1 = cost.pass({32768, false, 0, 0});
  CHECK(l1.seconds == Approx(32768 / 256e9));
  CHECK(l1.level_bytes == std::vector<double>{32768, 0, 0, 0});
  const StreamTime l2 = cost.pass({1 << 20, false, 0, 0});
  CHECK(l2.seconds == Approx((1 << 20) / 64e9));
  const StreamTime memory = cost.pass({1e9, false, 0, 0});
  CHECK(memory.seconds == Approx(1e9 / 8e9));
  CHECK(memory.level_bytes == std::vector<double>{0, 0, 0, 1e9});
  // Alternating: what lies in a level is read from it, the rest from the next.
  const StreamTime turned = cost.pass({65536, true, 0, 0});
  CHECK(turned.seconds == Approx(32768 / 256e9 + 32768 / 64e9));
  // What passes beside it is lost. Of groups that are walked forward whole ones fit, and of the one
  // behind them the more, the less all exceed the level, up to one and a half of it.
  CHECK(cost.pass({65536, true, 8192, 0}).level_bytes[0] == Approx(32768));
  CHECK(cost.pass({65536, true, 12000, 0}).level_bytes[0] == Approx(32768));
  CHECK(cost.pass({65536, true, 24000, 0}).level_bytes[0] == Approx(24000 * (1 + 1152.0 / 16384)));
  CHECK(cost.pass({131072, true, 40960, 0}).level_bytes[0] == Approx(20480));
  CHECK(cost.pass({131072, true, 49152, 0}).level_bytes[0] == 0.0);
  CHECK(cost.pass({65536, true, 0, 8192}).level_bytes[0] == Approx(32768 - 8192));
  CHECK(cost.reread_seconds(4096) == Approx(4096 / 256e9));
  CHECK(cost.vector_seconds() == Approx(32 / 128e9));
  CHECK(cost.load_seconds() == Approx(64 / 256e9));
  CHECK(cost.cycles(8) == Approx(2e-9));
}

TEST_CASE("stream cost: a level serves forward no more than it serves alternating") {
  MachineModel m = test::round_machine();
  m.isas[1].levels[2].forward_bytes = 64 << 20;  // of 16 MiB, as a calibration may say
  const StreamCost cost(m, Isa::avx512, 1);
  CHECK(cost.pass({32 << 20, false, 0, 0}).level_bytes[3] == 32 << 20);
}

TEST_CASE("stream cost: a shared level is divided among those that are active") {
  const MachineModel m = test::round_machine();
  const StreamCost alone(m, Isa::avx512, 1);
  const StreamCost crowd(m, Isa::avx512, 4);
  CHECK(alone.pass({8 << 20, false, 0, 0}).level_bytes[2] == 8 << 20);
  CHECK(crowd.pass({8 << 20, false, 0, 0}).level_bytes[3] == 8 << 20);
}

TEST_CASE("stream cost: more bytes are never faster, alternating never slower") {
  const MachineModel m = uneven_machine();
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    for (const int active : {1, 2, 4}) {
      const StreamCost cost(m, isa, active);
      for (const double group : {0.0, 4096.0, 1e6}) {
        for (const double beside : {0.0, 5000.0, 2e6}) {
          double before = 0.0;
          double forward_before = 0.0;
          for (const double bytes : kSizes) {
            const StreamTime forward = cost.pass({bytes, false, group, beside});
            const StreamTime turned = cost.pass({bytes, true, group, beside});
            INFO(bytes << " group " << group << " beside " << beside);
            CHECK(turned.seconds <= forward.seconds * (1 + 1e-12));
            CHECK(turned.seconds >= before);
            CHECK(forward.seconds >= forward_before);
            CHECK(sum(forward.level_bytes) == Approx(bytes));
            CHECK(sum(turned.level_bytes) == Approx(bytes));
            CHECK(cost.refill_seconds({bytes, true, group, beside}, bytes) >= 0.0);
            before = turned.seconds;
            forward_before = forward.seconds;
          }
        }
      }
    }
  }
}

/// A random problem, and schedules drawn from all that are valid.
struct Drawn {
  explicit Drawn(std::uint64_t seed, const MachineModel& machine, int threads = 4)
      : random(seed),
        problem(test::random_problem(seed)),
        isa(seed % 2 == 0 ? Isa::avx512 : Isa::avx2),
        work(ModelWork::of(test::parse_problem(problem).value(), isa, threads).value()),
        space(work, machine, threads) {}
  Drawn(const Drawn&) = delete;
  Drawn& operator=(const Drawn&) = delete;

  Schedule schedule() {
    return space.sample([this](std::uint64_t n) { return random.next() % n; });
  }

  test::Random random;
  std::string problem;
  Isa isa;
  ModelWork work;
  ScheduleSpace space;
};

TEST_CASE("cost model: parts add up, and nothing is negative or infinite") {
  const MachineModel m = uneven_machine();
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Drawn drawn(seed, m, 8);
    const CostModel model(m, drawn.isa);
    for (const double steps : {0.0, 1.0, 7.0, 100.0, 1e6}) {
      const Schedule s = drawn.schedule();
      const Prediction p = model.predict(drawn.work, s, steps);
      INFO(drawn.problem << " steps " << steps << " " << s.to_json());
      CHECK(std::isfinite(p.us));
      CHECK(p.us > 0.0);
      CHECK(p.us == Approx(p.parts.hoist + p.parts.products + p.parts.gates + p.parts.exchange +
                           p.parts.calls));
      for (const double part :
           {p.parts.hoist, p.parts.products, p.parts.gates, p.parts.exchange, p.parts.calls}) {
        CHECK(part >= 0.0);
      }
      CHECK(p.level_bytes.size() == 4);
    }
  }
}

TEST_CASE("cost model: more steps are never faster, nor is a machine with smaller caches") {
  const MachineModel m = uneven_machine();
  MachineModel small = m;
  for (IsaModel& isa : small.isas) {
    for (LevelModel& l : isa.levels) {
      if (l.forward_bytes == LevelModel::kUnlimited) continue;
      l.forward_bytes /= 2;
      l.alternating_bytes /= 2;
    }
  }
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Drawn drawn(seed, m);
    const CostModel model(m, drawn.isa);
    const CostModel slow(small, drawn.isa);
    const Schedule s = drawn.schedule();
    INFO(drawn.problem << " " << s.to_json());
    double before = 0.0;
    for (const double steps : {1.0, 10.0, 64.0, 100.0, 1000.0}) {
      const double us = model.predict(drawn.work, s, steps).us;
      CHECK(us >= before);
      CHECK(slow.predict(drawn.work, s, steps).us >= us * (1 - 1e-9));
      before = us;
    }
  }
}

TEST_CASE("cost model: a machine that does everything twice as fast halves what depends on it") {
  const MachineModel m = uneven_machine();
  MachineModel fast = m;
  fast.clock_ghz *= 2;
  fast.exchange_ns /= 2;
  const auto twice = [](CoreRates& r) { r = {2 * r.one, 2 * r.two, 2 * r.all}; };
  for (IsaModel& isa : fast.isas) {
    twice(isa.fma_gflops);
    for (LevelModel& l : isa.levels) twice(l.gbytes_per_s);
  }
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Drawn drawn(seed, m);
    const Schedule s = drawn.schedule();
    if (s.parallel == Parallel::wavefront) continue;  // waits for calls, which stay as they are
    const CostParts slow = CostModel(m, drawn.isa).predict(drawn.work, s, 50).parts;
    const CostParts quick = CostModel(fast, drawn.isa).predict(drawn.work, s, 50).parts;
    INFO(drawn.problem << " " << s.to_json());
    CHECK(quick.hoist == Approx(slow.hoist / 2));
    CHECK(quick.products == Approx(slow.products / 2));
    CHECK(quick.gates == Approx(slow.gates / 2));
    CHECK(quick.exchange == Approx(slow.exchange / 2));
    // Of calls, gathering the helpers does.
    const int helpers = Program::build(drawn.work.spec, s).participants - 1;
    const double lines = helpers > 0 ? OwnCosts{}.team_lines + helpers : 0.0;
    const double gathering = 1e-3 * lines * m.exchange_ns;
    CHECK(quick.calls - gathering / 2 == Approx(slow.calls - gathering));
  }
}

TEST_CASE("cost model: all schedules of a problem have the same FLOPs") {
  const MachineModel m = uneven_machine();
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Drawn drawn(seed, m, 7);
    const CostModel model(m, drawn.isa);
    const double flops = model.predict(drawn.work, drawn.schedule(), 33).flops;
    for (int i = 0; i < 10; ++i) {
      const Schedule s = drawn.schedule();
      INFO(drawn.problem << " " << s.to_json());
      CHECK(model.predict(drawn.work, s, 33).flops == Approx(flops));
    }
  }
  // Of 4 gates x 64 units, 16 + 64 wide, 10 steps, 2 rows.
  const auto work = ModelWork::of(ModelSpec::parse("lstm:i16h64b2").value(), Isa::avx512).value();
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(1);
  CHECK(CostModel(m, Isa::avx512).predict(work, s, 10).flops == 2.0 * 4 * 64 * 80 * 10 * 2);
}

/// Bytes of packed weights that a plan reads in one walk.
double bytes_of(const jit::KernelPlan& plan) {
  double bytes = 0.0;
  for (const jit::Stage& stage : plan.stages) {
    const std::uint32_t blocks = (stage.width + plan.lanes - 1) / plan.lanes;
    for (const jit::Product& p : stage.products) {
      const std::size_t last = jit::last_terms(stage, p, plan.lanes).size();
      const std::size_t vectors = p.gate.size() * (blocks - 1) + last;
      bytes += 4.0 * p.k * static_cast<double>(vectors) * plan.lanes;
    }
  }
  return bytes;
}

TEST_CASE("cost model: bytes of all levels are those that the compiled kernels walk") {
  const Isa isa = host_isa();
  const MachineModel m = uneven_machine();
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::string problem = test::random_problem(seed);
    const ModelSpec spec = test::parse_problem(problem).value();
    const auto work = ModelWork::of(spec, isa).value();
    const ScheduleSpace space(work, m, 1);
    test::Random random(seed);
    CompileOptions options;
    options.schedule = space.sample([&](std::uint64_t n) { return random.next() % n; });
    const auto compiled = compile_program(spec, options);
    REQUIRE(compiled.ok());
    constexpr double kSteps = 50;
    const double block = compiled->program.block > 0 ? double(compiled->program.block) : kSteps;
    double bytes = 0.0;
    for (const ProgramStep& step : compiled->program.steps) {
      const LayerCode& layer = compiled->layers[static_cast<std::size_t>(step.layer)];
      const jit::KernelPlan& plan = layer.step.bound.plan;
      if (!plan.weights_in_registers) bytes += kSteps * bytes_of(plan);
      if (layer.hoist) bytes += std::ceil(kSteps / block) * bytes_of(layer.hoist->bound.plan);
    }
    INFO(problem << " " << options.schedule->to_json());
    CHECK(sum(CostModel(m, isa).predict(work, *options.schedule, kSteps).level_bytes) ==
          Approx(bytes));
  }
}

TEST_CASE("cost model: hoisted products beside the loop, in the pieces that the program has") {
  const MachineModel m = test::round_machine();
  Schedule s;
  s.isa = Isa::avx512;
  s.threads = 2;
  s.parallel = Parallel::hoist;
  s.exchange = Exchange::flag;
  s.layers.resize(1);
  s.layers[0].hoist_block = 20;
  for (const char* problem : {"lstm:i64h64", "lstm:i256h40", "gru:i64h100", "rnn:i64h64"}) {
    INFO(problem);
    const ModelSpec spec = test::parse_problem(problem).value();
    const auto work = ModelWork::of(spec, s.isa, 2).value();
    const Prediction p = CostModel(m, s.isa).predict(work, s, 100);
    // Two lines of 50 ns in each of five blocks.
    CHECK(p.parts.exchange == Approx(5 * 2 * 0.05));
    CompileOptions options;
    options.schedule = s;
    options.threads = 2;
    options.schedule->isa = host_isa();
    const auto compiled = compile_program(spec, options);
    REQUIRE(compiled.ok());
    const auto here = ModelWork::of(spec, host_isa(), 2).value();
    const std::int64_t most = here.layers[0].hoisted_parts(here.lanes, compiled->program.group);
    CHECK(compiled->layers[0].shared_panels.pieces->parts() == compiled->program.panel_parts(most));
  }
  // Of the first block both compute a half, and half a piece is waited for; the loop of this small
  // input takes long enough for the rest. A piece is one of four panels, for all 20 steps.
  const auto work = ModelWork::of(test::parse_problem("lstm:i64h64").value(), s.isa, 2).value();
  Schedule alone = s;
  alone.threads = 1;
  alone.parallel = Parallel::none;
  const double all = CostModel(m, s.isa).predict(work, alone, 100).parts.hoist;
  const double shared = CostModel(m, s.isa).predict(work, s, 100).parts.hoist;
  CHECK(shared == Approx(all / 5 * (0.5 + 0.5 / 4)).epsilon(0.02));
}

TEST_CASE("cost model: layers of a bidirectional stack cannot overlap") {
  const MachineModel m = uneven_machine();
  const CostModel model(m, Isa::avx512);
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(2);
  s.layers[0].hoist_block = s.layers[1].hoist_block = 16;
  const auto us = [&](const ModelWork& work, int threads, Parallel parallel) {
    s.threads = threads;
    s.parallel = parallel;
    return model.predict(work, s, 200).us;
  };
  const auto both = ModelWork::of(ModelSpec::parse("lstm:i64h64l2bi").value(), Isa::avx512).value();
  const auto one = ModelWork::of(ModelSpec::parse("lstm:i64h64l2").value(), Isa::avx512).value();
  CHECK(us(both, 2, Parallel::wavefront) > 0.95 * us(both, 1, Parallel::none));
  CHECK(us(one, 2, Parallel::wavefront) < 0.65 * us(one, 1, Parallel::none));
  // A run that is shorter than a block: one layer after the other, but no more.
  s.layers[0].hoist_block = s.layers[1].hoist_block = 1024;
  CHECK(us(one, 2, Parallel::wavefront) < 1.2 * us(one, 1, Parallel::none));
}

TEST_CASE("cost model: products ahead are chosen where they run while the core waits") {
  const auto chosen = [](double overlap) {
    MachineModel m = test::round_machine();
    for (IsaModel& isa : m.isas) isa.overlap = overlap;
    const ModelSpec spec = ModelSpec::parse("lstm:i128h128").value();
    return estimate_schedule(spec, Isa::avx512, 1, m).value().layers[0].hoist_ahead;
  };
  CHECK(chosen(0.8));
  CHECK(!chosen(0.0));
  CHECK(!chosen(-0.5));
}

/// The round machine with an L1 of 48 KiB and so many multiply-adds and loads per cycle.
MachineModel wide_machine(double per_cycle) {
  MachineModel m = test::round_machine();
  for (IsaModel& isa : m.isas) {
    for (CoreRates* r : {&isa.fma_gflops, &isa.levels[0].gbytes_per_s}) {
      *r = {per_cycle * r->one, per_cycle * r->two, per_cycle * r->all};
    }
    isa.levels[0].forward_bytes = isa.levels[0].alternating_bytes = 48 << 10;
  }
  return m;
}

TEST_CASE("cost model: wide panels are chosen where two multiply-adds start per cycle") {
  const auto chosen = [](const char* problem, double per_cycle) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    return estimate_schedule(spec, Isa::avx512, 1, wide_machine(per_cycle)).value().layers[0].panel;
  };
  // U of 36 KiB lies in L1. Four sums wait for each other, eight do not.
  CHECK(chosen("lstm:i48h48", 2.0) == Panel::wide);
  // Of 100 KiB L1 holds two narrow panels of 20 KiB, but only one wide one of 40.
  CHECK(chosen("lstm:i80h80", 1.0) == Panel::narrow);
  // Rows make sums enough.
  CHECK(chosen("lstm:i48h48b2", 2.0) == Panel::narrow);
}

TEST_CASE("cost model: what eight sums gain in products depends on the multiply-adds per cycle") {
  const auto ratio = [](double per_cycle, const char* problem = "lstm:i48h64") {
    const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
    MachineModel m = wide_machine(per_cycle);
    m.isas[1].levels[0].forward_bytes = m.isas[1].levels[0].alternating_bytes = 256 << 10;
    Schedule s;
    s.isa = Isa::avx512;
    s.layers.resize(1);
    s.layers[0].hoist_block = 8;
    const auto products = [&](Panel panel) {
      s.layers[0].panel = panel;
      return CostModel(m, Isa::avx512).predict(work, s, 100).parts.products;
    };
    return products(Panel::wide) / products(Panel::narrow);
  };
  // A panel takes 64 x 4 cycles and 24 around it, wide or narrow; two against four.
  CHECK(ratio(2.0) == Approx(0.5));
  // Wide ones have twice the multiply-adds: 2 x (512 + 24) against 4 x (256 + 24).
  CHECK(ratio(1.0) == Approx(1072.0 / 1120.0));
  // Of five blocks the third wide panel has one, whose sums wait as long: three against five.
  CHECK(ratio(2.0, "lstm:i48h80") == Approx(3.0 / 5.0));
  // Three blocks are one panel of twelve sums: 48 x 6 + 24 against 3 x (48 x 4 + 24).
  CHECK(ratio(2.0, "lstm:i48h48") == Approx(312.0 / 648.0));
}

TEST_CASE("cost model: the first tile waits for what lies beyond L2, others hide a part of it") {
  const MachineModel m = test::round_machine();
  MachineModel slow = m;
  for (IsaModel& isa : slow.isas) isa.levels[2].gbytes_per_s.one /= 1.25;
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(1);
  s.layers[0].tile_rows = 4;
  const auto more = [&](const std::string& problem) {
    const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
    const Prediction quick = CostModel(m, Isa::avx512).predict(work, s, 10);
    const double bytes = quick.level_bytes[2];
    REQUIRE(bytes > 1e6);
    const double us = 1e-3 * bytes * 0.25 / m.of(Isa::avx512).levels[2].gbytes_per_s.one;
    return (CostModel(slow, Isa::avx512).predict(work, s, 10).us - quick.us) / us;
  };
  CHECK(more("lstm:i512h512b4") == Approx(1.0));
  // Three further tiles ask for five of the sixteen lines each that four steps over k read.
  CHECK(more("lstm:i512h512b16") == Approx(1.0 - OwnCosts().fetch_hidden * 15 / 16));
  s.layers[0].fetch_lines = 2;
  CHECK(more("lstm:i512h512b16") == Approx(1.0 - OwnCosts().fetch_hidden * 6 / 16));
  s.layers[0].fetch_lines = 12;
  CHECK(more("lstm:i512h512b16") == Approx(1.0 - OwnCosts().fetch_hidden));
  s.layers[0].fetch_lines = 0;
  CHECK(more("lstm:i512h512b16") == Approx(1.0));
  s.layers[0].tile_rows = 1;
  CHECK(more("lstm:i512h512b1") < 1.01);
}

TEST_CASE("cost model: a tile of several rows streams weights from beyond L2 as one row does") {
  const MachineModel m = test::round_machine();
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(1);
  const auto products = [&](const std::string& problem, int tile_rows) {
    s.layers[0].tile_rows = tile_rows;
    const auto work = ModelWork::of(ModelSpec::parse(problem).value(), Isa::avx512).value();
    const Prediction p = CostModel(m, Isa::avx512).predict(work, s, 10);
    REQUIRE(p.level_bytes[2] > 1e6);
    return p.parts.products;
  };
  const double one_row = products("lstm:i512h512b1", 1);
  CHECK(products("lstm:i512h512b2", 2) == Approx(one_row).epsilon(0.05));
  CHECK(products("lstm:i512h512b2", 1) > 1.1 * one_row);  // reads every panel twice
  const StreamCost streams(m, Isa::avx512, 1);
  CHECK(streams.pass({}).far_part == 0.0);
  Stream stream;
  stream.bytes = 1 << 10;
  CHECK(streams.pass(stream).far_part == 0.0);
  stream.bytes = 1e9;
  CHECK(streams.pass(stream).far_part > 0.9);
}

TEST_CASE("cost model: gates that are read alone fetch nothing, so no wait is hidden") {
  const MachineModel m = test::round_machine();
  OwnCosts none;
  none.fetch_hidden = 0.0;
  Schedule s;
  s.isa = Isa::avx512;
  s.layers.resize(1);
  s.layers[0].tile_rows = 4;
  const auto work =
      ModelWork::of(ModelSpec::parse("lstm:i512h512b16").value(), Isa::avx512).value();
  const auto us = [&](const OwnCosts& own) {
    return CostModel(m, Isa::avx512, own).predict(work, s, 10).us;
  };
  CHECK(us(OwnCosts()) < us(none));
  s.layers[0].fuse_gates = false;
  CHECK(us(OwnCosts()) == us(none));
}

TEST_CASE("the estimate is for the steps that the spec names") {
  const MachineModel m = test::round_machine();
  const auto hoists = [&](const std::string& problem) {
    const auto spec = ModelSpec::parse(problem).value();
    return estimate_schedule(spec, Isa::avx512, 1, m).value().layers[0].hoist_block > 0;
  };
  CHECK_FALSE(hoists("lstm:i256h256t1"));
  CHECK(hoists("lstm:i256h256"));
}

TEST_CASE("cost model: participants even out where they have enough panels of several rows") {
  const MachineModel m = test::round_machine();
  const CostModel model(m, Isa::avx512);
  const auto even = [&](const char* problem, int threads, int split_rows) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    const ModelWork work = ModelWork::of(spec, Isa::avx512, threads).value();
    Schedule s;
    s.isa = Isa::avx512;
    s.threads = threads;
    s.split_rows = split_rows;
    s.layers.resize(1);
    return model.predict(work, s, 10.0).even;
  };
  CHECK(even("lstm:i64h256b8", 2, 1));  // sixteen panels
  CHECK_FALSE(even("lstm:i64h256b8", 1, 1));
  CHECK_FALSE(even("lstm:i64h256b8", 2, 2));
  CHECK_FALSE(even("lstm:i64h128b8", 2, 1));
  CHECK_FALSE(even("lstm:i64h256", 2, 1));
  CHECK_FALSE(even("lstm:i64h256b2", 2, 1));  // steps that are too short
}

}  // namespace
}  // namespace deepcpu
