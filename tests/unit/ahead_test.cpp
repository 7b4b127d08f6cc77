// SPDX-License-Identifier: Apache-2.0
/// hoist_ahead: what is refused and why, what the plan says, and when it is chosen.
#include <string>

#include "src/compile.hpp"
#include "src/lower/work.hpp"
#include "src/tune/estimate.hpp"
#include "src/tune/trial.hpp"
#include "src/tune/wisdom_check.hpp"
#include "tests/catch.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

Schedule schedule_of(const ModelSpec& spec, Isa isa = Isa::interpreter, int block = 8) {
  Schedule s;
  s.isa = isa;
  s.layers.resize(spec.hidden.size());
  for (LayerSchedule& l : s.layers) l.hoist_block = block;
  s.layers.front().hoist_ahead = true;
  return s;
}

std::string error_of(const std::string& problem, const Schedule& schedule) {
  CompileOptions options;
  options.schedule = schedule;
  options.threads = schedule.threads;
  const auto compiled = compile_program(ModelSpec::parse(problem).value(), options);
  return compiled ? "" : compiled.error().message();
}

template <class Edit>
std::string refusal(const std::string& problem, Edit edit) {
  Schedule s = schedule_of(ModelSpec::parse(problem).value());
  edit(s);
  return error_of(problem, s);
}

TEST_CASE("hoist_ahead is refused by name where it cannot be") {
  const auto as_it_is = [](Schedule&) {};
  CHECK(refusal("lstm:i8h16", as_it_is) == "");
  CHECK(refusal("lstm:i8h16b2", as_it_is) == "layers[0].hoist_ahead=true: needs batch 1");
  CHECK(refusal("lstm:i8h16", [](Schedule& s) { s.layers[0].hoist_block = 0; }) ==
        "layers[0].hoist_ahead=true: needs hoist_block > 0 and products of the input");
  CHECK(refusal("lstm:i8h16", [](Schedule& s) { s.layers[0].hoist_block = 12; }) ==
        "schedule.layers[0].hoist_ahead=true: needs the longest hoist_block to be a multiple of 8");
  CHECK(refusal("lstm:i8h16l2", [](Schedule& s) { s.layers[1].hoist_block = 100; }) ==
        "schedule.layers[0].hoist_ahead=true: needs the longest hoist_block to be a multiple of 8");
  CHECK(refusal("lstm:i8h16l2",
                [](Schedule& s) {
                  s.layers[0].hoist_block = 16;
                  s.layers[1].hoist_block = 24;
                }) ==
        "schedule.layers[0].hoist_ahead=true: needs the longest hoist_block to be a multiple of "
        "16, as its own");
  CHECK(refusal("lstm:i8h16l2", [](Schedule& s) { s.layers[1].hoist_block = 16; }) == "");
  CHECK(refusal("lstm:i8h16l2", [](Schedule& s) { s.layers[1].hoist_ahead = true; }) ==
        "schedule.layers[1].hoist_ahead=true: needs the first layer, or a bidirectional stack");
  CHECK(refusal("lstm:i8h16l2bi", [](Schedule& s) { s.layers[1].hoist_ahead = true; }) == "");
  CHECK(refusal("lstm:i200h8", as_it_is) ==
        "layers[0].hoist_ahead=true: needs at most 4 times as many products of the input as of the "
        "state");
  CHECK(refusal("rnn:i2h4", [](Schedule& s) {
          s.layers[0].weights = Residency::registers;
        }).starts_with("layers[0].hoist_ahead=true: needs weights=streamed"));
  if (host_isa() < Isa::avx2) return;
  CHECK(refusal("lstm:i8h16", [](Schedule& s) { s.isa = Isa::avx2; }) ==
        "layers[0].hoist_ahead=true: is not emitted for isa=avx2");
}

TEST_CASE("hoist_ahead: a wisdom entry is checked by the same rules") {
  const ModelSpec spec = ModelSpec::parse("lstm:i8h16l2").value();
  Schedule s = schedule_of(spec);
  CHECK(check_lowering(spec, s).ok());
  s.layers[1].hoist_ahead = true;
  CHECK(check_lowering(spec, s).error().message() ==
        "layers[1].hoist_ahead=true: needs the first layer, or a bidirectional stack");
}

/// Whether y is another when the kernels are edited.
template <class Edit>
bool changes_y(std::int64_t steps, Edit edit) {
  ModelSpec spec = ModelSpec::parse("lstm:i8h16").value();
  spec.steps = steps;
  CompileOptions options;
  options.schedule = schedule_of(spec);
  const TrialData data = TrialData::make(spec, 1).value();
  TrialShare share;
  Compilation edited = compile_program(spec, options).value();
  edit(edited.layers[0]);
  Trial whole = Trial::make(data, compile_program(spec, options).value(), share).value();
  Trial other = Trial::make(data, std::move(edited), share).value();
  return whole.result() != other.result();
}

