// SPDX-License-Identifier: Apache-2.0
/// Limit: one by hand, and that neither more threads nor a prediction get below it.
#include "src/tune/limit.hpp"

#include <algorithm>
#include <string>

#include "src/machine/saved_calibration.hpp"
#include "src/schedule/space.hpp"
#include "src/tune/cost_model.hpp"
#include "tests/catch.hpp"
#include "tests/support/random_cells.hpp"
#include "tests/support/round_machine.hpp"

namespace deepcpu {
namespace {

ModelWork work_of(const std::string& problem, Isa isa) {
  return ModelWork::of(test::parse_problem(problem).value(), isa).value();
}

TEST_CASE("limit: an LSTM by hand") {
  const MachineModel m = test::round_machine();
  const ModelWork work = work_of("lstm:i64h64", Isa::avx512);
  // FLOPs of a step: 2 x 4 x 64 x 64 = 32768, and 65 vector operations (3 sigmoids of 12, 2 tanh of
  // 13, 3 others) x 4 blocks x 32 = 8320: 41088 at 128 GFLOP/s = 0.321 us.
  // Bytes of a step: 65536, half at 256 GB/s, half at 64: 0.128 + 0.512 = 0.640 us.
  // Chain: 5 + 64 x 4 + 124 cycles (work_test) at 4 GHz = 0.09625 us.
  // Hoisted: 100 x 32768 FLOPs = 25.6 us, more than reading 65536 bytes.
  const Limit one = limit_of(work, m, 100, 1);
  CHECK(one.threads == 1);
  CHECK(one.flops_us == Approx(32.1));
  CHECK(one.bytes_us == Approx(64.0));
  CHECK(one.chain_us == Approx(9.625));
  CHECK(one.hoist_us == Approx(25.6));
  CHECK(one.exchange_us == 0.0);
  CHECK(one.us == Approx(64.0 + 25.6));
  // Two threads: 32768 bytes each, all in L1: 0.128 us; FLOPs 0.1605 us; 50 ns of exchange.
  const Limit two = limit_of(work, m, 100, 2);
  CHECK(two.threads == 2);
  CHECK(two.us == Approx(16.05 + 12.8 + 5.0));
  // Four: the chain of 0.09625 us exceeds 0.08025 us of FLOPs; no fewer exchanges.
  CHECK(limit_of(work, m, 100, 4).us == Approx(9.625 + 6.4 + 5.0));
  // There are no more cores than four.
  CHECK(limit_of(work, m, 100, 64).us == limit_of(work, m, 100, 4).us);
}

TEST_CASE("limit: parts of the batch rows exchange nothing, but read all weights") {
  const MachineModel m = test::round_machine();
  const auto limit = [&](int rows, int threads) {
    return limit_of(work_of("lstm:i64h64b" + std::to_string(rows), Isa::avx512), m, 100, threads);
  };
  const Limit two = limit(16, 2);
  CHECK(two.exchange_us == 0.0);
  CHECK(two.us == Approx(limit(8, 1).us));
  // Of two rows each part would read 65536 bytes for one: more than half of them and an exchange.
  CHECK(limit(2, 2).exchange_us == Approx(5.0));
  // Of 15 rows one part has eight, 461.6 us. Units divided: 15 x 41088 FLOPs on two cores 2.4075 us
  // a step, hoisted 15 x 3276800 FLOPs 192 us, and the exchange.
  CHECK(limit(15, 2).us == Approx(240.75 + 192.0 + 5.0));
}

TEST_CASE("limit: directions and layers on cores of their own exchange nothing") {
  const MachineModel m = test::round_machine();
  const double alone = limit_of(work_of("lstm:i64h64", Isa::avx512), m, 100, 1).us;
  const Limit both = limit_of(work_of("lstm:i64h64bi", Isa::avx512), m, 100, 2);
  CHECK(both.us <= Approx(alone));
  const Limit stack = limit_of(work_of("lstm:i64h64l2", Isa::avx512), m, 100, 2);
  CHECK(stack.us <= Approx(alone));
  // Where exchanges rule, two groups of two beat four that share everything.
  MachineModel slow = m;
  slow.exchange_ns = 1000;
  const Limit four = limit_of(work_of("lstm:i256h256l2", Isa::avx512), slow, 100, 4);
  CHECK(four.exchange_us == Approx(100.0));
}

TEST_CASE("limit: grows with steps, shrinks with threads") {
  const MachineModel m = test::round_machine();
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const std::string problem = test::random_problem(seed);
    const ModelWork work = work_of(problem, seed % 2 == 0 ? Isa::avx512 : Isa::avx2);
    INFO(problem);
    double before = limit_of(work, m, 100, 1).us;
    CHECK(before > 0.0);
    CHECK(limit_of(work, m, 50, 1).us < before);
    for (int threads = 2; threads <= 6; ++threads) {
      const Limit limit = limit_of(work, m, 100, threads);
      CHECK(limit.us <= before);
      CHECK(limit.threads <= threads);
      before = limit.us;
    }
  }
}

TEST_CASE("limit: the floor has the multiply-adds of hoisted products inside the time loop") {
  const MachineModel m = test::round_machine();
  // U of lstm i256h256 is 1 MiB: 16.384 us at L2's rate but for 32 KiB from L1 (0.384 us less), in
  // which there is room for 4.096 us of its own and 4.096 us of W's multiply-adds.
  const Limit l = limit_of(work_of("lstm:i256h256", Isa::avx512), m, 100, 1);
  CHECK(l.floor_us == Approx(l.bytes_us));
  CHECK(l.us == Approx(l.bytes_us + l.hoist_us));
  // A batch of 16 has no room: its multiply-adds add up.
  const Limit b = limit_of(work_of("lstm:i256h256b16", Isa::avx512), m, 100, 1);
  CHECK(b.floor_us == Approx(b.flops_us + b.hoist_us));
  CHECK(b.floor_us == Approx(b.us));
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const ModelWork work = work_of(test::random_problem(seed), Isa::avx512);
    for (int threads = 1; threads <= 4; ++threads) {
      const Limit any = limit_of(work, m, 100, threads);
      CHECK(any.floor_us <= any.us * 1.000001);
      CHECK(any.floor_us > 0.0);
    }
  }
}

