// SPDX-License-Identifier: Apache-2.0
/// ScheduleSpace: sizes worked out by hand, what is visited, what is drawn.
#include "src/schedule/space.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "src/compile.hpp"
#include "src/dag/matmul_dag.hpp"
#include "src/dag/phases.hpp"
#include "src/schedule/check.hpp"
#include "tests/catch.hpp"
#include "tests/support/random_cells.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

/// A space and what it refers to.
struct Space {
  explicit Space(const std::string& problem, int threads = 1, Isa isa = Isa::avx512)
      : machine(test::round_machine()),
        work(ModelWork::of(test::parse_problem(problem).value(), isa, threads).value()),
        space(work, machine, threads) {}
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;

  MachineModel machine;
  ModelWork work;
  ScheduleSpace space;
};

/// The size of the valid space, then the sizes after each rule.
std::vector<std::string> sizes_of(const std::string& problem, int threads = 1) {
  const Space s(problem, threads);
  const SpaceSizes sizes = s.space.sizes();
  std::vector<std::string> out = {sizes.valid.str()};
  for (const PrunedSize& p : sizes.pruned) out.push_back(p.size.str());
  return out;
}

using Sizes = std::vector<std::string>;

// The rules in order: layers alike, gates fused, hoisted tiles of 4 rows or more, even tiles,
// blocks of 8 to 256 rows, sums ahead in short blocks, sweeps by useful groups, threads 1 2 4 ...
// cap.

TEST_CASE("space: sizes of an RNN by hand") {
  // 64 units are 4 blocks of 16. One gate with two partial sums: narrow panels of two blocks make
  // four sums, wide ones of four make eight. Two narrow panels: forward, or alternating by 1; one
  // wide panel, for which sweep and group mean nothing: 3. One gate: fused or not is the same: 1.
  // Hoisted: panels of two blocks, 4 accumulators, 31 / 5 = 6 rows at most. Blocks 0; 1, 2, 4 ...
  // 1024 steps: hoisted tiles 1; min(6, steps): 1 + (1 + 2 + 4 + 8 x 6) = 56. Hoisted tiles of 4 to
  // 6 rows: 1 + 1 + 1 + 1 + 8 x 3 = 28. Blocks 0, 8 ... 256: 1 + 6 x 3.
  // Sums ahead need blocks of 8, 16 ... 1024: 8 x 6 = 48 more, 8 x 3 = 24 with tiles of 4 to 6
  // rows, 6 x 3 = 18 up to 256; at last the blocks of 8 and 16 with the highest tile: 2.
  // (56 + 48) x 3, (28 + 24) x 3, (19 + 18) x 3, (19 + 2) x 3; sweeps: narrow panels alternate, the
  // wide one is walked forward: 21 x 2.
  CHECK(sizes_of("rnn:i16h64") ==
        Sizes{"312", "312", "312", "156", "156", "111", "63", "42", "42"});
}

TEST_CASE("space: sizes of an LSTM by hand") {
  // 4 gates x 1 block = 4 accumulators: 31 / 5 = 6 rows. Blocks and hoisted tiles as above: 104.
  // Fused: 4 narrow panels: forward, or alternating by 1 or 2 panels (4 is forward): 3; 2 wide
  // ones: forward, or alternating by 1: 2. Not fused: all four blocks of a gate make four sums and
  // are no more for eight, so only narrow: 3. 104 x (5 + 3) = 832. Fused: 104 x 5. Hoisted tiles of
  // 4 to 6 rows: 52 x 5 = 260. Blocks 8 to 256: 37 x 5 = 185, sums ahead in short ones: 21 x 5 =
  // 105. A narrow panel has 64 x 4 x 16 x 4 = 16384 bytes, a quarter of L1 8192, of L2 262144,
  // which 16 panels fill: by one panel only, narrow or wide: 21 x 2.
  CHECK(sizes_of("lstm:i16h64") ==
        Sizes{"832", "832", "520", "260", "260", "185", "105", "42", "42"});
  // Two threads: 2 narrow panels each: forward or alternating by 1: 2, or 1 wide one each: 1. Not
  // fused 2. 104 x 5 = 520, by flag or by data: 1040 more. Fused: 2 x 104 x 3 = 624 more, then 2 x
  // 52 x 3, 2 x 37 x 3, 2 x 21 x 3, and 2 x 21 x 2. parallel=hoist has the sweeps of one thread and
  // neither block 0 nor sums ahead: 55 x 8, then 55 x 5, 27 x 5, 18 x 5, 18 x 2 more.
  CHECK(sizes_of("lstm:i16h64", 2) ==
        Sizes{"2312", "2312", "1419", "707", "707", "497", "321", "162", "162"});
}

