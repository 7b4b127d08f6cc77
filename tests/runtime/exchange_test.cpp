// SPDX-License-Identifier: Apache-2.0
/// The exchange of h between participants inside the emitted time loop, under stress: participants
/// are held up at random before they publish and after they were waited for.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "jit/emitter.hpp"
#include "src/compile.hpp"
#include "src/lower/exchange_plan.hpp"
#include "src/runtime/flush_denormals.hpp"
#include "src/runtime/memory.hpp"
#include "src/runtime/wait.hpp"
#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;
using lower::Role;

constexpr std::int64_t kChunk = 1000;  ///< steps between two comparisons

thread_local Random delays(1);
std::atomic<std::uint64_t> slow_waits{0};
/// Panels that participants have taken of each other, as far as they were counted.
std::atomic<std::uint64_t> panels_taken{0};

void spin(std::int64_t turns) {
  for (volatile std::int64_t i = 0; i < turns;) i = i + 1;
}

/// Mostly none, sometimes a few hundred cycles, rarely what is left of the time slice.
void random_delay() {
  const int kind = delays.integer(0, 511);
  if (kind == 0) std::this_thread::yield();
  if (kind < 64) spin(delays.range(0, 200));
}

/// What any function may do: nothing is left in mask and vector registers.
void lose_vectors() {
  asm volatile("vzeroall" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                     "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

__attribute__((target("avx512f"))) void lose_masks() {
  asm volatile(
      "kxorw %%k1, %%k1, %%k1\n kmovw %%k1, %%k2\n kmovw %%k1, %%k3\n kmovw %%k1, %%k4\n"
      "kmovw %%k1, %%k5\n kmovw %%k1, %%k6\n kmovw %%k1, %%k7\n" ::
          : "k1", "k2", "k3", "k4", "k5", "k6", "k7");
}

void lose_registers() {
  if (host_isa() >= Isa::avx2) lose_vectors();
  if (host_isa() >= Isa::avx512) lose_masks();
}

/// What emitted code calls when another participant is late. The delay after it is one before this
/// participant's own next publication.
void waits_and_dawdles(const volatile std::uint64_t* counter, std::uint64_t at_least) {
  slow_waits.fetch_add(1, std::memory_order_relaxed);
  wait_until(counter, at_least);
  random_delay();
  lose_registers();
}

void waits_for_data_and_dawdles(const volatile std::uint32_t* numbers, std::uint64_t count) {
  slow_waits.fetch_add(1, std::memory_order_relaxed);
  wait_until_written(numbers, count);
  random_delay();
  lose_registers();
}

/// An exchange that does not wait: what the stress has to find.
void does_not_wait(const volatile std::uint64_t*, std::uint64_t) {}
void does_not_wait_for_data(const volatile std::uint32_t*, std::uint64_t) {}

/// Gives the processor away, and returns whatever was written meanwhile.
void looks_once(const volatile std::uint32_t*, std::uint64_t) {
  slow_waits.fetch_add(1, std::memory_order_relaxed);
  std::this_thread::yield();
  lose_registers();
}

struct Waits {
  void (*flag)(const volatile std::uint64_t*, std::uint64_t) = &waits_and_dawdles;
  void (*data)(const volatile std::uint32_t*, std::uint64_t) = &waits_for_data_and_dawdles;
};

/// One layer driven by hand: the memory of a stream, and per participant its arguments.
class Team {
 public:
  Team(const Compilation& compiled, const std::byte* weights, int participants, Waits waits = {})
      : code_(compiled.layers.front()), batch_(compiled.spec.batch), spec_(compiled.spec) {
    const auto& buffers = code_.step.bound.plan.buffers;
    memory_.resize(buffers.size());
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      if (buffers[b].space != jit::Space::slots) continue;
      memory_[b] = AlignedBytes(buffers[b].slot_stride * buffers[b].slots);
      REQUIRE(memory_[b].size() > 0);
      if (buffers[b].slots == 3) mark(buffers[b], b);
    }
    for (int p = 0; p < participants; ++p) {
      counters_.push_back(std::make_unique<Counter>());
      published_.push_back(&counters_.back()->value);
      claims_.emplace_back(2 * code_.step.bound.plan.stages.size());
      claims_at_.push_back(claims_.back().data());
    }
    for (int p = 0; p < participants; ++p) make_seat(weights, p, participants);
    for (auto& seat : seats_) {
      seat->args.wait_slow = waits.flag;
      seat->args.wait_data = waits.data;
    }
  }

  /// Steps [first, first + count) of a sequence that x and y hold from its step `origin` on.
  void run(int participant, std::int64_t first, std::int64_t count, const float* x, float* y) {
    Seat& seat = *seats_[static_cast<std::size_t>(participant)];
    const auto& roles = code_.step.bound.roles;
    for (std::size_t b = 0; b < roles.size(); ++b) {
      if (roles[b].role == Role::input) bind(seat, b, x, spec_.input, first);
      if (roles[b].role == Role::output) bind(seat, b, y, spec_.output_width(), first);
    }
    seat.args.steps = static_cast<std::uint64_t>(count);
    seat.args.parity = static_cast<std::uint64_t>(first % 2);
    seat.args.phase = static_cast<std::uint64_t>(first % 3);
    seat.args.epoch = *published_[static_cast<std::size_t>(participant)];
    seat.args.first_step = static_cast<std::uint64_t>(first);
    code_.step(seat.args);
    if (count > 2) count_taken(participant, first + count - 2);
  }

  bool has_code() const { return code_.step.code != nullptr; }

 private:
  struct Seat {
    jit::KernelArgs args{};
    std::vector<std::vector<void*>> rows;
  };

  /// In a step that all participants have left, and the one after it, too.
  void count_taken(int participant, std::int64_t step) {
    const auto& stages = code_.step.bound.plan.stages;
    for (std::size_t s = 0; s < stages.size(); ++s) {
      if (!stages[s].steals || seats_.size() < 2) continue;
      const Seat& seat = *seats_[static_cast<std::size_t>(participant)];
      const auto place = 2 * s + static_cast<std::size_t>(step % 2);
      const std::uint64_t word = claims_[static_cast<std::size_t>(participant)][place].word;
      panels_taken += seat.args.ranges[s].count - jit::Claims::end(word);
    }
  }

  /// Slot 1 of a ring is the one that the first step writes.
  void mark(const jit::Buffer& ring, std::size_t b) {
    auto* slot = reinterpret_cast<float*>(memory_[b].data() + ring.slot_stride);
    std::fill_n(slot, ring.slot_stride / sizeof(float), std::bit_cast<float>(jit::kUnwritten));
  }

  void make_seat(const std::byte* weights, int participant, int participants) {
    auto seat = std::make_unique<Seat>();
    const auto& buffers = code_.step.bound.plan.buffers;
    jit::KernelArgs& args = seat->args;
    args.weights = reinterpret_cast<const unsigned char*>(weights);
    args.rows = static_cast<std::uint64_t>(batch_);
    args.ranges = code_.panels(participants == 1).step->of(participant);
    args.participant = static_cast<std::uint64_t>(participant);
    args.participants = static_cast<std::uint64_t>(participants);
    args.published = published_.data();
    args.claims = claims_at_.data();
    seat->rows.resize(buffers.size());
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      args.buffer[b] = memory_[b].data();
      if (buffers[b].space != jit::Space::external) continue;
      seat->rows[b].resize(static_cast<std::size_t>(batch_));
      args.buffer[b] = seat->rows[b].data();
    }
    seats_.push_back(std::move(seat));
  }

  /// x and y hold one chunk, [kChunk, batch, width].
  void bind(Seat& seat, std::size_t buffer, const float* chunk, std::int64_t width,
            std::int64_t first) const {
    seat.args.stride[buffer] = batch_ * width * static_cast<std::int64_t>(sizeof(float));
    for (std::int64_t r = 0; r < batch_; ++r) {
      seat.rows[buffer][static_cast<std::size_t>(r)] =
          const_cast<float*>(chunk) + (first % kChunk * batch_ + r) * width;
    }
  }

  const LayerCode& code_;
  std::int64_t batch_;
  const ModelSpec& spec_;
  std::vector<AlignedBytes> memory_;  ///< per buffer: states and scratch
  std::vector<std::unique_ptr<Counter>> counters_;
  std::vector<std::uint64_t*> published_;
  std::vector<std::vector<jit::Claims>> claims_;
  std::vector<jit::Claims*> claims_at_;
  std::vector<std::unique_ptr<Seat>> seats_;
};

