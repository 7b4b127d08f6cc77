// SPDX-License-Identifier: Apache-2.0
/// Gates that share the vectors of the last unit block change no bit: every width from one vector
/// to two, one row and tiles of several, pieces of k, sums from biases and from hoisted rows, gates
/// fused or not, weights in registers, threads, cells with one and with several levels.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "src/compile.hpp"
#include "tests/catch.hpp"
#include "tests/property/harness.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

struct Form {
  int hoist_block = 0;
  int tile_rows = 1;
  bool fuse_gates = true;
  Panel panel = Panel::narrow;
  int threads = 1;
  Residency weights = Residency::streamed;
};

constexpr Form kForms[] = {
    {0, 1, true, Panel::narrow, 1}, {0, 6, true, Panel::wide, 1},   {0, 3, false, Panel::narrow, 1},
    {4, 2, true, Panel::narrow, 1}, {4, 6, false, Panel::wide, 1},  {16, 4, true, Panel::wide, 1},
    {4, 2, true, Panel::narrow, 2}, {0, 3, true, Panel::narrow, 2},
};

Schedule schedule_of(const ModelSpec& spec, Isa isa, const Form& form) {
  Schedule schedule;
  schedule.isa = isa;
  schedule.threads = form.threads;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    LayerSchedule one;
    one.hoist_block = form.hoist_block;
    one.tile_rows = one.hoist_rows = form.tile_rows;
    one.fuse_gates = form.fuse_gates;
    one.panel = form.panel;
    one.weights = form.weights;
    schedule.layers.push_back(one);
  }
  return schedule;
}

/// The plans of the first layer in which sums of a stage share vectors: the time loop, what is
/// hoisted, and whether a product of such a stage is cut into pieces.
struct Shared {
  bool step = false;
  bool hoist = false;
  bool pieces = false;
};

Shared shared(const ModelSpec& spec, const Schedule& schedule) {
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  const Compilation c = compile_program(spec, options).value();
  Shared out;
  const auto look_at = [&](const jit::KernelPlan& plan, bool& found) {
    for (const jit::Stage& s : plan.stages) {
      if (s.places.empty()) continue;
      found = true;
      for (const jit::Product& p : s.products) out.pieces = out.pieces || p.k_block > 0;
      // Sums are moved to vectors of their own from the last one on.
      for (std::size_t g = 0; g < s.places.size(); ++g) {
        CHECK(s.places[g].host <= g);
        CHECK(s.places[g].next <= g);
      }
    }
  };
  look_at(c.layers.front().step.bound.plan, out.step);
  if (c.layers.front().hoist) look_at(c.layers.front().hoist->bound.plan, out.hoist);
  return out;
}

void check(const std::string& text, const Form& form, const std::vector<Isa>& isas = host_isas()) {
  const Problem p = make_problem(text);
  const Outcome expected = run(p, compile(p, Isa::interpreter));
  for (const Isa isa : isas) {
    const Schedule schedule = schedule_of(p.spec, isa, form);
    INFO(text << " " << schedule.to_json());
    CHECK(difference(run(p, compile(p, isa, schedule)), expected) == "");
  }
}

TEST_CASE("shared gates: no bit changes") {
  for (const char* text :
       {"lstm:i40h36b7t3", "lstm:i24h20p12b5t3,peephole=1", "lstm:i36h36l2bib2t4",
        "lstm:i33h40t5,coupled=1", "gru:i33h40b7t3,reset=before", "gru:i50h100b3t2",
        "augru:i21h68b2t3", "lstm:i70h8b4t3", "lstm:i20h260b13t2", "lstm:i9h12b3t5",
        "lstm:i40h10b3t4", "lstm:i30h27b5t3,peephole=1", "lstm:i21h44l2bib2t3"}) {
    const Problem p = make_problem(text);
    const bool avx2_only = std::string(text).find("h12") != std::string::npos;
    CHECK(shared(p.spec, schedule_of(p.spec, Isa::interpreter, kForms[3])).step != avx2_only);
    CHECK(shared(p.spec, schedule_of(p.spec, Isa::interpreter, kForms[3])).hoist != avx2_only);
    for (const Form& form : kForms) check(text, form);
  }
}