TEST_CASE("space: sizes of a GRU with two levels by hand") {
  // r and z: 2 gates x 2 blocks, n: one gate with two partial sums x 2 blocks: 2 panels; wide ones
  // have all four blocks. So as the RNN, but fused or not, since n gets wider either way: 2 times.
  CHECK(sizes_of("gru:i16h64,reset=before") ==
        Sizes{"624", "624", "312", "156", "156", "111", "63", "42", "42"});
}

TEST_CASE("space: sizes of two layers by hand") {
  // As one layer, the second without sums ahead: 312 x 168; alike: 312.
  CHECK(sizes_of("rnn:i16h64l2") ==
        Sizes{"52416", "312", "312", "156", "156", "111", "63", "42", "42"});
  // 2 threads: none by flag, none by data, wavefront of 1 + 1. Two that share a layer have a panel
  // of two blocks each, and a wide one would leave nothing to the other: 104 x 56, alike 104. So
  // 2 x 312 x 168 + 2 x 104 x 56; alike: 2 x 312 + 2 x 104, and so on: 2 x 42 + 2 x 21.
  CHECK(sizes_of("rnn:i16h64l2", 2) ==
        Sizes{"116480", "832", "832", "416", "416", "296", "168", "126", "126"});
  // 3 threads: none by flag and by data, 2 x 104 x 56 more; two groups of 1.5 do not exist.
  CHECK(sizes_of("rnn:i16h64l2", 3)[0] == "128128");
  // 4 threads: none x 2, a wavefront of 2 + 2 x 2: 4 x 104 x 56 more; alike 6 x 104 more than with
  // 2. Pruned: of 3 and 4 that share the two panels some would have none, so the wavefront x 2
  // remains: 2 x 21 more than with 2.
  CHECK(sizes_of("rnn:i16h64l2", 4) ==
        Sizes{"151424", "1456", "1456", "728", "728", "518", "294", "252", "168"});
}

TEST_CASE("space: sizes of both directions by hand") {
  // 1 thread, and 2 with directions of 1 + 1: 2 x 312; none x 2: 2 x 104.
  CHECK(sizes_of("rnn:i16h64bi", 2) ==
        Sizes{"832", "832", "832", "416", "416", "296", "168", "126", "126"});
  // A stack is no wavefront: its second layer needs both directions of the first one to the end.
  // So it has its input beforehand: 2 x 312 x 312 + 2 x 104 x 104.
  CHECK(sizes_of("rnn:i16h64l2bi", 2)[0] == "216320");
}

TEST_CASE("space: sizes of a batch by hand") {
  // Panels of two blocks: tiles of 1 to 4 rows, and forward or alternating by 1. Hoisted rows are
  // 4 x steps, tiles min(6, rows): 1 + 4 + 10 x 6 = 65. 4 x 2 x 65 = 520. Hoisted tiles of 4 to 6
  // rows: 1 + 1 + 10 x 3 = 32, x 8 = 256. Of the heights 2 and 3, which both make 2 tiles of 4
  // rows, the lower one, and 4: 2 x 2 x 32. 8 to 256 rows: 2, 4 ... 64 steps: 2 x 2 x 19.
  // No sums ahead and no wide panels with more than one row.
  CHECK(sizes_of("rnn:i16h64b4") ==
        Sizes{"520", "520", "520", "256", "128", "76", "76", "38", "38"});
  // Two threads: 520 for one. Units divided, by flag or by data: a panel each, so no sweep: 2 x 4 x
  // 65. parallel=hoist: 8 x the 64 that hoist. Rows divided, two each: tiles of 1 or 2, hoisted 1 +
  // 2 + 4 + 9 x 6: 2 x 2 x 61.
  CHECK(sizes_of("rnn:i16h64b4", 2)[0] == "1796");
  // Three rows go into as many parts as divide the threads.
  const Space three("rnn:i16h64b3", 6);
  std::set<std::pair<int, int>> divided;
  three.space.for_each_valid([&](const Schedule& s) {
    if (s.parallel == Parallel::none) divided.insert({s.threads, s.split_rows});
    return true;
  });
  CHECK(
      divided ==
      std::set<std::pair<int, int>>{
          {1, 1}, {2, 1}, {2, 2}, {3, 1}, {3, 3}, {4, 1}, {4, 2}, {5, 1}, {6, 1}, {6, 2}, {6, 3}});
}