TEST_CASE("hoist_ahead: blocks that a whole one follows run with it, others without") {
  const auto no_step = [](LayerCode& l) { l.ahead->bound.plan.stages.clear(); };
  const auto no_sums = [](LayerCode& l) { l.ahead_sums.clear(); };
  const auto no_hoist = [](LayerCode& l) { l.hoist->bound.plan.stages.clear(); };
  CHECK(changes_y(16, no_step));
  CHECK_FALSE(changes_y(15, no_step));
  CHECK_FALSE(changes_y(8, no_step));
  // Without tiles the participant has nothing to do ahead; then the hoisted kernel serves.
  CHECK_FALSE(changes_y(16, no_sums));
  CHECK(changes_y(16, no_hoist));
}

Compilation compiled(const ModelSpec& spec, int block) {
  CompileOptions options;
  options.schedule = schedule_of(spec, Isa::interpreter, block);
  return compile_program(spec, options).value();
}

/// The multiply-adds ahead of a block as the pace of the plan makes them, and as they are.
void check_pace(const std::string& problem, int block) {
  const Compilation c = compiled(ModelSpec::parse(problem).value(), block);
  const LayerCode& layer = c.layers.front();
  REQUIRE(layer.ahead != nullptr);
  const jit::KernelPlan& plan = layer.ahead->bound.plan;
  double own = 0.0;
  for (const jit::Stage& s : plan.stages) {
    for (const jit::Product& p : s.products) own += plan.panels(s) * p.k;
  }
  double ahead = 0.0;
  for (const lower::AheadSum& sum : layer.ahead_sums) {
    ahead += sum.blocks * sum.k;
  }
  INFO(problem << " in blocks of " << block);
  const double tiles = static_cast<double>(block) / plan.ahead->rows;
  CHECK(own * block * plan.ahead->beats / plan.ahead->per == Approx(ahead * tiles));
  const std::string words =
      "products of a later block: tiles of " + std::to_string(plan.ahead->rows) + " rows";
  CHECK(jit::to_text(plan).find(words) != std::string::npos);
}

TEST_CASE("hoist_ahead: the pace of the plan does a block's products in a block") {
  for (const char* problem : {"lstm:i8h16", "lstm:i64h256", "gru:i100h48,reset=before",
                              "rnn:i30h40", "lstm:i60h40", "gru:i7h100"}) {
    for (const int block : {8, 16, 24, 64}) check_pace(problem, block);
  }
}

TEST_CASE("hoist_ahead: tiles have eight rows beside panels of many sums") {
  const ModelSpec spec = ModelSpec::parse("lstm:i64h48").value();
  CompileOptions options;
  options.schedule = schedule_of(spec, Isa::interpreter, 16);
  const auto rows = [&](Panel panel) {
    options.schedule->layers[0].panel = panel;
    const Compilation c = compile_program(spec, options).value();
    return c.layers.front().ahead->bound.plan.ahead->rows;
  };
  CHECK(rows(Panel::narrow) == 16);
  CHECK(rows(Panel::wide) == 8);  // three blocks of four gates are one panel
}

TEST_CASE("hoist_ahead: tiles have 16 rows where these divide the block") {
  for (const auto& [block, rows] : {std::pair{8, 8U}, {16, 16U}, {24, 8U}, {32, 16U}}) {
    const Compilation c = compiled(ModelSpec::parse("lstm:i64h256").value(), block);
    CHECK(c.layers.front().ahead->bound.plan.ahead->rows == rows);
  }
}

TEST_CASE("hoist_ahead is chosen where U comes from L2 and W can be read often") {
  MachineModel m = test::round_machine();
  m.isas[1].overlap = 0.7;
  m.isas[1].levels[1].gbytes_per_s = {128, 128, 128};
  m.isas[1].levels[2].gbytes_per_s = {96, 96, 96};
  const auto ahead = [&](const std::string& problem) {
    const auto spec = ModelSpec::parse(problem).value();
    return estimate_schedule(spec, Isa::avx512, 1, m).value().layers[0].hoist_ahead;
  };
  CHECK(ahead("lstm:i256h256"));
  CHECK(ahead("gru:i256h256,reset=before"));
  CHECK_FALSE(ahead("lstm:i256h256t1"));
  CHECK_FALSE(ahead("lstm:i256h256t8"));
  CHECK_FALSE(ahead("lstm:i256h256b2"));
  CHECK_FALSE(ahead("lstm:i1024h1024"));  // W passes through 16 MiB of L3 beside U
  const auto spec = ModelSpec::parse("lstm:i256h256").value();
  CHECK_FALSE(estimate_schedule(spec, Isa::avx2, 1, m).value().layers[0].hoist_ahead);
}

}  // namespace
}  // namespace deepcpu