TEST_CASE("limit: the floor of two threads knows hoisted products beside a loop on one core") {
  MachineModel far = test::round_machine();
  far.exchange_ns = 1e5;  // nobody would divide a step
  for (const char* problem : {"lstm:i64h64", "lstm:i1024h64", "gru:i64h64"}) {
    const ModelWork work = work_of(problem, Isa::avx512);
    const Limit one = limit_of(work, far, 100, 1);
    const Limit two = limit_of(work, far, 100, 2);
    INFO(problem);
    CHECK(two.us == Approx(one.us));
    CHECK(two.floor_us == Approx(std::max(one.us - one.hoist_us, one.us / 2)));
  }
}

TEST_CASE("limit: a shared level serves an alternating walk at least what it serves a plain one") {
  const ModelWork work = work_of("lstm:i64h1024", Isa::avx512);  // U of 16 MiB
  const MachineModel m = test::round_machine();
  MachineModel odd = m;
  for (IsaModel& isa : odd.isas) isa.levels[2].alternating_bytes = 8 << 20;
  CHECK(limit_of(work, odd, 100, 1).us == Approx(limit_of(work, m, 100, 1).us));
  for (IsaModel& isa : odd.isas) isa.levels[2].forward_bytes = 8 << 20;
  CHECK(limit_of(work, odd, 100, 1).us > 1.2 * limit_of(work, m, 100, 1).us);
}

/// No schedule may be predicted to be faster than the limit of its number of threads.
void check_above(const std::string& problem, Isa isa, const MachineModel& m, std::uint64_t seed) {
  const ModelWork work = ModelWork::of(test::parse_problem(problem).value(), isa, 4).value();
  const CostModel model(m, isa);
  const ScheduleSpace space(work, m, 4);
  test::Random random(seed);
  for (int i = 0; i < 12; ++i) {
    const Schedule s = space.sample([&](std::uint64_t n) { return random.next() % n; });
    const Limit both = limit_of(work, m, 100, s.threads);
    const bool ahead = std::any_of(s.layers.begin(), s.layers.end(),
                                   [](const LayerSchedule& l) { return l.hoist_ahead; });
    const bool overlaps = ahead || s.parallel == Parallel::hoist;
    const double limit = overlaps ? both.floor_us : both.us;
    INFO(problem << " " << s.to_json());
    CHECK(model.predict(work, s, 100).us >= 0.98 * limit);
  }
}

TEST_CASE("limit: no prediction is below it") {
  const MachineModel machines[] = {
      test::round_machine(),
      MachineModel::from(
          load_calibration(DEEPCPU_SOURCE_DIR "/bench/machines/xeon-e5-2650v4.json").value()),
  };
  for (const MachineModel& m : machines) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      check_above(test::random_problem(seed), seed % 2 == 0 ? Isa::avx512 : Isa::avx2, m, seed);
    }
    for (const char* problem :
         {"lstm:i64h64", "lstm:i256h256", "lstm:i1024h1024", "gru:i512h512l4", "rnn:i2h8",
          "lstm:i256h256l3bi", "gru:i64h64b16,reset=before", "lstm:i2048h16", "rnn:i4h2000",
          "lstm:i16h512b64", "lstm:i256h256l4", "rnn:i64h64l6"}) {
      check_above(problem, Isa::avx2, m, 5);
      check_above(problem, Isa::avx512, m, 6);
    }
  }
}

}  // namespace
}  // namespace deepcpu