/// One participant's share of a chunk, in calls of one step and of several, by turns. All
/// participants divide the chunk alike: the calls' lengths follow from the step.
void run_chunk(Team& team, int participant, std::int64_t chunk, const float* x, float* y) {
  const FlushDenormals guard;
  const std::int64_t end = (chunk + 1) * kChunk;
  for (std::int64_t t = chunk * kChunk; t < end;) {
    const std::int64_t count = t % 100 < 70 ? 1 : std::min<std::int64_t>(30, end - t);
    random_delay();
    team.run(participant, t, count, x, y);
    t += count;
  }
}

struct Stress {
  const char* problem;
  int threads;
  Exchange exchange;
};

/// A compiled layer with its weights and the numbers that go in.
struct Subject {
  Subject(const ModelSpec& spec, Isa isa, int threads, Exchange exchange)
      : sample(Sample::make(with_chunk(spec))) {
    CompileOptions options;
    options.threads = threads;
    options.isa = isa;
    options.schedule = schedule_for(sample.spec, isa, threads);
    options.schedule->exchange = exchange;
    options.schedule->layers[0].hoist_block = 0;
    compiled = compile_program(sample.spec, options).value();
    LayerCode& layer = compiled.layers.front();
    // However short a step is.
    lower::plan_steals(static_cast<std::uint32_t>(threads), layer.step.bound, 0);
    if (isa != Isa::interpreter) layer.step.code = jit::emit(layer.step.bound.plan).value();
    weights = AlignedBytes(layer.layout.bytes);
    lower::pack(sample.spec.cell, layer.layout, layer.widths, sample.weights, "_l0",
                weights.data());
  }