TEST_CASE("space: sizes of a cell that fits registers by hand") {
  // One block, narrow or wide. k = 8, hoisted or not at most 8 + 2 <= 16 vectors: streamed or in
  // registers. A single partial sum (k < 16): tiles up to 6 rows: 56 x 2, and 48 with sums ahead,
  // which are streamed. Two threads: only streamed, by flag or by data, or 55 with parallel=hoist.
  CHECK(sizes_of("rnn:i2h8") == Sizes{"160", "160", "160", "80", "80", "56", "40", "40", "40"});
  CHECK(sizes_of("rnn:i2h8", 2)[0] == "423");
  // 8 lanes: 2 + 8 vectors exceed the 6 of AVX2: never.
  CHECK(Space("rnn:i2h8", 1, Isa::avx2).space.sizes().valid.str() == "56");
}

TEST_CASE("space: the raw size is the product of the rows") {
  const Count phases = *count_schedules(MatmulDag::build(test::parse_problem("rnn:i1h1")->cell));
  // 12 blocks x 2 (sums ahead or not) x 1 tile height x 6 hoisted heights x 2 kinds of panels x 2
  // sweeps x 2 groups x 2 places of the weights.
  CHECK(Space("rnn:i16h64").space.sizes().raw == phases * Count(2304));
  // 2 threads x 5 ways x (1 + 3) partitions x 2 exchanges x 2 starts.
  CHECK(Space("rnn:i16h64", 2).space.sizes().raw == phases * Count(2304 * 160));
  CHECK(Space("rnn:i16h64l2", 2).space.sizes().raw ==
        phases * Count(2304) * phases * Count(2304) * Count(160));
}

TEST_CASE("space: the table says what is emitted") {
  for (const char* problem : {"lstm:i16h64", "rnn:i2h8", "gru:i5h20l2bib4", "lstm:i3h40l3"}) {
    const Space s(problem, 4);
    const SpaceSizes sizes = s.space.sizes();
    for (const SpaceRow& row : sizes.rows) {
      INFO(problem << " " << row.name);
      CHECK(row.emitted >= 1);
      CHECK_FALSE(row.reason.empty());
      CHECK(std::stoull(row.raw.str()) >= row.emitted);
      if (!row.not_emitted.empty()) CHECK(std::stoull(row.raw.str()) > row.emitted);
    }
  }
}

std::vector<Schedule> collect(const ScheduleSpace& space, bool pruned) {
  std::vector<Schedule> out;
  const auto visit = [&](const Schedule& s) {
    out.push_back(s);
    return true;
  };
  pruned ? space.for_each(visit) : space.for_each_valid(visit);
  return out;
}

std::set<std::string> texts(const std::vector<Schedule>& schedules) {
  std::set<std::string> out;
  for (const Schedule& s : schedules) out.insert(s.to_json());
  return out;
}

/// The first error or note of compiling a schedule; empty if there is none. How long code is shows
/// when it is emitted: a large random cell may be too long for high tiles.
std::string complaint(const ModelSpec& spec, const Schedule& schedule) {
  if (auto status = check_schedule(schedule, spec.hidden.size()); !status) {
    return status.error().message();
  }
  CompileOptions options;
  options.threads = schedule.threads;
  options.schedule = schedule;
  const auto compiled = compile_program(spec, options);
  if (!compiled) return compiled.error().message();
  const auto& notes = compiled->notes;
  const bool long_code =
      !notes.empty() && notes.front().find("bytes of code, at most") != std::string::npos;
  return notes.empty() || (spec.cell.name().starts_with("random") && long_code) ? ""
                                                                                : notes.front();
}

TEST_CASE("space: what is visited is what was counted, each once, and the pruned are valid") {
  for (const char* problem :
       {"rnn:i16h64", "lstm:i16h64", "gru:i16h64,reset=before", "rnn:i2h8", "rnn:i16h64b4",
        "rnn:i16h64bi", "rnn:i3h5l2", "rnn:i3h33/7", "rnn:i3h7/33b2", "gru:i4h40"}) {
    for (const int threads : {1, 2, 3}) {
      INFO(problem << " threads " << threads);
      const Space s(problem, threads);
      const SpaceSizes sizes = s.space.sizes();
      const auto valid = collect(s.space, false);
      const auto pruned = collect(s.space, true);
      CHECK(sizes.valid == Count(valid.size()));
      CHECK(sizes.pruned.back().size == Count(pruned.size()));
      const auto all = texts(valid);
      const auto few = texts(pruned);
      CHECK(all.size() == valid.size());
      CHECK(few.size() == pruned.size());
      CHECK(std::includes(all.begin(), all.end(), few.begin(), few.end()));
    }
  }
}

