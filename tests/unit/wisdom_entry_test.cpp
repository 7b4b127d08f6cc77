// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_entry.hpp"

#include "src/cells/cell_hash.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/system.hpp"
#include "src/model/problem.hpp"
#include "tests/catch.hpp"
#include "tests/support/wisdom_entries.hpp"

namespace deepcpu {
namespace {

std::string hash_of(std::string_view problem) {
  return hash_text(cell_hash(ModelSpec::parse(problem).value().cell));
}

/// A minimal gated unit with names and constants of choice.
Cell unit(const std::string& p, float slope = 0.01F, bool shared_bias = false) {
  CellBuilder b(p + "cell");
  const Value x = b.input(p + "x");
  const Value h = b.state(p + "h");
  const Value bias = b.bias(p + "bf");
  const Value f = b.sigmoid(bias + b.matmul(p + "wf", x) + b.matmul(p + "uf", h));
  const Value other = shared_bias ? bias : b.bias(p + "bn");
  const Value n = b.leaky_relu(other + b.matmul(p + "wn", x) + b.matmul(p + "un", f * h), slope);
  const Value next = h + f * (n - h);
  b.next(h, next);
  b.output(b.named(p + "out", next));
  return b.build().value();
}

TEST_CASE("cell hash: the same in every version and on every machine") {
  CHECK(hash_of("lstm:i8h8") == "5f6c9ac33dc82687");
  CHECK(hash_of("gru:i8h8") == "9c88883aacbfc3ed");
  CHECK(hash_of("rnn:i8h8") == "2194c9e3802b9255");
}

TEST_CASE("cell hash: structure counts, names and sizes do not") {
  CHECK(cell_hash(unit("a")) == cell_hash(unit("b")));
  CHECK(cell_hash(unit("a")) != cell_hash(unit("a", 0.02F)));
  CHECK(cell_hash(unit("a")) != cell_hash(unit("a", 0.01F, true)));
  CHECK(hash_of("lstm:i8h8") == hash_of("lstm:i40h256l3bib4"));
  CHECK(hash_of("lstm:i8h8") != hash_of("lstm:i8h8,peephole=1"));
  CHECK(hash_of("lstm:i8h8") != hash_of("lstm:i8h8p4"));
  CHECK(hash_of("lstm:i8h8,clip=3") != hash_of("lstm:i8h8,clip=4"));
  CHECK(hash_of("gru:i8h8") != hash_of("gru:i8h8,reset=before"));
}

TEST_CASE("shape: a problem string whose cell need not be known, without b and t") {
  const auto shape = parse_shape("nobody:i40h512/256bip8,z=1,a=2");
  REQUIRE(shape.ok());
  CHECK(shape->cell == "nobody");
  CHECK(shape_text(shape->cell, shape->spec) == "nobody:i40h512/256p8bi,a=2,z=1");
  CHECK_FALSE(shape->has_batch);
  CHECK_FALSE(shape->has_steps);
  CHECK(parse_shape("nobody:i4h4b2").value().has_batch);
  CHECK(parse_shape("nobody:i4h4t2").value().has_steps);
  CHECK(parse_shape("nobody:i4").error().message() == "hidden: is missing (h and a number)");
  CHECK(parse_shape("nobody:i0h4").error().message() == "input=0: must be between 1 and 1048576");
  CHECK(parse_shape("nobody:i4h4/0").error().message() ==
        "hidden=0: must be between 1 and 1048576");
  for (const char* text : {"lstm:i4h4", "gru:i4h5/6bi,reset=before", "lstm:i4h8l3p2rev"}) {
    const ModelSpec spec = ModelSpec::parse(text).value();
    CHECK(shape_text(spec.cell.name(), spec) == text);
  }
}

TEST_CASE("wisdom key: classes of batches") {
  for (const auto& [batch, text] :
       {std::pair{1, "1"}, {2, "2-4"}, {4, "2-4"}, {5, "5-16"}, {16, "5-16"}, {17, "17+"}}) {
    CHECK(batch_class(batch).text == text);
  }
  CHECK(batch_class(1024).text == "17+");
}

TEST_CASE("wisdom key: classes of steps") {
  for (const auto& [steps, text] :
       {std::pair{0, "1"}, {1, "1"}, {2, "2-15"}, {15, "2-15"}, {16, "16+"}, {100, "16+"}}) {
    CHECK(step_class(steps).text == text);
  }
  CHECK(step_class(INT32_MAX).text == "16+");
}

TEST_CASE("wisdom key: equal for equal problems, whatever t in its class and the name are") {
  const auto id = [](const char* problem, int threads = 1, Isa isa = machine().isa) {
    return WisdomKey::of(ModelSpec::parse(problem).value(), threads, isa).id();
  };
  const std::string base = id("lstm:i8h16b3t100");
  CHECK(base == id("lstm:h16i8b2t16"));
  for (const char* other : {"lstm:i8h16b1", "lstm:i8h16b5", "lstm:i9h16b3", "lstm:i8h16b3l2",
                            "lstm:i8h16b3bi", "lstm:i8h16b3rev", "lstm:i8h16b3,coupled=1",
                            "lstm:i8h16b3p4", "gru:i8h16b3", "lstm:i8h16b3t1", "lstm:i8h16b3t15"}) {
    CHECK(base != id(other));
  }
  CHECK(base != id("lstm:i8h16b3", 2));
  if (machine().isa != Isa::interpreter) CHECK(base != id("lstm:i8h16b3", 1, Isa::interpreter));
  Machine other = machine();
  ++other.stepping;
  const ModelSpec spec = ModelSpec::parse("lstm:i8h16b3").value();
  CHECK(base != WisdomKey::of(spec, 1, other.isa, other).id());
  const auto named = [](const char* name) {
    return WisdomKey::of(ModelSpec::make(unit(name), {.input = 8, .hidden = {16}}).value(), 1,
                         machine().isa)
        .id();
  };
  CHECK(named("a") == named("b"));
}

TEST_CASE("wisdom: an entry made of what tuning found is found by a compile with the same caps") {
  const ModelSpec spec = ModelSpec::parse("gru:i8h16b3t7").value();
  TuneOptions options;
  options.effort = Effort::estimate;
  options.threads = 1024;
  TuneResult found;
  found.schedule = test::wisdom_entry("gru:i8h16b3").schedule;
  found.predicted_us = 12.5;
  found.steps = 7;
  found.candidates.resize(3);
  const WisdomEntry e = tuned_entry(spec, options, found);
  CHECK(e.key.threads == usable_threads(static_cast<int>(affinity().size()), machine().cpu_quota));
  CHECK(e.key.id() == WisdomKey::of(spec, e.key.threads, host_isa()).id());
  CHECK(e.schedule == found.schedule);
  CHECK(e.predicted_us == 12.5);
  CHECK(e.steps == 7);
  CHECK(e.rows == 3);
  CHECK(e.candidates == 3);
  CHECK(e.effort == Effort::estimate);
  found.measured_us = 10.0;
  found.effort = Effort::measure;
  for (const int i : {0, 1, 2})
    found.candidates[static_cast<std::size_t>(i)].measured.rounds = i + 2;
  CHECK(tuned_entry(spec, options, found).candidates == 2);  // two rounds are no evidence
  found.measured_us = 0.0;
  MachineModel elsewhere = MachineModel::estimate(Machine{});
  elsewhere.key = "v1:elsewhere";
  elsewhere.cores = 6;
  options.machine = &elsewhere;
  options.isa = Isa::interpreter;
  const WisdomEntry other = tuned_entry(spec, options, found);
  CHECK(other.key.machine == "v1:elsewhere");
  CHECK(other.key.threads == 6);
  CHECK(other.key.isa.has_value() == (elsewhere.isas.back().isa > Isa::interpreter));
}

TEST_CASE("machine: threads that processors and a quota can run at once") {
  CHECK(usable_threads(8, 0.0) == 8);
  CHECK(usable_threads(8, 2.7) == 2);
  CHECK(usable_threads(8, 0.3) == 1);
  CHECK(usable_threads(2, 1e300) == 2);
  CHECK(usable_threads(0, 0.0) == 1);
}

TEST_CASE("wisdom: which evidence is better") {
  const WisdomEntry base = test::wisdom_entry("lstm:i8h8");
  const auto with = [&](const auto& change) {
    WisdomEntry e = base;
    change(e);
    return e;
  };
  const auto hand = with([](auto& e) { e.effort.reset(), e.measured_us = 0, e.candidates = 0; });
  const auto estimate = with([](auto& e) { e.effort = Effort::estimate, e.measured_us = 0; });
  const auto more = with([](auto& e) { e.candidates = 21, e.measured_us = 200; });
  const auto faster = with([](auto& e) { e.measured_us = 99; });
  const auto longer = with([](auto& e) { e.measured_us = 190, e.steps = 200; });
  const auto exhaustive =
      with([](auto& e) { e.effort = Effort::exhaustive, e.candidates = 2, e.measured_us = 300; });
  const std::vector<WisdomEntry> ascending{estimate, hand, base, faster, longer, more, exhaustive};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      CHECK(better_evidence(ascending[i], ascending[j]) == (i > j));
    }
  }
}

}  // namespace
}  // namespace deepcpu
