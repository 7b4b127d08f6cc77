// SPDX-License-Identifier: Apache-2.0
/// Tiles of several rows that pass over a panel piece by piece change no bit: pieces that divide k
/// and that do not, several products, rows for one group of sums and for more, lengths, threads.
#include <algorithm>
#include <string>
#include <vector>

#include "src/compile.hpp"
#include "tests/catch.hpp"
#include "tests/property/harness.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

Schedule schedule_of(const ModelSpec& spec, Isa isa, int tile_rows, int hoist_block,
                     int threads = 1) {
  Schedule schedule;
  schedule.isa = isa;
  schedule.threads = threads;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule one;
    one.tile_rows = tile_rows;
    one.hoist_rows = tile_rows;
    one.hoist_block = hoist_block;
    schedule.layers.push_back(one);
  }
  return schedule;
}

/// The most steps over k at a time of all products of all kernels; 0 = none is cut.
std::uint32_t k_block_of(const ModelSpec& spec, const Schedule& schedule) {
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  const Compilation c = compile_program(spec, options).value();
  std::uint32_t most = 0;
  const auto look_at = [&](const jit::KernelPlan& plan) {
    for (const jit::Stage& stage : plan.stages) {
      for (const jit::Product& p : stage.products) most = std::max(most, p.k_block);
    }
  };
  for (const LayerCode& layer : c.layers) {
    look_at(layer.step.bound.plan);
    if (layer.hoist) look_at(layer.hoist->bound.plan);
  }
  return most;
}

void check(const std::string& text, const std::vector<std::int64_t>& lengths = {}) {
  Problem p = make_problem(text);
  p.lengths = lengths;
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : host_isas()) {
    for (const int tile_rows : {2, 3, 4, 6}) {
      for (const int hoist_block : {0, 2}) {
        const int threads = tile_rows == 3 ? 2 : 1;
        const Schedule schedule = schedule_of(p.spec, isa, tile_rows, hoist_block, threads);
        INFO(text << " " << schedule.to_json());
        // Panels of AVX2 are half as large.
        const bool large = p.spec.hidden[0] >= 290;
        if (isa == Isa::avx512 || large) CHECK(k_block_of(p.spec, schedule) > 0);
        CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
      }
    }
  }
}

TEST_CASE("pieces of k: no bit changes") {
  check("lstm:i9h150b13t3");    // 80 + 70: tiles of one row have a rest
  check("lstm:i300h33b9t3");    // two products, one of them whole
  check("lstm:i129h160b12t3");  // 80 + 49, and whole pieces
  check("lstm:i20h290b11t2");   // AVX2, too
  check("lstm:i30h140b100t2");  // more rows than the sums of one group
  check("lstm:i140h20b90t3");   // and for x·W many more
  check("lstm:i20h290b180t1");  // the same with AVX2
  check("gru:i200h190b10t3");   // three gates
  check("gru:i20h290b9t2,reset=before");
  check("lstm:i12h150p140b9t2,peephole=1");
  check("augru:i140h180b9t2");
}

TEST_CASE("pieces of k: rows that end early") {
  check("lstm:i9h150b13t5", {5, 5, 4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0});
  check("gru:i200h190b10t4", {4, 4, 4, 4, 4, 4, 4, 4, 1, 0});
  // From several groups to one.
  std::vector<std::int64_t> lengths(100, 1);
  for (std::size_t row = 0; row < 90; ++row) lengths[row] = row < 20 ? 3 : 2;
  check("lstm:i30h140b100t3", lengths);
}

TEST_CASE("pieces of k: only where several tiles read a panel that L1 does not hold") {
  const auto cut = [](const std::string& problem, int tile_rows, int hoist_block) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    // The interpreter's panels are those of AVX-512.
    return k_block_of(spec, schedule_of(spec, Isa::interpreter, tile_rows, hoist_block));
  };
  CHECK(cut("lstm:i64h256b16", 4, 0) == 96);  // 64 KiB: three pieces
  CHECK(cut("lstm:i64h128b16", 4, 0) == 0);   // 32 KiB
  CHECK(cut("lstm:i64h256b6", 6, 0) == 0);    // one tile
  CHECK(cut("lstm:i64h256b7", 6, 0) == 0);    // and one of a single row
  CHECK(cut("lstm:i256h64b1", 1, 16) == 0);
  CHECK(cut("rnn:i64h1000b16", 4, 0) == 0);  // two chains
}

}  // namespace