  static ModelSpec with_chunk(ModelSpec spec) {
    spec.steps = kChunk;
    return spec;
  }

  Sample sample;
  Compilation compiled;
  AlignedBytes weights;
};

/// `steps` steps on all participants and on one; returns the first difference.
std::string stress(const Subject& s, int participants, std::int64_t steps, Waits waits = {}) {
  Team alone(s.compiled, s.weights.data(), 1);
  Team team(s.compiled, s.weights.data(), participants, waits);
  std::vector<float> expected(s.sample.y_size());
  std::vector<float> actual(s.sample.y_size());
  for (std::int64_t chunk = 0; chunk < steps / kChunk; ++chunk) {
    std::fill(actual.begin(), actual.end(), -7.0F);
    run_chunk(alone, 0, chunk, s.sample.x.data(), expected.data());
    std::vector<std::thread> threads;
    for (int p = 0; p < participants; ++p) {
      threads.emplace_back([&, p] {
        delays = Random(static_cast<std::uint64_t>(chunk * 16 + p));
        run_chunk(team, p, chunk, s.sample.x.data(), actual.data());
      });
    }
    for (std::thread& t : threads) t.join();
    const std::string difference = bit_difference(actual, expected);
    if (!difference.empty()) return "chunk " + std::to_string(chunk) + ": " + difference;
  }
  return {};
}

std::string stress(const Stress& c, Isa isa, std::int64_t steps, Waits waits = {}) {
  const Subject s(ModelSpec::parse(c.problem).value(), isa, c.threads, c.exchange);
  const auto& buffers = s.compiled.layers.front().step.bound.plan.buffers;
  const bool ring = std::any_of(buffers.begin(), buffers.end(),
                                [](const jit::Buffer& b) { return b.slots == 3; });
  if (ring != (c.exchange == Exchange::data)) return "not the exchange that was asked for";
  return stress(s, c.threads, steps, waits);
}

