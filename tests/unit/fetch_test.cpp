// SPDX-License-Identifier: Apache-2.0
/// Product::fetch: which kernels ask for the weights that come next, and how fast.
#include <algorithm>
#include <cstdint>
#include <string>

#include "jit/emitter.hpp"
#include "jit/inspect/listing.hpp"
#include "src/compile.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

/// Tiles of `tile_rows` rows; x·W hoisted in blocks of 16 steps, in tiles of 4.
LayerSchedule layer_of(int tile_rows) {
  LayerSchedule layer;
  layer.hoist_block = 16;
  layer.tile_rows = tile_rows;
  layer.hoist_rows = 4;
  return layer;
}

Result<Compilation> compile(const std::string& problem, Isa isa, const LayerSchedule& layer) {
  CompileOptions options;
  options.schedule.emplace();
  options.schedule->isa = isa;
  options.schedule->layers = {layer};
  return compile_program(ModelSpec::parse(problem).value(), options);
}

Compilation compiled(const std::string& problem, Isa isa, int tile_rows) {
  return compile(problem, isa, layer_of(tile_rows)).value();
}

const jit::Product& first_product(const Kernel& kernel) {
  return kernel.bound.plan.stages[0].products[0];
}

std::uint32_t fetched(const std::string& problem, int tile_rows) {
  const Compilation c = compiled(problem, Isa::interpreter, tile_rows);
  return c.layers[0].step.bound.plan.stages[0].products[0].fetch;
}

