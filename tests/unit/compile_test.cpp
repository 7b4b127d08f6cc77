// SPDX-License-Identifier: Apache-2.0
/// What compile_program derives from a schedule, and which schedules it refuses.
#include "src/compile.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "tests/catch.hpp"

namespace deepcpu {
namespace {

Schedule schedule_of(const std::string& problem) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  CompileOptions options;
  options.isa = Isa::interpreter;
  return compile_program(spec, options).value().schedule;
}

Result<Compilation> compile_with(const std::string& problem, const Schedule& schedule,
                                 int threads = 1) {
  CompileOptions options;
  options.threads = threads;
  options.schedule = schedule;
  return compile_program(ModelSpec::parse(problem).value(), options);
}

std::vector<std::uint32_t> order(const Compilation& c, int participant, int direction) {
  const jit::PanelRange& range = *c.layers[0].shared_panels.step->of(participant);
  return {range.order[direction], range.order[direction] + range.count};
}

TEST_CASE("an alternating sweep turns round by groups, a forward one does not") {
  Schedule s = schedule_of("lstm:i8h112");  // 7 panels of 16 units
  s.layers[0].group = 3;
  const Compilation alternating = compile_with("lstm:i8h112", s).value();
  CHECK(order(alternating, 0, 0) == std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 6});
  CHECK(order(alternating, 0, 1) == std::vector<std::uint32_t>{6, 3, 4, 5, 0, 1, 2});
  s.layers[0].sweep = Sweep::forward;
  const Compilation forward = compile_with("lstm:i8h112", s).value();
  CHECK(order(forward, 0, 1) == std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("epilogues are woven into products where there is one row and another panel") {
  const auto weaves = [](const std::string& problem) {
    const auto c = compile_program(ModelSpec::parse(problem).value(), {}).value();
    const auto& code = c.layers[0].step.code;
    REQUIRE(code);
    return std::any_of(code->labels.begin(), code->labels.end(), [](const jit::CodeLabel& l) {
      return l.name.find(".woven") != std::string::npos;
    });
  };
  if (host_isa() == Isa::interpreter) return;
  CHECK(weaves("lstm:i8h112"));
  CHECK_FALSE(weaves("lstm:i8h8"));
  CHECK_FALSE(weaves("lstm:i8h112b3"));
}

TEST_CASE("participants divide the panels without gap or overlap") {
  Schedule s = schedule_of("lstm:i8h112");
  s.threads = 3;
  const Compilation c = compile_with("lstm:i8h112", s, 3).value();
  std::vector<std::uint32_t> all;
  for (int p = 0; p < 3; ++p) {
    for (const std::uint32_t panel : order(c, p, 0)) all.push_back(panel);
  }
  std::vector<std::uint32_t> expected(7);
  std::iota(expected.begin(), expected.end(), 0U);
  CHECK(all == expected);
}

/// The unit blocks that a participant computes in a stage.
std::vector<std::uint32_t> blocks_of(const jit::KernelPlan& plan, const jit::Stage& stage,
                                     const jit::PanelRange& range) {
  std::vector<std::uint32_t> out;
  for (std::uint64_t i = 0; i < range.count; ++i) {
    const std::uint32_t panel = range.order[0][i];
    for (std::uint32_t u = 0; u < plan.units(stage, panel); ++u) {
      out.push_back(panel * stage.units_per_panel + u);
    }
  }
  return out;
}

using BlocksByWidth = std::map<std::uint32_t, std::vector<std::uint32_t>>;

/// Checks that the stages of `plan` give a participant the blocks that it has in `owned`.
void check_owner(const jit::KernelPlan& plan, const PanelOrders& orders, int participant,
                 BlocksByWidth& owned) {
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const jit::Stage& stage = plan.stages[s];
    const auto blocks = blocks_of(plan, stage, orders.of(participant)[s]);
    INFO(stage.name << " of " << plan.name << ", participant " << participant);
    CHECK(owned.try_emplace(stage.width, blocks).first->second == blocks);
  }
}

TEST_CASE("a participant owns the same units in all stages of a width, hoisted ones included") {
  // Hoisted sums and values of earlier stages are read without waiting for anybody.
  for (const char* problem :
       {"lstm:i8h112", "lstm:i8h64p32", "gru:i8h64,reset=before", "gru:i8h48,reset=before",
        "gru:i8h200b4", "gru:i8h96,reset=before", "rnn:i8h48", "rnn:i8h256", "augru:i8h72"}) {
    for (const Isa isa : {Isa::avx2, Isa::avx512}) {
      if (isa > host_isa()) continue;
      for (const int choice : {10, 11, 20, 21, 30, 31, 70, 71}) {
        const int threads = choice / 10;
        Schedule s = schedule_of(problem);
        s.isa = isa;
        s.threads = threads;
        s.layers[0].hoist_block = 8;
        s.layers[0].panel = choice % 10 == 0 ? Panel::narrow : Panel::wide;
        INFO(problem << " " << s.to_json());
        const Compilation c = compile_with(problem, s, threads).value();
        const LayerCode& layer = c.layers[0];
        for (int p = 0; p < threads; ++p) {
          BlocksByWidth owned;
          check_owner(layer.step.bound.plan, *layer.shared_panels.step, p, owned);
          check_owner(layer.hoist->bound.plan, *layer.shared_panels.hoist, p, owned);
        }
      }
    }
  }
}

/// A cell whose products are of x alone: all of them are hoisted.
Cell without_recurrent_products() {
  CellBuilder b("only_x");
  const Value x = b.input("x");
  const Value c = b.state("c");
  const Value f = b.sigmoid(b.matmul("w", x));
  const Value next = f * c + b.matmul("v", x);
  b.next(c, next);
  b.output(next);
  return b.build().value();
}

TEST_CASE("hoisted products are divided by single blocks where nothing else is to be divided") {
  const ModelSpec spec =
      ModelSpec::make(without_recurrent_products(), {.input = 8, .hidden = {112}}).value();
  CompileOptions options;
  options.threads = 2;
  options.isa = Isa::interpreter;  // 7 blocks of 16
  options.schedule = compile_program(spec, options).value().schedule;
  options.schedule->threads = 2;
  options.schedule->layers[0].hoist_block = 8;
  const Compilation c = compile_program(spec, options).value();
  const LayerCode& layer = c.layers[0];
  REQUIRE(layer.step.bound.plan.stages.size() == 1);
  REQUIRE(layer.step.bound.plan.stages[0].products.empty());
  for (int p = 0; p < 2; ++p) {
    BlocksByWidth owned;
    check_owner(layer.step.bound.plan, *layer.shared_panels.step, p, owned);
    check_owner(layer.hoist->bound.plan, *layer.shared_panels.hoist, p, owned);
    CHECK(owned.at(112).size() == (p == 0 ? 3U : 4U));
  }
}

/// The error for a cell of 16 units in which `make` gives the next state; empty if there is none.
template <class Make>
std::string refusal(const Make& make) {
  CellBuilder b("limits");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value next = make(b, x, h);
  b.next(h, next);
  b.output(next);
  const auto spec = ModelSpec::make(b.build().value(), {.input = 16, .hidden = {16}}).value();
  const auto compiled = compile_program(spec, {});
  return compiled.ok() ? std::string() : compiled.error().message();
}

TEST_CASE("cells with more stages or buffers than can be run are refused by name") {
  const auto chain = [](int products) {
    return refusal([&](CellBuilder& b, Value x, Value h) {
      Value v = b.matmul("w0", h) + b.matmul("u", x);
      for (int i = 1; i < products; ++i) v = b.matmul("w" + std::to_string(i), b.tanh(v));
      return v;
    });
  };
  CHECK(chain(32).empty());
  CHECK(chain(33) == "cell: 33 stages in a step, at most 32 can be run");
  // Each value is needed in the last stage, and so stands in memory until then.
  const auto kept = [](int values) {
    return refusal([&](CellBuilder& b, Value x, Value h) {
      Value all = b.matmul("w", b.tanh(b.matmul("u", x) + b.matmul("v", h)));
      for (int i = 0; i < values; ++i) {
        const std::string name = std::to_string(i);
        all = all * b.sigmoid(b.matmul("k" + name, h));
      }
      return all;
    });
  };
  CHECK(kept(8).empty());
  CHECK(kept(80).find(" buffers, at most 64 can be addressed") != std::string::npos);
}

TEST_CASE("wide panels are as narrow ones where that lets another participant share them") {
  const auto panels = [](const std::string& problem, Isa isa, int threads, Panel panel) {
    Schedule s = schedule_of(problem);
    s.layers[0].panel = panel;
    s.isa = isa;
    s.threads = threads;
    const Compilation c = compile_with(problem, s, threads).value();
    std::vector<std::uint32_t> out;
    for (const jit::Stage& stage : c.layers[0].step.bound.plan.stages) {
      out.push_back(stage.units_per_panel);
    }
    return out;
  };
  using Units = std::vector<std::uint32_t>;
  if (host_isa() >= Isa::avx2) {
    // 8 blocks: 4 each, either way; 6 blocks: 3 each, not 4 and 2. Rows make sums enough.
    CHECK(panels("lstm:i8h64", Isa::avx2, 2, Panel::narrow) == Units{1});
    CHECK(panels("lstm:i8h64", Isa::avx2, 2, Panel::wide) == Units{2});
    CHECK(panels("lstm:i8h48", Isa::avx2, 2, Panel::wide) == Units{1});
    CHECK(panels("lstm:i8h48", Isa::avx2, 1, Panel::wide) == Units{2});
    CHECK(panels("lstm:i8h48b4", Isa::avx2, 1, Panel::wide) == Units{1});
  }
  if (host_isa() >= Isa::avx512) {
    CHECK(panels("lstm:i8h64", Isa::avx512, 1, Panel::narrow) == Units{1});
    CHECK(panels("lstm:i8h64", Isa::avx512, 1, Panel::wide) == Units{2});
    CHECK(panels("lstm:i8h64", Isa::avx512, 2, Panel::wide) == Units{2});
    CHECK(panels("lstm:i8h64", Isa::avx512, 4, Panel::wide) == Units{1});
    CHECK(panels("lstm:i8h64b2", Isa::avx512, 1, Panel::wide) == Units{1});
    // Three blocks are one panel, not one of two and one of one; five take too many registers.
    CHECK(panels("lstm:i8h48", Isa::avx512, 1, Panel::wide) == Units{3});
    CHECK(panels("lstm:i8h33", Isa::avx512, 1, Panel::wide) == Units{3});
    CHECK(panels("lstm:i8h80", Isa::avx512, 1, Panel::wide) == Units{2});
    CHECK(panels("lstm:i8h48", Isa::avx512, 2, Panel::wide) == Units{1});
    CHECK(panels("gru:i8h48", Isa::avx512, 1, Panel::narrow) == Units{2});
    CHECK(panels("gru:i8h48", Isa::avx512, 1, Panel::wide) == Units{3});
    CHECK(panels("rnn:i8h96", Isa::avx512, 1, Panel::wide) == Units{6});
    CHECK(panels("rnn:i8h112", Isa::avx512, 1, Panel::wide) == Units{4});
    // Rows that fit fewer tiles, of five rows and more, if panels are narrower.
    CHECK(panels("gru:i8h64b4", Isa::avx512, 1, Panel::narrow) == Units{2});
    CHECK(panels("gru:i8h64b5", Isa::avx512, 1, Panel::narrow) == Units{1});
    CHECK(panels("gru:i8h64b8", Isa::avx512, 1, Panel::narrow) == Units{2});
    CHECK(panels("gru:i8h64b16", Isa::avx512, 2, Panel::narrow) == Units{1});
    CHECK(panels("rnn:i8h64b16", Isa::avx512, 1, Panel::narrow) == Units{2});
    CHECK(panels("gru:i8h64b16,reset=before", Isa::avx512, 1, Panel::narrow) == Units{2, 2});
    CHECK(panels("gru:i8h64,reset=before", Isa::avx512, 1, Panel::narrow) == Units{2, 2});
    CHECK(panels("gru:i8h64,reset=before", Isa::avx512, 1, Panel::wide) == Units{4, 4});
    CHECK(panels("gru:i8h64,reset=before", Isa::avx512, 2, Panel::wide) == Units{2, 2});
  }
}

/// Per stage: f = exchange by flag, then the names of what is polled before it.
std::vector<std::string> exchanges(const std::string& problem, int threads) {
  Schedule s = schedule_of(problem);
  s.threads = threads;
  s.exchange = Exchange::data;
  const Compilation c = compile_with(problem, s, threads).value();
  const jit::KernelPlan& plan = c.layers[0].step.bound.plan;
  std::vector<std::string> out;
  for (const jit::Stage& stage : plan.stages) {
    out.emplace_back(stage.exchange ? "f" : "");
    for (const jit::Ref& r : stage.polls) {
      CHECK(plan.buffers[r.buffer].slots == 3);
      out.back() += " " + plan.buffers[r.buffer].name + (r.next ? "'" : "");
    }
  }
  return out;
}

TEST_CASE("exchange=data polls what shows how far the others are") {
  using Stages = std::vector<std::string>;
  CHECK(exchanges("lstm:i8h32", 2) == Stages{" h"});
  // Of the first stage only r * h is read by others: z belongs to who goes on with it.
  CHECK(exchanges("gru:i8h128,reset=before", 2) == Stages{" h", " v8'"});
  // The output of a projection of one panel belongs to one participant: the other one would not be
  // seen to make progress. The flags for it serve what is projected as well.
  CHECK(exchanges("lstm:i8h32p16", 2) == Stages{"f", "f"});
  CHECK(exchanges("lstm:i8h32", 3) == Stages{"f"});  // two panels, three participants
  CHECK(exchanges("lstm:i8h32", 1) == Stages{"f"});  // nobody to exchange with
}

TEST_CASE("only what other participants read is exchanged") {
  auto exchanges = [](const std::string& problem) {
    const Compilation c = compile_with(problem, schedule_of(problem)).value();
    std::vector<bool> out;
    for (const jit::Stage& stage : c.layers[0].step.bound.plan.stages)
      out.push_back(stage.exchange);
    return out;
  };
  CHECK(exchanges("lstm:i8h32") == std::vector<bool>{true});
  CHECK(exchanges("gru:i8h32,reset=after") == std::vector<bool>{true});
  CHECK(exchanges("gru:i8h32,reset=before") == std::vector<bool>{true, true});
}

TEST_CASE("hoisting, fusion and tiles of the schedule stand in the plans") {
  Schedule s = schedule_of("gru:i8h64b4");
  s.layers[0].hoist_block = 0;
  s.layers[0].tile_rows = 3;
  const Compilation plain = compile_with("gru:i8h64b4", s).value();
  CHECK(plain.layers[0].hoist == nullptr);
  const auto& stages = plain.layers[0].step.bound.plan.stages;
  REQUIRE(stages.size() == 1);
  CHECK(stages[0].products.size() == 2);
  CHECK(stages[0].tile_rows == 3);
  s.layers[0].hoist_block = 5;
  s.layers[0].fuse_gates = false;
  const Compilation split = compile_with("gru:i8h64b4", s).value();
  CHECK(split.program.block == 5);
  REQUIRE(split.layers[0].hoist != nullptr);
  CHECK(split.layers[0].step.bound.plan.stages.size() == 4);
}

TEST_CASE("schedules that cannot be honoured are refused by name") {
  const std::string problem = "lstm:i64h64";
  auto error = [&](auto change, int threads = 1) {
    Schedule s = schedule_of(problem);
    change(s);
    return compile_with(problem, s, threads).error().message();
  };
  CHECK(error([](Schedule& s) { s.threads = 2; }) == "schedule.threads=2: must be between 1 and 1");
  CHECK(error([](Schedule& s) { s.layers[0].tile_rows = 7; }) ==
        "schedule.layers[0].tile_rows=7: must be between 1 and 6");
  CHECK(error([](Schedule& s) { s.layers.clear(); }) ==
        "schedule.layers: has 0 entries: must have between 1 and 1024");
  CHECK(error([](Schedule& s) { s.order = Order::free; }) ==
        "schedule.order=free: is not emitted yet");
  CHECK(error([](Schedule& s) {
          s.layers[0].weights = Residency::registers;
        }).find("layers[0].weights=registers: needs batch 1, one panel") == 0);
}

TEST_CASE("a session's kernels are shared by equal layers and dumps come in order") {
  std::vector<std::string> stages;
  const ModelSpec spec = ModelSpec::parse("lstm:i64h64l2").value();
  const Compilation c =
      compile_program(spec, {}, [&](std::string_view stage, const std::string& text) {
        stages.emplace_back(stage);
        CHECK_FALSE(text.empty());
      }).value();
  CHECK(stages == std::vector<std::string>{"cell", "dag", "phases", "schedule", "plan", "asm"});
  CHECK(c.layers[0].step.code == c.layers[1].step.code);
}

}  // namespace
}  // namespace deepcpu