/// Cells with one exchange per step, with two, with participants that have no panel at all, and
/// with more participants than processors.
const std::vector<Stress>& stresses() {
  static const std::vector<Stress> table = {
      {"lstm:i5h70", 2, Exchange::flag},
      {"lstm:i5h70", 2, Exchange::data},
      {"gru:i3h40b2,reset=before", 2, Exchange::flag},
      {"gru:i3h80b2,reset=before", 2, Exchange::data},
      {"gru:i3h80,reset=before", 2, Exchange::data},
      {"lstm:i3h20", 2, Exchange::data},
      {"lstm:i4h33p17", 2, Exchange::flag},
      {"lstm:i4h90p70", 2, Exchange::data},
      {"rnn:i2h9", 2, Exchange::flag},
      {"lstm:i5h70", 3, Exchange::flag},
      {"lstm:i5h70", 3, Exchange::data},
      {"lstm:i5h150b3", 2, Exchange::flag},
      {"lstm:i5h150b3", 2, Exchange::data},
      {"lstm:i5h210b2", 3, Exchange::data},
      {"gru:i3h160b2,reset=before", 2, Exchange::flag},
      {"gru:i3h160b2,reset=before", 2, Exchange::data},
      {"gru:i3h160b2", 2, Exchange::data},
      {"lstm:i4h150p130b2", 2, Exchange::data},
      {"rnn:i2h150b5", 2, Exchange::data},
  };
  return table;
}

TEST_CASE("the stress finds an exchange that does not wait", "[race]") {
  const Waits none = {&does_not_wait, &does_not_wait_for_data};
  CHECK(!stress({"lstm:i5h70", 2, Exchange::flag}, host_isa(), 3 * kChunk, none).empty());
  for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
    CHECK(!stress({"gru:i3h80b2,reset=before", 2, exchange}, host_isa(), 3 * kChunk, none).empty());
  }
}

/// Products of one row look themselves at what they read, and again after every wait.
TEST_CASE("a wait for data that returns too soon costs products of one row nothing but time") {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    const Waits early = {&waits_and_dawdles, &looks_once};
    slow_waits.store(0);
    CHECK(stress({"lstm:i5h70", 2, Exchange::data}, isa, 2 * kChunk, early).empty());
    CHECK(stress({"gru:i3h80,reset=before", 2, Exchange::data}, isa, kChunk, early).empty());
    CHECK(slow_waits.load() > 0);
  }
}

TEST_CASE("participants held up at random give the bits of one") {
  slow_waits.store(0);
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    panels_taken.store(0);
    for (const Stress& c : stresses()) {
      INFO(c.problem << " " << to_string(isa) << " threads " << c.threads << " "
                     << (c.exchange == Exchange::data ? "data" : "flag"));
      const std::int64_t steps = c.threads == 2 ? 2 * kChunk : kChunk;
      CHECK(stress(c, isa, steps).empty());
    }
    INFO(to_string(isa));
    CHECK(panels_taken.load() > 20);
  }
  CHECK(slow_waits.load() > 100);  // the slow path was taken
}

/// A small cell, so that nearly all the time goes into the exchanges.
TEST_CASE("participants held up at random give the bits of one, a million steps", "[.slow]") {
  for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
    CHECK(stress({"lstm:i3h20", 2, exchange}, host_isa(), 1'000'000).empty());
  }
}

/// A state that is read after its next value has been stored: in P·h, while the other participant
/// may be a step ahead already.
Cell late_reader() {
  CellBuilder b("late_reader");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value c = b.state("c");
  const Value v = b.sigmoid(b.matmul("v", h));
  const Value next = b.tanh(b.matmul("p", h) + b.matmul("q", v)) + c;
  b.next(h, b.tanh(b.matmul("w", x) + b.matmul("u", h)));
  b.next(c, next);
  b.output(next);
  return b.build().value();
}

/// Holds up whoever has come first to an exchange: the other one, which finds everybody there, goes
/// on at once and gets ahead.
void waits_and_stays_behind(const volatile std::uint64_t* counter, std::uint64_t at_least) {
  wait_until(counter, at_least);
  spin(delays.range(0, 4000));
}
void waits_for_data_and_stays_behind(const volatile std::uint32_t* numbers, std::uint64_t count) {
  wait_until_written(numbers, count);
  spin(delays.range(0, 4000));
}