TEST_CASE("fetch: two tiles of several rows and more ask for what comes next") {
  CHECK(fetched("lstm:i32h64b16", 4) == 5);
  CHECK(fetched("lstm:i32h64b8", 4) == 5);
  CHECK(fetched("lstm:i32h64b64", 4) == 5);
  CHECK(fetched("lstm:i32h64b4", 4) == 0);
  CHECK(fetched("lstm:i32h64b5", 4) == 0);  // the second tile has one row
  CHECK(fetched("lstm:i32h64b1", 1) == 0);
  CHECK(fetched("lstm:i32h64b16", 1) == 0);
  // About as many lines in all where a panel has several unit blocks.
  CHECK(fetched("gru:i32h64b8", 4) == 3);
  CHECK(fetched("gru:i32h64b16", 4) == 5);  // whose panels have one
  CHECK(fetched("rnn:i32h64b16", 4) == 3);
  const Compilation c = compiled("lstm:i32h64", Isa::interpreter, 1);
  CHECK(c.layers[0].hoist->bound.plan.stages[0].products[0].fetch == 5);
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST_CASE("fetch: unfused gates do not ask for the lines of others") {
  LayerSchedule layer = layer_of(4);
  layer.hoist_block = 0;
  layer.fuse_gates = false;
  const Compilation c = compile("lstm:i32h64b16", Isa::interpreter, layer).value();
  for (const jit::Stage& stage : c.layers[0].step.bound.plan.stages) {
    for (const jit::Product& p : stage.products) CHECK(p.fetch == 0);
  }
}

TEST_CASE("fetch: the schedule says how many lines, and hoisted products have their own") {
  LayerSchedule layer = layer_of(4);
  for (const int asked : {0, 5, 12, 16}) {
    layer.fetch_lines = asked;
    const Compilation c = compile("lstm:i32h64b8", Isa::interpreter, layer).value();
    CHECK(first_product(c.layers[0].step).fetch == static_cast<std::uint32_t>(asked));
    CHECK(first_product(*c.layers[0].hoist).fetch == 5);
    // A product of one gate reads four lines in four steps, whatever is asked for.
    const Compilation rnn = compile("rnn:i8h16b8", Isa::interpreter, layer).value();
    CHECK(first_product(rnn.layers[0].step).fetch ==
          static_cast<std::uint32_t>(std::min(asked, 4)));
  }
  layer.fetch_lines = 17;
  CHECK(compile("lstm:i32h64b8", Isa::interpreter, layer).error().message() ==
        "schedule.layers[0].fetch_lines=17: must be between 0 and 16");
}

/// Rows of one tile of each height above one.
std::size_t rows_of_heights(const jit::Stage& stage) {
  return stage.tile_rows == 4 ? 4 + 3 + 2 : stage.tile_rows == 3 ? 3 + 2 : 2;
}

std::size_t loads(const jit::KernelPlan& plan, const jit::Stage& stage) {
  std::size_t n = 0;
  for (const jit::Instr& i : stage.epilogue) {
    const bool params = plan.buffers[i.ref.buffer].space == jit::Space::params;
    if (i.action == jit::Action::load && !params) ++n;
  }
  return n;
}

/// Fetches by code for the plan whose sums begin at zero.
std::size_t fetches_without_sums(jit::KernelPlan plan) {
  for (jit::Stage& s : plan.stages) {
    for (jit::Sum& sum : s.sums) sum.init = jit::Sum::Init::zero;
  }
  return count(jit::inspect::listing(*jit::emit(plan).value()), "prefetcht1");
}

TEST_CASE("fetch: code asks for as many lines as the plan says") {
  // Whole panels, panels in pieces, panels of two unit blocks.
  const auto problem = GENERATE("lstm:i32h64b8", "lstm:i32h256b8", "gru:i32h256b8");
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    const Compilation c = compiled(problem, isa, 4);
    const jit::Stage& stage = c.layers[0].step.bound.plan.stages[0];
    const jit::Product& p = stage.products[0];
    REQUIRE(p.fetch > 0);
    const std::string text = jit::inspect::listing(*c.layers[0].step.code);
    // Per tile height above one row, of 4 3 2, 3 2 or 2: a turn of the loop, or all steps in
    // straight code.
    const std::size_t turn = std::size_t{p.fetch} * stage.units_per_panel;
    const std::size_t all = count(text, "prefetcht1");
    const jit::KernelPlan& plan = c.layers[0].step.bound.plan;
    // Tiles ask for the hoisted sums of the next one, and for what their epilogue loads.
    const std::size_t rows = rows_of_heights(stage) * stage.units_per_panel;
    const std::size_t without = fetches_without_sums(plan);
    const auto hoisted =
        std::count_if(stage.sums.begin(), stage.sums.end(), [&](const jit::Sum& sum) {
          return plan.buffers[sum.ref.buffer].space == jit::Space::block;
        });
    CHECK(hoisted > 0);
    CHECK(all == without + rows * static_cast<std::size_t>(hoisted));
    const std::size_t loaded = rows * loads(plan, stage);
    REQUIRE(without > loaded);
    CHECK(loaded > 0);
    CHECK((without - loaded) % turn == 0);
    CHECK(without - loaded >= (stage.tile_rows - 1) * turn);
    CHECK(count(text, "prefetcht0") == 0);
    jit::KernelPlan none = c.layers[0].step.bound.plan;
    for (jit::Stage& s : none.stages) {
      for (jit::Product& q : s.products) q.fetch = 0;
    }
    const auto plain = jit::emit(none).value();
    CHECK(count(jit::inspect::listing(*plain), "prefetch") == 0);
  }
}