TEST_CASE("shared gates: hoisted sums that the time loop takes one by one") {
  for (const char* text : {"gru:i50h26b3t2", "gru:i40h10b7t5", "gru:i21h41l2bib2t3"}) {
    const Problem p = make_problem(text);
    const Shared found = shared(p.spec, schedule_of(p.spec, Isa::interpreter, kForms[3]));
    CHECK(found.hoist);
    CHECK_FALSE(found.step);
    for (const Form& form : kForms) check(text, form);
  }
}

/// Gates a cell may have: each is what is multiplied and whether it has a bias.
struct Gate {
  int of_x = 1;  ///< products of x
  bool of_h = true;
  bool bias = true;
};

/// h' is the tanh of the product of pairs of gates, added up.
Cell cell_of(const std::string& name, const std::vector<Gate>& gates) {
  CellBuilder b(name);
  const Value x = b.input("x");
  const Value h = b.state("h");
  std::vector<Value> sums;
  for (std::size_t g = 0; g < gates.size(); ++g) {
    const auto n = std::to_string(g);
    std::vector<Value> terms;
    for (int i = 0; i < gates[g].of_x; ++i) {
      terms.push_back(b.matmul("w" + n + "_" + std::to_string(i), x));
    }
    if (gates[g].of_h) terms.push_back(b.matmul("u" + n, h));
    if (gates[g].bias) terms.push_back(b.bias("b" + n));
    Value sum = terms.front();
    for (std::size_t t = 1; t < terms.size(); ++t) sum = sum + terms[t];
    sums.push_back(b.sigmoid(sum));
  }
  Value next = sums.front();
  for (std::size_t g = 1; g < sums.size(); ++g) {
    next = g % 2 == 1 ? next * sums[g] : next + sums[g];
  }
  const Value out = b.tanh(next);
  b.next(h, out);
  b.output(out);
  return b.build().value();
}

TEST_CASE("shared gates: cells of other forms") {
  const Gate both;
  const Gate unbiased{1, true, false};
  const Gate of_x{1, false, true};
  const Gate of_h{0, true, false};
  const std::vector<std::pair<std::string, std::vector<Gate>>> cells = {
      {"shared_mixed_bias", {both, unbiased, both, unbiased, both, unbiased}},
      {"shared_two_of_x", {both, {2, true, true}, both, {2, true, true}}},
      {"shared_ten", std::vector<Gate>(10, both)},
      {"shared_apart", {both, of_x, both, of_h}},
      {"shared_of_x", {of_x, of_x, of_x, of_h}},
      {"shared_unbiased", {unbiased, unbiased, unbiased, unbiased}}};
  for (const auto& [name, gates] : cells) {
    REQUIRE(register_cell(cell_of(name, gates)).ok());
    for (const char* sizes : {":i9h20b3t2", ":i9h26b2t3", ":i40h10t3", ":i9h28t2"}) {
      const Problem p = make_problem(name + sizes);
      const Shared found = shared(p.spec, schedule_of(p.spec, Isa::interpreter, kForms[3]));
      if (p.spec.hidden[0] == 20) CHECK((found.step || found.hoist));
      for (const Form& form : kForms) check(p.text, form);
    }
  }
}

TEST_CASE("shared gates: pieces of k") {
  const Problem p = make_problem("lstm:i20h260b13t2");
  for (const Form& form : {Form{0, 4}, Form{2, 6}, Form{2, 3, true, Panel::narrow, 2}}) {
    CHECK(shared(p.spec, schedule_of(p.spec, Isa::interpreter, form)).pieces);
    check(p.text, form);
  }
}

TEST_CASE("shared gates: every width") {
  for (int hidden = 1; hidden <= 33; ++hidden) {
    const std::string sizes = "i35h" + std::to_string(hidden);
    for (const Form& form : {kForms[0], kForms[3], kForms[4]}) {
      check("lstm:" + sizes + "b3t2", form);
      check("lstm:" + sizes + "t2", form);
      check("gru:" + sizes + "t3", form);
    }
  }
}

void check_registers(const std::string& text, Isa isa) {
  if (isa > host_isas().back()) return;
  const Form form{16, 1, true, Panel::narrow, 1, Residency::registers};
  const Problem p = make_problem(text);
  const Schedule schedule = schedule_of(p.spec, isa, form);
  CHECK(shared(p.spec, schedule).step);
  check(text, form, {isa});
}

TEST_CASE("shared gates: weights in registers") {
  check_registers("lstm:i64h8t5", Isa::avx512);  // 8 steps over k of two vectors
  check_registers("lstm:i64h3t5", Isa::avx2);    // 3 steps of two
}

}  // namespace
