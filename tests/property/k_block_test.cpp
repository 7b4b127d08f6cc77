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

Schedule schedule_of(const ModelSpec& spec, Isa isa, int tile_rows, int hoist_block) {
  Schedule schedule;
  schedule.isa = isa;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule one;
    one.tile_rows = tile_rows;
    one.hoist_rows = tile_rows;
    one.hoist_block = hoist_block;
    schedule.layers.push_back(one);
  }
  return schedule;
}

/// The most steps over k at a time of all stages of all kernels; 0 = none is cut.
std::uint32_t k_block_of(const ModelSpec& spec, const Schedule& schedule) {
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  const Compilation c = compile_program(spec, options).value();
  std::uint32_t most = 0;
  for (const LayerCode& layer : c.layers) {
    for (const jit::Stage& s : layer.step.bound.plan.stages) most = std::max(most, s.k_block);
    if (!layer.hoist) continue;
    for (const jit::Stage& s : layer.hoist->bound.plan.stages) most = std::max(most, s.k_block);
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
        const Schedule schedule = schedule_of(p.spec, isa, tile_rows, hoist_block);
        INFO(text << " " << schedule.to_json());
        // Panels of AVX2 are half as large.
        if (isa == Isa::avx512) CHECK(k_block_of(p.spec, schedule) > 0);
        CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
      }
    }
  }
}

TEST_CASE("pieces of k: no bit changes") {
  check("lstm:i9h150b13t3");    // 150 = 80 + 70: the last piece has a rest in all tiles
  check("lstm:i300h33b9t3");    // two products, one of them short
  check("lstm:i129h160b12t3");  // whole pieces
  check("lstm:i20h290b11t2");   // AVX2, too
  check("lstm:i30h140b100t2");  // more rows than the sums of one group
  check("gru:i200h190b10t3");   // three gates
  check("gru:i20h290b9t2,reset=before");
  check("lstm:i12h150p140b9t2,peephole=1");
  check("augru:i140h180b9t2");
}

TEST_CASE("pieces of k: rows that end early") {
  check("lstm:i9h150b13t5", {5, 5, 4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0});
  check("gru:i200h190b10t4", {4, 4, 4, 4, 4, 4, 4, 4, 1, 0});
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
