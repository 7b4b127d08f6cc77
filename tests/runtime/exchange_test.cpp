// SPDX-License-Identifier: Apache-2.0
/// The exchange of h between participants inside the emitted time loop, under stress: participants
/// are held up at random before they publish and after they were waited for.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "src/compile.hpp"
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

/// Mostly none, sometimes a few hundred cycles, rarely the whole time slice.
void random_delay() {
  const int kind = delays.integer(0, 255);
  if (kind == 0) std::this_thread::yield();
  if (kind < 64) {
    const std::int64_t spins = delays.range(0, 200);
    for (volatile std::int64_t i = 0; i < spins;) i = i + 1;
  }
}

/// What emitted code calls when another participant is late. The delay after it is one before this
/// participant's own next publication.
void waits_and_dawdles(const volatile std::uint64_t* counter, std::uint64_t at_least) {
  slow_waits.fetch_add(1, std::memory_order_relaxed);
  wait_until(counter, at_least);
  random_delay();
}

/// An exchange that does not wait: what the stress has to find.
void does_not_wait(const volatile std::uint64_t*, std::uint64_t) {}

using Wait = void (*)(const volatile std::uint64_t*, std::uint64_t);

/// One layer driven by hand: the memory of a stream, and per participant its arguments.
class Team {
 public:
  Team(const Compilation& compiled, const std::byte* weights, int participants,
       Wait wait = &waits_and_dawdles)
      : code_(compiled.layers.front()), batch_(compiled.spec.batch), spec_(compiled.spec) {
    const auto& buffers = code_.step.bound.plan.buffers;
    memory_.resize(buffers.size());
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      if (buffers[b].space != jit::Space::slots) continue;
      memory_[b] = AlignedBytes(buffers[b].slot_stride * buffers[b].slots);
      REQUIRE(memory_[b].size() > 0);
    }
    for (int p = 0; p < participants; ++p) {
      counters_.push_back(std::make_unique<Counter>());
      published_.push_back(&counters_.back()->value);
    }
    for (int p = 0; p < participants; ++p) make_seat(weights, p, participants);
    for (auto& seat : seats_) seat->args.wait_slow = wait;
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
    seat.args.parity = static_cast<std::uint64_t>(first & 1);
    seat.args.epoch = *published_[static_cast<std::size_t>(participant)];
    code_.step(seat.args);
  }

  bool has_code() const { return code_.step.code != nullptr; }

 private:
  struct Seat {
    jit::KernelArgs args{};
    std::vector<std::vector<void*>> rows;
  };

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
};

/// `steps` steps on `threads` participants and on one; returns the first difference.
std::string stress(const Stress& c, Isa isa, std::int64_t steps, Wait wait = &waits_and_dawdles) {
  ModelSpec spec = ModelSpec::parse(c.problem).value();
  spec.steps = kChunk;
  const Sample s = Sample::make(spec);
  CompileOptions options;
  options.threads = c.threads;
  options.isa = isa;
  options.schedule = schedule_for(s.spec, isa, c.threads);
  options.schedule->layers[0].hoist_block = 0;
  const Compilation compiled = compile_program(s.spec, options).value();
  const LayerCode& layer = compiled.layers.front();
  AlignedBytes weights(layer.layout.bytes);
  lower::pack(s.spec.cell, layer.layout, layer.widths, s.weights, "_l0", weights.data());
  Team alone(compiled, weights.data(), 1);
  Team team(compiled, weights.data(), c.threads, wait);
  if (alone.has_code() != (isa != Isa::interpreter)) return "no code";
  std::vector<float> expected(s.y_size());
  std::vector<float> actual(s.y_size());
  for (std::int64_t chunk = 0; chunk < steps / kChunk; ++chunk) {
    std::fill(actual.begin(), actual.end(), -7.0F);
    run_chunk(alone, 0, chunk, s.x.data(), expected.data());
    std::vector<std::thread> threads;
    for (int p = 0; p < c.threads; ++p) {
      threads.emplace_back([&, p] {
        delays = Random(static_cast<std::uint64_t>(chunk * 16 + p));
        run_chunk(team, p, chunk, s.x.data(), actual.data());
      });
    }
    for (std::thread& t : threads) t.join();
    const std::string difference = bit_difference(actual, expected);
    if (!difference.empty()) return "chunk " + std::to_string(chunk) + ": " + difference;
  }
  return {};
}

/// Cells with one exchange per step, with two, with participants that have no panel at all, and
/// with more participants than processors. The first runs all steps, the others a tenth of them.
const std::vector<Stress>& stresses() {
  static const std::vector<Stress> table = {
      {"lstm:i5h70", 2}, {"gru:i3h40b2,reset=before", 2}, {"lstm:i4h33p17", 2}, {"rnn:i2h9", 2},
      {"lstm:i5h70", 3},
  };
  return table;
}

void stress_all(std::int64_t steps) {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Stress& c : stresses()) {
      // Threads that share a processor are slow, and so is the interpreter, here as a witness.
      const bool full = &c == &stresses().front() && isa != Isa::interpreter;
      const std::int64_t chunks = steps / kChunk / (full ? 1 : 10);
      INFO(c.problem << " " << to_string(isa) << " threads " << c.threads);
      CHECK(stress(c, isa, std::max<std::int64_t>(chunks, 1) * kChunk).empty());
    }
  }
}

TEST_CASE("the stress finds an exchange that does not wait") {
  for (const char* problem : {"lstm:i5h70", "gru:i3h40b2,reset=before"}) {
    CHECK(!stress({problem, 2}, host_isa(), 3 * kChunk, &does_not_wait).empty());
  }
}

TEST_CASE("participants held up at random give the bits of one") {
  slow_waits.store(0);
  stress_all(10'000);
  CHECK(slow_waits.load() > 100);  // the slow path was taken
}

TEST_CASE("participants held up at random give the bits of one, a million steps", "[.slow]") {
  stress_all(1'000'000);
}

}  // namespace
