// SPDX-License-Identifier: Apache-2.0
/// Who computes a panel, or a piece of hoisted products, changes no bit: problems that are large
/// enough for participants to take some of each other, with odd sizes, lengths, and cut sequences.
#include <algorithm>
#include <string>
#include <vector>

#include "src/compile.hpp"
#include "src/runtime/hoist_share.hpp"
#include "tests/catch.hpp"
#include "tests/property/harness.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

struct Form {
  int threads = 2;
  Exchange exchange = Exchange::data;
  int hoist_block = 0;
  bool fuse_gates = true;
};

Schedule schedule_of(const ModelSpec& spec, Isa isa, const Form& form) {
  Schedule schedule;
  schedule.isa = isa;
  schedule.threads = form.threads;
  schedule.exchange = form.exchange;
  LayerSchedule layer;
  // Stages of one gate each, with tiles of four rows and less, exceed the code size.
  layer.tile_rows = form.fuse_gates ? 4 : 2;
  layer.hoist_rows = layer.tile_rows;
  layer.hoist_block = form.hoist_block;
  layer.fuse_gates = form.fuse_gates;
  layer.sweep = form.hoist_block > 0 ? Sweep::alternating : Sweep::forward;
  schedule.layers.assign(spec.hidden.size(), layer);
  return schedule;
}

Compilation compiled(const ModelSpec& spec, const Schedule& schedule) {
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  return compile_program(spec, options).value();
}

/// Stages of which others take panels.
std::ptrdiff_t stealing_stages(const ModelSpec& spec, const Schedule& schedule) {
  const Compilation c = compiled(spec, schedule);
  const auto& stages = c.layers.front().step.bound.plan.stages;
  return std::count_if(stages.begin(), stages.end(), [](const jit::Stage& s) { return s.steals; });
}

void check(const std::string& text, std::ptrdiff_t stages,
           const std::vector<std::int64_t>& lengths = {}) {
  Problem p = make_problem(text);
  p.lengths = lengths;
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  const Form forms[] = {{2, Exchange::data, 0},       {2, Exchange::flag, 0},
                        {2, Exchange::data, 3},       {2, Exchange::flag, 3},
                        {3, Exchange::data, 3},       {2, Exchange::data, 0, false},
                        {2, Exchange::flag, 3, false}};
  for (const Isa isa : host_isas()) {
    for (const Form& form : forms) {
      const Schedule schedule = schedule_of(p.spec, isa, form);
      INFO(text << " " << schedule.to_json());
      if (form.threads == 2 && form.hoist_block == 0 && form.fuse_gates) {
        CHECK(stealing_stages(p.spec, schedule) == stages);
      }
      CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
    }
  }
}

TEST_CASE("panels of others: no bit changes") {
  check("lstm:i67h261b9t9", 1);
  check("gru:i40h420b10t6,reset=before", 2);
  check("gru:i30h300b9t7", 1);
  check("rnn:i20h530b12t7", 1);
  check("lstm:i20h400p300b14t5,peephole=1", 2);
  check("lstm:i50h260l2b9t5", 1);
}

TEST_CASE("panels of others: rows that end early") {
  check("lstm:i67h261b9t9", 1, {9, 9, 8, 8, 7, 3, 2, 1, 1});
  check("gru:i40h420b10t6,reset=before", 2, {6, 5, 4, 4, 2, 1, 1, 1, 1, 0});
}

TEST_CASE("panels of others: calls of a few steps give the bits of one call") {
  const Problem p = make_problem("lstm:i67h261b9t14");
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : host_isas()) {
    for (const int hoist_block : {0, 2}) {
      const Schedule schedule = schedule_of(p.spec, isa, {2, Exchange::data, hoist_block});
      INFO(schedule.to_json());
      const Model model = compile(p, isa, schedule);
      CHECK(difference(run(p, model, {Layout::batch_major, {1, 2, 3, 1, 2, 5}}), expected) == "");
    }
  }
}

/// Whether others take hoisted products of a block of so many steps.
bool shares_hoist(const ModelSpec& spec, const Schedule& schedule, std::int64_t steps) {
  const Compilation c = compiled(spec, schedule);
  std::uint64_t row = 0;
  for (const jit::Stage& s : c.layers.front().hoist->bound.plan.stages) {
    row += jit::multiply_adds(s);
  }
  const auto work = steps * spec.batch * static_cast<std::int64_t>(row);
  return work >= HoistShare::kLeastWork * c.program.group;
}

TEST_CASE("hoisted products of others: no bit changes") {
  for (const char* text : {"lstm:i270h250t150", "gru:i300h210b3t70", "rnn:i400h600b2t60"}) {
    Problem p = make_problem(text);
    for (const bool ragged : {false, true}) {
      p.lengths.clear();
      for (std::int64_t r = 0; ragged && r < p.spec.batch; ++r) {
        p.lengths.push_back(p.steps - 9 * r);
      }
      const Outcome expected = run(p, compile(p, Isa::interpreter));
      for (const Isa isa : host_isas()) {
        const Schedule schedule = schedule_of(p.spec, isa, {2, Exchange::data, 128});
        INFO(text << " " << schedule.to_json());
        CHECK(shares_hoist(p.spec, schedule, p.steps > 128 ? p.steps / 2 : p.steps));
        CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
      }
    }
  }
}

TEST_CASE("hoisted products of others: a long call and short ones in one session") {
  const Problem p = make_problem("lstm:i270h250t111");
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : host_isas()) {
    for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
      const Schedule schedule = schedule_of(p.spec, isa, {2, exchange, 128});
      INFO(schedule.to_json());
      CHECK(shares_hoist(p.spec, schedule, 90));
      CHECK_FALSE(shares_hoist(p.spec, schedule, 10));
      const Model model = compile(p, isa, schedule);
      CHECK(difference(run(p, model, {Layout::time_major, {90, 10, 1, 10}}), expected) == "");
    }
  }
}

}  // namespace
