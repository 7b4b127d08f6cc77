// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/kernel_cache.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.hpp"

namespace deepcpu {
namespace {

using Kernel = KernelCache::Kernel;
using jit::KernelPlan;

KernelPlan plan_of(std::uint32_t rows, const std::string& name = "k") {
  KernelPlan plan;
  plan.name = name;
  plan.rows = rows;
  return plan;
}

/// A kernel that remembers its plan; it is never run.
Result<Kernel> compiled(const KernelPlan& plan) {
  auto blob = std::make_shared<jit::CodeBlob>();
  blob->symbol = std::to_string(plan.rows);
  return Kernel(blob);
}

/// Waits until the cache has counted that many misses: so many threads compile or wait.
void wait_for_misses(const KernelCache& cache, std::uint64_t misses) {
  while (cache.counters().misses < misses) std::this_thread::yield();
}

TEST_CASE("kernel cache: equal plans share one kernel, names and copies aside") {
  KernelCache cache;
  const Kernel a = cache.get_or_compile(plan_of(1, "a"), compiled).value();
  const Kernel same = cache.get_or_compile(plan_of(1, "b"), compiled).value();
  const Kernel other = cache.get_or_compile(plan_of(2), compiled).value();
  CHECK(a == same);
  CHECK(a != other);
  CHECK(other->symbol == "2");

  KernelPlan wider = plan_of(1);
  wider.isa = Isa::avx512;
  CHECK(cache.get_or_compile(wider, compiled).value() != a);

  const KernelCounters counters = cache.counters();
  CHECK(counters.hits == 1);
  CHECK(counters.misses == 3);
  CHECK(counters.compiles == 3);
  CHECK(counters.failures == 0);
  CHECK(counters.size == 3);
}

TEST_CASE("kernel cache: the least recently used kernel goes first and code in use stays") {
  KernelCache cache(2);
  CHECK(cache.capacity() == 2);
  const Kernel one = cache.get_or_compile(plan_of(1), compiled).value();
  const std::weak_ptr<const jit::CodeBlob> two = cache.get_or_compile(plan_of(2), compiled).value();
  CHECK(!two.expired());
  CHECK(cache.get_or_compile(plan_of(1), compiled).value() == one);  // 2 is now the oldest
  const std::weak_ptr<const jit::CodeBlob> three =
      cache.get_or_compile(plan_of(3), compiled).value();
  CHECK(two.expired());
  CHECK(!three.expired());
  CHECK(cache.counters().evictions == 1);
  CHECK(cache.counters().size == 2);

  cache.set_capacity(0);
  CHECK(three.expired());
  CHECK(one->symbol == "1");  // held here
  CHECK(cache.counters().evictions == 3);
  CHECK(cache.get_or_compile(plan_of(1), compiled).value() != one);
  CHECK(cache.counters().size == 0);
}

TEST_CASE("kernel cache: clear drops kernels and keeps the counters") {
  KernelCache cache;
  const std::weak_ptr<const jit::CodeBlob> kernel =
      cache.get_or_compile(plan_of(1), compiled).value();
  cache.clear();
  CHECK(kernel.expired());
  CHECK(cache.counters().size == 0);
  CHECK(cache.counters().compiles == 1);
  CHECK(cache.counters().evictions == 0);
  CHECK(cache.get_or_compile(plan_of(1), compiled).ok());
  CHECK(cache.counters().compiles == 2);
}

TEST_CASE("kernel cache: failures are returned and not kept") {
  KernelCache cache;
  const auto fails = [](const KernelPlan&) -> Result<Kernel> { return Error("no such tile"); };
  CHECK(cache.get_or_compile(plan_of(1), fails).error().message() == "no such tile");
  CHECK(cache.counters().failures == 1);
  CHECK(cache.counters().size == 0);
  CHECK(cache.get_or_compile(plan_of(1), compiled).ok());

  const auto throws = [](const KernelPlan&) -> Result<Kernel> { throw std::runtime_error("boom"); };
  CHECK(cache.get_or_compile(plan_of(2, "x"), throws).error().message() ==
        "kernel x: compilation threw: boom");
  const auto empty = [](const KernelPlan&) -> Result<Kernel> { return Kernel(); };
  CHECK(cache.get_or_compile(plan_of(3, "y"), empty).error().message() ==
        "kernel y: compilation gave no code");
}

TEST_CASE("kernel cache: one compile per plan under contention") {
  constexpr int kThreads = 8;
  KernelCache cache;
  std::atomic<int> calls{0};
  const auto slow = [&](const KernelPlan& plan) {
    ++calls;
    wait_for_misses(cache, kThreads);  // until all others wait for this one
    return compiled(plan);
  };
  std::vector<std::future<Kernel>> answers;
  for (int i = 0; i < kThreads; ++i) {
    answers.push_back(std::async(std::launch::async,
                                 [&] { return cache.get_or_compile(plan_of(1), slow).value(); }));
  }
  const Kernel first = answers[0].get();
  for (int i = 1; i < kThreads; ++i) CHECK(answers[static_cast<std::size_t>(i)].get() == first);
  CHECK(calls == 1);
  CHECK(cache.counters().misses == kThreads);
  CHECK(cache.counters().compiles == 1);
}

TEST_CASE("kernel cache: a failure reaches all who wait") {
  constexpr int kThreads = 4;
  KernelCache cache;
  const auto fails = [&](const KernelPlan&) -> Result<Kernel> {
    wait_for_misses(cache, kThreads);
    return Error("refused");
  };
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < kThreads; ++i) {
    answers.push_back(std::async(std::launch::async, [&] {
      return cache.get_or_compile(plan_of(1), fails).error().message();
    }));
  }
  for (auto& answer : answers) CHECK(answer.get() == "refused");
  CHECK(cache.counters().failures == 1);
}

TEST_CASE("kernel cache: different plans compile at the same time") {
  KernelCache cache;
  const auto meets = [&](const KernelPlan& plan) {
    wait_for_misses(cache, 2);  // never comes true if the other had to wait
    return compiled(plan);
  };
  auto other =
      std::async(std::launch::async, [&] { return cache.get_or_compile(plan_of(2), meets).ok(); });
  CHECK(cache.get_or_compile(plan_of(1), meets).ok());
  CHECK(other.get());
}

TEST_CASE("kernel cache: a compile may use the cache") {
  KernelCache cache(1);
  const auto nested = [&](const KernelPlan& plan) {
    const Kernel inner = cache.get_or_compile(plan_of(plan.rows + 1), compiled).value();
    CHECK(inner->symbol == std::to_string(plan.rows + 1));
    return compiled(plan);
  };
  CHECK(cache.get_or_compile(plan_of(1), nested).ok());
  CHECK(cache.counters().compiles == 2);
  cache.set_capacity(4);
  const auto clears = [&](const KernelPlan& plan) {
    cache.clear();
    return compiled(plan);
  };
  CHECK(cache.get_or_compile(plan_of(9), clears).ok());
  CHECK(cache.counters().size == 0);  // cleared in between: not kept
}

TEST_CASE("kernel cache: compilations that wait for each other are errors, not a standstill") {
  KernelCache cache;
  KernelCache::Compile itself = [&](const KernelPlan& plan) {
    return cache.get_or_compile(plan, itself);
  };
  CHECK(cache.get_or_compile(plan_of(1, "k"), itself).error().message() ==
        "kernel k: its compilation asks for the kernel itself");

  // Two threads, each of whose kernel needs the other's.
  KernelCache::Compile crossed = [&](const KernelPlan& plan) {
    wait_for_misses(cache, 4);  // the two above are counted; now both compile
    return cache.get_or_compile(plan_of(plan.rows == 11 ? 12 : 11, "k"), crossed);
  };
  auto other = std::async(std::launch::async,
                          [&] { return cache.get_or_compile(plan_of(12, "k"), crossed).ok(); });
  CHECK(!cache.get_or_compile(plan_of(11, "k"), crossed).ok());
  CHECK(!other.get());
}

TEST_CASE("kernel cache: many threads, few places, clears in between") {
  constexpr int kThreads = 4;
  constexpr std::uint32_t kRounds = 2000;
  KernelCache cache(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < kRounds; ++i) {
        const std::uint32_t rows = 1 + (i * 7 + t * 3) % 8;
        const Result<Kernel> kernel = cache.get_or_compile(plan_of(rows), compiled);
        if (!kernel.ok() || (*kernel)->symbol != std::to_string(rows)) ++wrong;
        if (i % 97 == 0) cache.clear();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  const KernelCounters counters = cache.counters();
  CHECK(counters.hits + counters.misses == kThreads * kRounds);
  CHECK(counters.compiles <= counters.misses);
  CHECK(counters.size <= 3);
}

TEST_CASE("kernel cache: the process has one") {
  CHECK(&kernel_cache() == &kernel_cache());
  CHECK(kernel_cache().capacity() == KernelCache::kDefaultCapacity);
}

}  // namespace
}  // namespace deepcpu