TEST_CASE("space: rules never add, and a visit ends when it is told to") {
  const auto as_number = [](const std::string& s) { return std::stoull(s); };
  for (const char* problem : {"lstm:i16h64", "gru:i5h20l2b4", "rnn:i3h33/7bi"}) {
    const auto sizes = sizes_of(problem, 4);
    for (std::size_t i = 1; i < sizes.size(); ++i) {
      CHECK(as_number(sizes[i]) <= as_number(sizes[i - 1]));
    }
    CHECK(as_number(sizes.back()) > 0);
  }
  const Space s("lstm:i16h64", 2);
  int visits = 0;
  const auto third = [&](const Schedule&) { return ++visits < 3; };
  CHECK_FALSE(s.space.for_each(third));
  CHECK(visits == 3);
  visits = 0;
  CHECK_FALSE(s.space.for_each_valid(third));
  CHECK(visits == 3);
}

TEST_CASE("space: every valid schedule of small spaces is compiled without a note") {
  const Isa isa = host_isa();
  if (isa == Isa::interpreter) return;
  for (const char* problem : {"lstm:i3h33", "gru:i3h20b3,reset=before", "rnn:i2h4", "rnn:i3h5bi"}) {
    const Space s(problem, 2, isa);
    std::set<std::string> complaints;
    for (const Schedule& each : collect(s.space, false)) {
      complaints.insert(complaint(s.work.spec, each));
    }
    INFO(problem);
    CHECK(complaints == std::set<std::string>{""});
  }
}

TEST_CASE("space: schedules drawn for random problems are compiled without a note") {
  const Isa isa = host_isa();
  if (isa == Isa::interpreter) return;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const std::string problem = test::random_problem(seed);
    const Space s(problem, 4, isa);
    test::Random random(seed);
    const auto next = [&](std::uint64_t n) { return random.next() % n; };
    for (int i = 0; i < 4; ++i) {
      const Schedule drawn = s.space.sample(next);
      INFO(problem << " " << drawn.to_json());
      CHECK(complaint(s.work.spec, drawn) == "");
    }
  }
}

TEST_CASE("space: the pruned schedules of random problems are compiled without a note") {
  const Isa isa = host_isa();
  if (isa == Isa::interpreter) return;
  for (std::uint64_t seed = 100; seed < 120; ++seed) {
    const std::string problem = test::random_problem(seed);
    const Space s(problem, 4, isa);
    int n = 0;
    s.space.for_each([&](const Schedule& each) {
      if (n++ % 37 != 0) return true;
      INFO(problem << " " << each.to_json());
      CHECK(complaint(s.work.spec, each) == "");
      return true;
    });
  }
}

TEST_CASE("space: draws are even") {
  // 832 schedules, 200 draws expected of each. The statistic has 831 degrees of freedom: mean 831,
  // standard deviation 40.8; six of them either way.
  const Space s("rnn:i16h64bi", 2);
  test::Random random(7);
  const auto next = [&](std::uint64_t n) { return random.next() % n; };
  std::map<std::string, double> seen;
  for (const std::string& text : texts(collect(s.space, false))) seen[text] = 0.0;
  REQUIRE(seen.size() == 832);
  constexpr int kDraws = 832 * 200;
  for (int i = 0; i < kDraws; ++i) seen[s.space.sample(next).to_json()] += 1.0;
  REQUIRE(seen.size() == 832);
  double statistic = 0.0;
  for (const auto& [text, count] : seen) statistic += (count - 200.0) * (count - 200.0) / 200.0;
  CHECK(statistic > 586.0);
  CHECK(statistic < 1076.0);
}

TEST_CASE("space: a stack of 400 layers can be counted and drawn from") {
  // 168^400 = 10^890 exceeds every double.
  const Space s("rnn:i16h64l400", 2);
  CHECK(s.space.sizes().valid.log10() > 880.0);
  test::Random random(3);
  std::set<int> threads;
  for (int i = 0; i < 20; ++i) {
    const Schedule drawn = s.space.sample([&](std::uint64_t n) { return random.next() % n; });
    CHECK(check_schedule(drawn, 400).ok());
    threads.insert(drawn.threads);
  }
  CHECK(threads == std::set<int>{1, 2});
}

TEST_CASE("space: every part of a wavefront has equally many threads") {
  for (const int threads : {2, 3, 4, 5, 6, 7, 8}) {
    const Space s("rnn:i3h5l3", threads);
    s.space.for_each([&](const Schedule& each) {
      const Program program = Program::build(s.work.spec, each);
      CHECK(program.participants == each.threads);
      return true;
    });
  }
}

}  // namespace
}  // namespace deepcpu
