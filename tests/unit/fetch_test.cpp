// SPDX-License-Identifier: Apache-2.0
/// Product::fetch: which kernels ask for the panel that comes next, and how much of it.
#include <cstdint>
#include <string>

#include "src/compile.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

Compilation compiled(const std::string& problem, Isa isa, int tile_rows) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  CompileOptions options;
  options.schedule.emplace();
  options.schedule->isa = isa;
  options.schedule->layers.resize(1);
  options.schedule->layers[0].hoist_block = 16;
  options.schedule->layers[0].tile_rows = tile_rows;
  options.schedule->layers[0].hoist_rows = 4;
  return compile_program(spec, options).value();
}

/// Lines that all tiles of a panel ask for, per step over k.
std::uint32_t fetched(const std::string& problem, int tile_rows, std::uint32_t tiles) {
  const Compilation c = compiled(problem, Isa::interpreter, tile_rows);
  return tiles * c.layers[0].step.bound.plan.stages[0].products[0].fetch;
}

TEST_CASE("fetch: two tiles of several rows and more ask for the panel that comes next") {
  // A panel of an LSTM has four vectors of a cache line per step over k.
  CHECK(fetched("lstm:i32h64b16", 4, 4) == 4);
  CHECK(fetched("lstm:i32h64b8", 4, 2) == 4);
  CHECK(fetched("lstm:i32h64b12", 4, 3) == 6);    // rounded up: two lines each
  CHECK(fetched("lstm:i32h64b64", 4, 16) == 16);  // one each is the least
  CHECK(fetched("lstm:i32h64b4", 4, 1) == 0);
  CHECK(fetched("lstm:i32h64b5", 4, 1) == 0);  // the second tile has one row
  CHECK(fetched("lstm:i32h64b1", 1, 0) == 0);
  CHECK(fetched("lstm:i32h64b16", 1, 16) == 0);
  const Compilation c = compiled("lstm:i32h64", Isa::interpreter, 1);
  CHECK(c.layers[0].hoist->bound.plan.stages[0].products[0].fetch == 1);
}

TEST_CASE("fetch: plans that differ in it are different kernels, and the text says it") {
  const Compilation c = compiled("lstm:i32h64b16", Isa::interpreter, 4);
  jit::KernelPlan plan = c.layers[0].step.bound.plan;
  const jit::KernelPlan before = plan;
  CHECK(jit::to_text(plan).find("fetch 1 lines of the next panel") != std::string::npos);
  plan.stages[0].products[0].fetch = 0;
  CHECK_FALSE(plan == before);
  CHECK(jit::hash(plan) != jit::hash(before));
  CHECK(jit::to_text(plan).find("fetch") == std::string::npos);
}

}  // namespace
}  // namespace deepcpu