TEST_CASE("fetch: a loop whose hoisted sums another core writes asks for those of the next step") {
  const ModelSpec spec = ModelSpec::parse("gru:i32h64").value();
  CompileOptions options;
  options.threads = 2;
  options.schedule.emplace();
  options.schedule->isa = host_isa();
  options.schedule->threads = 2;
  options.schedule->parallel = Parallel::hoist;
  options.schedule->layers.resize(1);
  options.schedule->layers[0].hoist_block = 16;
  const Compilation shared = compile_program(spec, options).value();
  options.schedule->parallel = Parallel::none;
  const Compilation divided = compile_program(spec, options).value();
  options.schedule->threads = 1;
  const Compilation alone = compile_program(spec, options).value();
  const auto fetches = [](const Compilation& c) {
    const std::string text = jit::to_text(c.layers[0].step.bound.plan);
    return text.find("fetch the next step") != std::string::npos;
  };
  const jit::KernelPlan& plan = shared.layers[0].step.bound.plan;
  CHECK(fetches(shared));
  CHECK(fetches(divided));  // participants take hoisted products of each other
  CHECK_FALSE(fetches(alone));
  jit::KernelPlan other = plan;
  for (jit::Buffer& b : other.buffers) b.fetch_next = false;
  CHECK_FALSE(other == plan);
  CHECK(jit::hash(other) != jit::hash(plan));
  if (host_isa() == Isa::interpreter) return;
  // Each hoisted vector that code reads is followed by one fetch, of sums and of what the
  // element-wise work reads by itself.
  const std::string text = jit::inspect::listing(*shared.layers[0].step.code);
  const auto plain = jit::emit(other).value();
  CHECK(count(text, "prefetcht0") >= 3 + count(jit::inspect::listing(*plain), "prefetcht0"));
}

TEST_CASE("fetch: what others have written behind a flag is fetched before products read it") {
  const auto plan_of = [](const char* problem, int threads, Exchange exchange) {
    const ModelSpec spec = ModelSpec::parse(problem).value();
    CompileOptions options;
    options.threads = threads;
    options.schedule.emplace();
    options.schedule->isa = host_isa();
    options.schedule->threads = threads;
    options.schedule->exchange = exchange;
    options.schedule->layers.resize(1);
    return compile_program(spec, options).value();
  };
  const auto gathers = [](const Compilation& c) {
    std::size_t n = 0;
    for (const jit::Stage& s : c.layers[0].step.bound.plan.stages) n += s.gathers.size();
    return n;
  };
  CHECK(gathers(plan_of("lstm:i8h64b4", 1, Exchange::flag)) == 0);
  const Compilation flag = plan_of("lstm:i8h64b4", 2, Exchange::flag);
  CHECK(gathers(flag) == 1);
  CHECK(jit::to_text(flag.layers[0].step.bound.plan).find("fetch all of next h") ==
        std::string::npos);  // the slot that is read is the current one
  CHECK(jit::to_text(flag.layers[0].step.bound.plan).find("fetch all of ") != std::string::npos);
  CHECK(gathers(plan_of("lstm:i8h64b4", 2, Exchange::data)) == 0);  // polling looks at all of it
  // r*h crosses to the second stage, h to the first.
  CHECK(gathers(plan_of("gru:i8h64b4,reset=before", 2, Exchange::flag)) == 2);
  jit::KernelPlan other = flag.layers[0].step.bound.plan;
  for (jit::Stage& s : other.stages) s.gathers.clear();
  CHECK_FALSE(other == flag.layers[0].step.bound.plan);
  CHECK(jit::hash(other) != jit::hash(flag.layers[0].step.bound.plan));
  if (host_isa() == Isa::interpreter) return;
  const std::string with = jit::inspect::listing(*flag.layers[0].step.code);
  const auto emitted = jit::emit(other).value();
  CHECK(count(with, "prefetcht0") == 1 + count(jit::inspect::listing(*emitted), "prefetcht0"));
}

TEST_CASE("fetch: plans that differ in it are different kernels, and the text says it") {
  const Compilation c = compiled("lstm:i32h64b16", Isa::interpreter, 4);
  jit::KernelPlan plan = c.layers[0].step.bound.plan;
  const jit::KernelPlan before = plan;
  CHECK(jit::to_text(plan).find("fetch 5 lines of each unit block of what comes next in 4 steps") !=
        std::string::npos);
  plan.stages[0].products[0].fetch = 0;
  CHECK_FALSE(plan == before);
  CHECK(jit::hash(plan) != jit::hash(before));
  CHECK(jit::to_text(plan).find("fetch") == std::string::npos);
}

}  // namespace
}  // namespace deepcpu
