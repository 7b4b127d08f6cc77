// SPDX-License-Identifier: Apache-2.0
#include "src/dag/phases.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "src/cells/cells.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/user_cells.hpp"

using deepcpu::Cell;
using deepcpu::CellBuilder;
using deepcpu::CellOptions;
using deepcpu::Count;
using deepcpu::count_schedules;
using deepcpu::Direction;
using deepcpu::Grain;
using deepcpu::MatmulDag;
using deepcpu::ModelSpec;
using deepcpu::PhasedSchedule;
using deepcpu::Poset;
using deepcpu::Value;

namespace {

Poset ordered(std::size_t size, const std::vector<std::pair<std::size_t, std::size_t>>& pairs) {
  Poset poset(size);
  for (const auto& [a, b] : pairs) poset.order(a, b);
  return poset;
}

MatmulDag dag_of(const char* name, const CellOptions& options = {}, bool projection = false) {
  return MatmulDag::build(deepcpu::find_cell(name)->build(options, projection).value());
}

/// Counts by trying every assignment of a part and a phase to every element.
std::uint64_t count_by_trial(const Poset& poset, const std::vector<bool>& hoistable) {
  const std::size_t n = poset.size();
  const std::size_t parts = hoistable.empty() ? 1 : 3;
  std::vector<std::size_t> place(n, 0);  // part * n + phase within the part
  std::uint64_t found = 0;
  for (;;) {
    bool valid = true;
    for (std::size_t a = 0; a < n && valid; ++a) {
      if (parts == 3 && place[a] < 2 * n && !hoistable[a]) valid = false;
      for (std::size_t b = 0; b < n; ++b) {
        if (poset.before[a][b] && place[a] >= place[b]) valid = false;
      }
      // Phases of a part are numbered from 0 without gaps.
      if (place[a] % n != 0 && std::find(place.begin(), place.end(), place[a] - 1) == place.end()) {
        valid = false;
      }
    }
    found += valid ? 1 : 0;
    std::size_t i = 0;
    while (i < n && ++place[i] == parts * n) place[i++] = 0;
    if (i == n) return found;
  }
}

/// A cell with `width` independent products on x and as many on h, each with an operand of its own.
Cell many_classes(int width) {
  CellBuilder b("many");
  const Value x = b.input("x");
  const Value h = b.state("h");
  Value sum = b.bias("bias");
  for (int i = 0; i < width; ++i) {
    const std::string id = std::to_string(i);
    sum = sum + b.matmul("w" + id, b.exp(x)) + b.matmul("u" + id, b.exp(h));
  }
  b.next(h, b.tanh(sum));
  b.output(h);
  return b.build().value();
}

}  // namespace

TEST_CASE("phases: an antichain has ordered Bell many schedules, a chain one") {
  const std::vector<std::uint64_t> bell = {1, 1, 3, 13, 75, 541, 4683, 47293, 545835};
  for (std::size_t n = 0; n < bell.size(); ++n) {
    CHECK(count_schedules(Poset(n)).value() == Count(bell[n]));
    Poset chain(n);
    for (std::size_t i = 1; i < n; ++i) chain.order(i - 1, i);
    CHECK(count_schedules(chain).value() == Count(1));
  }
  CHECK(count_schedules(Poset(20)).value().str() == "2677687796244384203115");
}

TEST_CASE("phases: small partial orders counted by hand") {
  CHECK(count_schedules(ordered(3, {{0, 2}, {1, 2}})).value() == Count(3));  // {0,1}, 0 1, 1 0
  CHECK(count_schedules(ordered(3, {{0, 1}, {0, 2}})).value() == Count(3));
  CHECK(count_schedules(ordered(3, {{0, 1}})).value() == Count(5));  // 2 in five places
  // Two chains: Delannoy numbers.
  CHECK(count_schedules(ordered(4, {{0, 1}, {2, 3}})).value() == Count(13));
  CHECK(count_schedules(ordered(5, {{0, 1}, {2, 3}, {3, 4}})).value() == Count(25));
  CHECK(count_schedules(ordered(6, {{0, 1}, {1, 2}, {3, 4}, {4, 5}})).value() == Count(63));
}

TEST_CASE("phases: counting agrees with trying every assignment") {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const std::size_t n = 1 + random() % 5;
    Poset poset(n);
    std::vector<bool> hoistable(n, false);
    for (std::size_t b = 0; b < n; ++b) {
      bool may = random() % 2 == 0;
      for (std::size_t a = 0; a < b; ++a) {
        if (random() % 3 != 0) continue;
        poset.order(a, b);
        may = may && hoistable[a];
      }
      hoistable[b] = may;
    }
    CHECK(count_schedules(poset).value() == Count(count_by_trial(poset, {})));
    if (n < 5) {
      CHECK(count_schedules(poset, hoistable).value() == Count(count_by_trial(poset, hoistable)));
    }
  }
}