constexpr Waits kStayBehind = {&waits_and_stays_behind, &waits_for_data_and_stays_behind};

template <class Check>
void for_late_readers(const Check& check) {
  const ModelSpec spec = ModelSpec::make(late_reader(), {.input = 4, .hidden = {48}}).value();
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
      INFO(to_string(isa) << (exchange == Exchange::data ? " data" : " flag"));
      Subject s(spec, isa, 2, exchange);
      REQUIRE(s.compiled.layers.front().step.bound.plan.stages.size() == 2);
      check(s, isa);
    }
  }
}

TEST_CASE("what others read is not overwritten before they have read it") {
  for_late_readers(
      [](const Subject& s, Isa) { CHECK(stress(s, 2, 4 * kChunk, kStayBehind).empty()); });
}

/// Nine products on one level make two stages with panels of different widths. c is stored in one
/// and read unit by unit in both.
Cell many_gates() {
  CellBuilder b("many_gates");
  const Value x = b.input("x");
  const Value c = b.state("c");
  const Value h = b.state("h");
  Value y = c + b.matmul("w", x);
  for (const char* name : {"g0", "g1", "g2", "g3", "g4", "g5", "g6"}) {
    y = y + b.sigmoid(b.matmul(name, h));
  }
  const Value last = b.tanh(b.matmul("g7", h));
  b.next(c, b.sigmoid(last));
  b.next(h, b.tanh(last));
  b.output(b.tanh(y));
  return b.build().value();
}

TEST_CASE("stages of one width whose panels differ hand values over without an exchange") {
  const ModelSpec spec = ModelSpec::make(many_gates(), {.input = 4, .hidden = {96}}).value();
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
      INFO(to_string(isa) << (exchange == Exchange::data ? " data" : " flag"));
      const Subject s(spec, isa, 2, exchange);
      const lower::BoundPlan& bound = s.compiled.layers.front().step.bound;
      REQUIRE(bound.plan.stages.size() == 2);
      REQUIRE(bound.plan.stages[0].units_per_panel != bound.plan.stages[1].units_per_panel);
      for (std::size_t b = 0; b < bound.roles.size(); ++b) {
        if (bound.roles[b].role == lower::Role::state) CHECK(bound.plan.buffers[b].slots >= 2);
      }
      CHECK(stress(s, 2, 4 * kChunk, kStayBehind).empty());
    }
  }
}

template <class Check>
void for_shared_panels(const Cell& cell, const Check& check) {
  const ModelSpec spec = ModelSpec::make(cell, {.input = 4, .hidden = {144}, .batch = 3}).value();
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Exchange exchange : {Exchange::flag, Exchange::data}) {
      INFO(cell.name() << " " << to_string(isa)
                       << (exchange == Exchange::data ? " data" : " flag"));
      Subject s(spec, isa, 2, exchange);
      check(s, isa);
    }
  }
}

TEST_CASE("panels are taken of others only where all stages wait for each other") {
  for (const Cell& cell : {late_reader(), many_gates()}) {
    for_shared_panels(cell, [&](const Subject& s, Isa) {
      const jit::KernelPlan& plan = s.compiled.layers.front().step.bound.plan;
      // A second stage that reads unit by unit what the first one stores, and does not wait for it.
      const bool waits = cell.name() != "many_gates" || plan.stages[0].exchange;
      for (const jit::Stage& stage : plan.stages) CHECK((waits || !stage.steals));
      CHECK(stress(s, 2, 4 * kChunk, kStayBehind).empty());
    });
  }
}

TEST_CASE("without the exchange after reads of others, the same delays give other numbers",
          "[race]") {
  for_late_readers([](Subject& s, Isa isa) {
    jit::KernelPlan& plan = s.compiled.layers.front().step.bound.plan;
    REQUIRE(plan.stages[1].exchange);
    plan.stages[1].exchange = false;
    if (isa != Isa::interpreter) s.compiled.layers.front().step.code = jit::emit(plan).value();
    CHECK(!stress(s, 2, 10 * kChunk, kStayBehind).empty());
  });
}

}  // namespace
