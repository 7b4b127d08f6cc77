// SPDX-License-Identifier: Apache-2.0
/// What Session::run may not do: allocate, and with one thread call the system.
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/runtime/allocation_counter.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

struct Case {
  const char* problem;
  int threads;
  Parallel parallel;
  bool ragged;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> table = {
      {"lstm:i5h70t20", 1, Parallel::none, false},
      {"lstm:i5h70t20", 2, Parallel::none, false},
      {"gru:i6h40b3t20,reset=before", 2, Parallel::none, false},
      {"gru:i6h40b3t20,reset=before", 2, Parallel::none, true},
      {"rnn:i7h19l3b5t30", 2, Parallel::wavefront, false},
      {"rnn:i7h19l3b5t30", 2, Parallel::wavefront, true},
      {"lstm:i9h33l2p20bib4t11,peephole=1", 2, Parallel::directions, true},
      {"lstm:i9h33l2bib4t11", 1, Parallel::none, true},
      {"augru:i8h24revb2t9", 2, Parallel::none, true},
  };
  return table;
}

std::vector<std::int64_t> lengths_of(const Case& c, const ModelSpec& spec) {
  std::vector<std::int64_t> lengths;
  if (!c.ragged) return lengths;
  for (std::int64_t b = 0; b < spec.batch; ++b) lengths.push_back((spec.steps * b + 3) % 10);
  return lengths;
}

/// Three calls, the state carried, one of them of no step. Returns whether all were accepted.
bool three_runs(Session& session, const Sample& s, const std::vector<std::span<const float>>& extra,
                const std::vector<std::span<const float>>& none,
                const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& zeros,
                std::vector<float>& y) {
  const bool first = session.run(s.x, y, extra, lengths).ok();
  const bool second = session.run({}, {}, none, zeros).ok();
  return session.run(s.x, y, extra, lengths).ok() && first && second;
}

std::string text_of(const Case& c, Isa isa, Layout layout) {
  return std::string(c.problem) + " " + std::string(to_string(isa)) + " threads " +
         std::to_string(c.threads) + (c.ragged ? " ragged" : "") +
         (layout == Layout::time_major ? " [T,B,I]" : " [B,T,I]");
}

TEST_CASE("the counter of allocations sees every kind of them", "[malloc]") {
  // The compiler may drop an allocation whose address nobody sees.
  const auto seen = [](void* p) {
    asm volatile("" : : "g"(p) : "memory");
    return p;
  };
  const AllocationCounter counter;
  std::vector<void*> made;
  made.reserve(8);
  seen(made.data());
  CHECK(counter.count() == 1);
  made.push_back(seen(::operator new(100)));
  made.push_back(seen(std::malloc(100)));
  made.push_back(seen(std::calloc(10, 10)));
  made.push_back(seen(std::aligned_alloc(4096, 4096)));
  made.push_back(seen(::operator new(100, std::align_val_t(64))));
  const std::uint64_t count = counter.count();
  ::operator delete(made[0]);
  for (std::size_t i = 1; i < 4; ++i) std::free(made[i]);
  ::operator delete(made[4], std::align_val_t(64));
  CHECK(count == 6);
}

TEST_CASE("run allocates nothing") {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Case& c : cases()) {
      for (const Layout layout : {Layout::time_major, Layout::batch_major}) {
        const Sample s = Sample::make(c.problem);
        const Model model = compile_for(s, isa, c.threads, c.parallel);
        Session session = model.session(layout, s.spec.steps).value();
        const auto extra = s.extra_views();
        const std::vector<std::span<const float>> none(extra.size());
        const auto lengths = lengths_of(c, s.spec);
        const std::vector<std::int64_t> zeros(lengths.size(), 0);
        std::vector<float> y(s.y_size());
        // Once before counting: a helper thread may still be starting, which may allocate.
        bool accepted = three_runs(session, s, extra, none, lengths, zeros, y);
        std::uint64_t allocations = 0;
        {
          const AllocationCounter counter;
          accepted = three_runs(session, s, extra, none, lengths, zeros, y) && accepted;
          allocations = counter.count();
        }
        INFO(text_of(c, isa, layout));
        CHECK(accepted);
        CHECK(allocations == 0);
      }
    }
  }
}

bool forbid_system_calls() {
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0;  // all but read, write, exit, sigreturn
}

TEST_CASE("the filter of system calls ends a process that makes one", "[fork]") {
  const Ending quiet = run_forked([] { return forbid_system_calls() ? 0 : 9; });
  CHECK(quiet.status == 0);
  const Ending calling = run_forked([] {
    if (!forbid_system_calls()) return 9;
    syscall(SYS_getppid);
    return 0;
  });
  CHECK(calling.signal == SIGKILL);
}

TEST_CASE("a run on one thread makes no system call", "[fork]") {
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const Case& c : cases()) {
      const Sample s = Sample::make(c.problem);
      const Model model = compile_for(s, isa, 1);
      const auto lengths = lengths_of(c, s.spec);
      const std::vector<float> expected = run_once(model, s, lengths);
      Session session = model.session(Layout::time_major, s.spec.steps).value();
      const auto extra = s.extra_views();
      std::vector<float> y(s.y_size());
      const Ending ending = run_forked([&] {
        if (!forbid_system_calls()) return 9;
        if (!session.run(s.x, y, extra, lengths).ok()) return 2;
        for (std::size_t i = 0; i < y.size(); ++i) {
          if (!bits_equal(y[i], expected[i])) return 3;
        }
        return 0;
      });
      INFO(text_of(c, isa, Layout::time_major));
      CHECK(ending.signal == 0);
      CHECK(ending.status == 0);
    }
  }
}

}  // namespace