TEST_CASE("phases: counting gives up when it is too much work") {
  CHECK_FALSE(count_schedules(Poset(8), {}, 20).has_value());
  CHECK_FALSE(count_schedules(Poset(5000)).has_value());
}

TEST_CASE("phases: the logarithm of the raw number") {
  for (const std::size_t n : {4U, 8U, 20U, 60U}) {
    CHECK(deepcpu::log10_fubini(static_cast<double>(n)) ==
          Approx(count_schedules(Poset(n)).value().log10()).epsilon(1e-4));
  }
  CHECK(deepcpu::log10_fubini(20) == Approx(21.427759939).epsilon(1e-9));
}

TEST_CASE("phases: counts are exact whole numbers") {
  Count power(1);
  for (int i = 0; i < 100; ++i) power = power * Count(2);
  CHECK(power.str() == "1267650600228229401496703205376");
  CHECK(power.log10() == Approx(100 * std::log10(2.0)));
  CHECK((Count(999999999) + Count(1)).str() == "1000000000");
  CHECK(Count(18446744073709551615ULL).str() == "18446744073709551615");
  CHECK(Count().str() == "0");
  CHECK(std::isinf(Count().log10()));
  CHECK((power * Count()).is_zero());
}

TEST_CASE("phases: one step of the built-in cells") {
  const auto products = [](const MatmulDag& dag) {
    return count_schedules(unroll(dag, 1, Direction::forward, 1, Grain::products)).value();
  };
  const auto classes = [](const MatmulDag& dag) {
    return count_schedules(unroll(dag, 1, Direction::forward, 1, Grain::classes)).value();
  };
  const MatmulDag lstm = dag_of("lstm");
  CHECK(products(lstm) == Count(545835));  // nothing depends on anything inside a step
  CHECK(classes(lstm) == Count(3));
  CHECK(count_schedules(lstm).value() == Count(5));  // x hoisted whole, in blocks, or these 3

  const MatmulDag gru = dag_of("gru", {{"reset", "before"}});
  // Three free products and two before a third.
  CHECK(products(gru) == Count(count_by_trial(ordered(6, {{0, 2}, {1, 2}}), {})));
  CHECK(classes(gru) == Count(3));
  CHECK(count_schedules(gru).value() == Count(5));

  const MatmulDag sru = MatmulDag::build(deepcpu::oracle::sru().value());
  CHECK(products(sru) == Count(13));
  CHECK(count_schedules(sru).value() == Count(3));
}

TEST_CASE("phases: dependences of an unrolled stack") {
  constexpr int kLayers = 3;
  constexpr int kSteps = 4;
  const MatmulDag dag = dag_of("lstm");
  for (const Direction direction : {Direction::forward, Direction::reverse}) {
    const Poset poset = unroll(dag, kLayers, direction, kSteps, Grain::classes);
    REQUIRE(poset.size() == 2 * kLayers * kSteps);
    const auto element = [](int layer, int t, int i) {
      return static_cast<std::size_t>((layer * kSteps + t) * 2 + i);
    };
    for (int from = 0; from < kLayers * kSteps * 2; ++from) {
      for (int to = 0; to < kLayers * kSteps * 2; ++to) {
        const int l0 = from / 2 / kSteps;
        const int l1 = to / 2 / kSteps;
        const int t0 = from / 2 % kSteps;
        const int t1 = to / 2 % kSteps;
        const int later = direction == Direction::forward ? t1 - t0 : t0 - t1;
        // The x product of (l, t) needs the cells (< l, <= t), the h product (<= l, < t).
        const bool needs = to % 2 == 0 ? l0 < l1 && later >= 0 : l0 <= l1 && later > 0;
        CHECK(poset.before[element(l0, t0, from % 2)][element(l1, t1, to % 2)] == needs);
      }
    }
  }
}

TEST_CASE("phases: both directions below are needed above") {
  const MatmulDag dag = dag_of("rnn");
  const Poset poset = unroll(dag, 2, Direction::bidirectional, 2, Grain::products);
  REQUIRE(poset.size() == 16);
  const auto element = [&](int layer, int direction, int t, const char* name) {
    std::size_t i = 0;
    while (dag.cell().parameters()[static_cast<std::size_t>(dag.nodes()[i].parameter)].name !=
           name) {
      ++i;
    }
    return static_cast<std::size_t>(((layer * 2 + direction) * 2 + t) * 2) + i;
  };
  const std::size_t above = element(1, 0, 0, "weight_ih");
  CHECK(poset.before[element(0, 0, 0, "weight_hh")][above]);
  CHECK(poset.before[element(0, 1, 0, "weight_hh")][above]);
  CHECK(poset.before[element(0, 1, 1, "weight_hh")][above]);        // through the reverse state
  CHECK_FALSE(poset.before[element(0, 0, 1, "weight_hh")][above]);  // the future, forward
}

