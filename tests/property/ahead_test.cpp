// SPDX-License-Identifier: Apache-2.0
/// Hoisted sums of the next block, computed among the products of this one, change no bit: cells
/// with one and with several levels, with and without biases, odd sizes, blocks that T does and
/// does not divide, sequences cut into calls, both layouts, directions, threads.
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/property/harness.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

Schedule ahead_schedule(const ModelSpec& spec, Isa isa, int block, int threads,
                        Panel panel = Panel::narrow) {
  Schedule schedule;
  schedule.isa = isa;
  schedule.threads = threads;
  schedule.exchange = Exchange::data;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule one;
    one.hoist_block = block;
    one.hoist_ahead = layer == 0 || spec.directions() == 2;
    one.hoist_rows = 3;
    one.panel = panel;
    schedule.layers.push_back(one);
  }
  return schedule;
}

std::vector<Isa> isas_with_ahead() {
  std::vector<Isa> out;
  for (const Isa isa : host_isas()) {
    if (isa != Isa::avx2) out.push_back(isa);
  }
  return out;
}

void check(const std::string& text, int block, int threads, const RunOptions& options) {
  Problem p = make_problem(text);
  p.lengths.clear();
  const Outcome expected = run(p, compile(p, Isa::interpreter), options);
  for (const Isa isa : isas_with_ahead()) {
    for (const Panel panel : {Panel::narrow, Panel::wide}) {
      const Schedule schedule = ahead_schedule(p.spec, isa, block, threads, panel);
      INFO(text << " " << schedule.to_json());
      CHECK(difference(run(p, compile(p, isa, schedule), options), expected) == "");
    }
  }
}

constexpr const char* kProblems[] = {
    "lstm:i5h19t33",
    "lstm:i33h64t40,peephole=1",
    "lstm:i16h40p24t35",
    "lstm:i7h33bit35",
    "lstm:i7h33l2bit35",
    "lstm:i20h36l2t33",
    "lstm:i37h26t33",
    "gru:i37h26t33",
    "lstm:i20h36revt33",
    "gru:i9h35t40",
    "gru:i3h50t33,reset=before",
    "rnn:i7h70t41",
    "rnn:i2h17t35",
    "lstm:i64h130t34",
    "gru:i40h20t36",
    "augru:i11h24t33",
    "lstm:i17h16t34,coupled=1",
    "lstm:i40h40t35",
    "lstm:i33h66p40t34",
};

TEST_CASE("sums of the next block: no bit changes") {
  for (const char* problem : kProblems) {
    for (const int block : {8, 16}) check(problem, block, 1, {});
  }
}

TEST_CASE("sums of the next block: threads own the same units in both") {
  for (const char* problem : kProblems) {
    for (const int threads : {2, 3}) check(problem, 8, threads, {});
    check(problem, 16, 2, {});
  }
  // Panels of three blocks, of one and of five, since narrow ones would give one thread more.
  for (const char* problem : {"gru:i20h96t18", "gru:i9h160t18,reset=before", "rnn:i9h150t18"}) {
    for (const int threads : {2, 4}) check(problem, 8, threads, {});
  }
}

TEST_CASE("sums of the next block: no bit depends on how a sequence is cut, nor on the layout") {
  RunOptions cut;
  cut.layout = Layout::batch_major;
  for (const char* problem : {"lstm:i5h19t40", "gru:i3h50t40,reset=before", "rnn:i7h70t40"}) {
    for (const int threads : {1, 2}) {
      cut.parts = {1, 8, 0, 24, 7};
      check(problem, 8, threads, cut);
      cut.parts = {1, 0, 32, 7};
      check(problem, 16, threads, cut);
    }
  }
}

TEST_CASE("sums of the next block: layers that ask for blocks of different lengths") {
  Problem p = make_problem("lstm:i7h33l2bit70");
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : isas_with_ahead()) {
    for (const auto& [first, second] : {std::pair{8, 16}, {16, 8}, {24, 48}, {16, 32}}) {
      Schedule schedule = ahead_schedule(p.spec, isa, first, 1);
      schedule.layers[1].hoist_block = second;
      INFO(schedule.to_json());
      CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
    }
  }
}

TEST_CASE("sums of the next block: a row that ends early is computed without them") {
  Problem p = make_problem("lstm:i5h19t40");
  p.lengths = {29};
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : isas_with_ahead()) {
    const Model model = compile(p, isa, ahead_schedule(p.spec, isa, 8, 1));
    CHECK(difference(run(p, model), expected) == "");
  }
}

}  // namespace