TEST_CASE("phases: a skip around a layer carries dependences") {
  // sru's output holds its x, so layer 2 needs layer 0 even through element-wise operations.
  const MatmulDag dag = MatmulDag::build(deepcpu::oracle::sru().value());
  const Poset poset = unroll(dag, 3, Direction::forward, 1, Grain::classes);
  CHECK(poset.before[0][1]);
  CHECK(poset.before[0][2]);
  CHECK(poset.before[1][2]);
  CHECK_FALSE(poset.before[1][0]);
}

TEST_CASE("phases: every schedule is visited once, and each is valid") {
  const std::vector<MatmulDag> dags = {dag_of("lstm"),
                                       dag_of("lstm", {}, true),
                                       dag_of("gru", {{"reset", "before"}}),
                                       dag_of("augru"),
                                       MatmulDag::build(deepcpu::oracle::mgu().value()),
                                       MatmulDag::build(deepcpu::oracle::sru().value()),
                                       MatmulDag::build(deepcpu::oracle::skip().value()),
                                       MatmulDag::build(many_classes(2))};
  for (const MatmulDag& dag : dags) {
    INFO(dag.cell().to_text());
    std::set<std::string> seen;
    std::uint64_t visited = 0;
    CHECK(for_each_schedule(dag, [&](const PhasedSchedule& schedule) {
      CHECK(check_schedule(dag, schedule).ok());
      seen.insert(to_text(schedule));
      ++visited;
      return true;
    }));
    CHECK(seen.size() == visited);
    CHECK(count_schedules(dag).value() == Count(visited));
  }
}

TEST_CASE("phases: the schedules of lstm, in order") {
  std::vector<std::string> texts;
  for_each_schedule(dag_of("lstm"), [&](const PhasedSchedule& schedule) {
    texts.push_back(to_text(schedule));
    return true;
  });
  CHECK(texts == std::vector<std::string>{"whole {0} | step {1}", "block {0} | step {1}",
                                          "step {0 1}", "step {0} {1}", "step {1} {0}"});
}

TEST_CASE("phases: enumeration is lazy") {
  const MatmulDag dag = MatmulDag::build(many_classes(30));
  int visited = 0;
  CHECK_FALSE(for_each_schedule(dag, [&](const PhasedSchedule& schedule) {
    if (visited == 0) {
      CHECK(schedule.whole.size() == 1);
      CHECK(schedule.block.empty());
      CHECK(schedule.step.size() == 1);
    }
    return ++visited < 1000;
  }));
  CHECK(visited == 1000);
  CHECK(count_schedules(MatmulDag::build(many_classes(15))).value().log10() > 30.0);
}

TEST_CASE("phases: an invalid schedule is refused in one sentence") {
  const MatmulDag dag = dag_of("gru", {{"reset", "before"}});
  const auto sentence = [&](const PhasedSchedule& schedule) {
    const deepcpu::Status status = check_schedule(dag, schedule);
    return status.ok() ? "" : status.error().message();
  };
  CHECK(sentence({{{0}}, {}, {{1}, {2}}}).empty());
  CHECK(sentence({{{0}}, {}, {{1}}}) == "class 2: stands in no phase");
  CHECK(sentence({{{0}}, {{0}}, {{1}, {2}}}) == "class 0: stands in two phases");
  CHECK(sentence({{{0}}, {{1}}, {{2}}}) == "class 1: is time-dependent and cannot be hoisted");
  CHECK(sentence({{{0}}, {}, {{1, 2}}}) == "class 2: needs class 1 in an earlier phase");
  CHECK(sentence({{}, {}, {{1}, {2}, {0}}}) == "class 2: needs class 0 in an earlier phase");
  CHECK(sentence({{}, {}, {{3}}}) == "class 3: there are 3 classes");
}

TEST_CASE("phases: prints the numbers and the first schedules") {
  const ModelSpec spec = ModelSpec::parse("lstm:i8h16l2t10").value();
  CHECK(phases_text(MatmulDag::build(spec.cell), spec) ==
        "phases of lstm\n"
        "sequences of phases\n"
        "  160 products of all steps and layers, any order: 10^310.0\n"
        "  8 products of one step, any order: 545835\n"
        "  8 products of one step, valid: 545835\n"
        "  2 classes of one step, valid: 3\n"
        "  2 classes, valid, hoisted whole, in blocks or in the step: 5\n"
        "the first 20 of these (classes as in the MM-DAG)\n"
        "  whole {0} | step {1}\n"
        "  block {0} | step {1}\n"
        "  step {0 1}\n"
        "  step {0} {1}\n"
        "  step {1} {0}\n");
}
