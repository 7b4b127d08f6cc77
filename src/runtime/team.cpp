// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/team.hpp"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <exception>
#include <utility>

namespace deepcpu {
namespace {

constexpr std::uint32_t kEnd = 1U << 31;

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen) noexcept {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, nullptr,
          nullptr, 0);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
          nullptr, 0);
}

/// The processors that the calling thread may use.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

/// Binds a thread. A refusal changes nothing.
bool pin_to(int cpu, pthread_t thread) noexcept {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  return pthread_setaffinity_np(thread, sizeof one, &one) == 0;
}

/// A thread that looks for work gives way so often: helpers of several sessions may be bound to one
/// processor.
constexpr auto kYield = std::chrono::microseconds(4);

}  // namespace

ThreadTeam::ThreadTeam(int helpers, TeamOptions options) : options_(options) {
  for (int i = 0; i < helpers; ++i) helpers_.push_back(std::make_unique<Helper>());
  if (options_.pin) choose_cpus();
  for (int i = 0; i < helpers; ++i) {
    try {
      Helper& h = *helpers_[static_cast<std::size_t>(i)];
      h.thread = std::thread([this, i] { loop(i); });
      if (h.cpu >= 0 && !pin_to(h.cpu, h.thread.native_handle())) h.cpu = -1;
    } catch (const std::exception&) {
      complete_ = false;
      return;
    }
  }
}

/// One processor per helper, as long as there are enough; the first one is left to the caller.
void ThreadTeam::choose_cpus() {
  const std::vector<int> cpus = allowed_cpus();
  if (cpus.size() < 2) return;
  for (std::size_t i = 0; i < helpers_.size(); ++i) {
    helpers_[i]->cpu = cpus[(i + 1) % cpus.size()];
  }
  if (helpers_.size() < cpus.size()) spare_cpu_ = cpus.front();
}

ThreadTeam::~ThreadTeam() {
  jobs_.fetch_or(kEnd, std::memory_order_seq_cst);
  futex_wake_all(jobs_);
  for (auto& h : helpers_) {
    if (h->thread.joinable()) h->thread.join();
  }
}

void ThreadTeam::run(Work work, void* context) noexcept {
  const int cpu = sched_getcpu();
  const WhileWaiting look(&ThreadTeam::part, this);
  const std::uint32_t job = (jobs_.load(std::memory_order_relaxed) + 1) & ~kEnd;
  // These share a cache line with jobs_, which helpers look at: written together it travels once.
  work_ = work;
  context_ = context;
  caller_cpu_ = cpu;
  // Sequentially consistent with parked_: either the helper sees the job before it sleeps, or it
  // is seen as parked here.
  jobs_.store(job, std::memory_order_seq_cst);
  if (parked_.load(std::memory_order_seq_cst) > 0) futex_wake_all(jobs_);
  work(context, 0);
  for (auto& h : helpers_) {
    if (h->done.load() != job) {
      for (int i = 0; i < 100 && h->done.load() != job; ++i) _mm_pause();
      while (h->done.load() != job) wait_until(&h->done.value, job);
    }
  }
}

void ThreadTeam::loop(int helper) noexcept {
  Helper& self = *helpers_[static_cast<std::size_t>(helper)];
  std::uint64_t last = 0;
  for (;;) {
    last = next_job(last);
    if ((last & kEnd) != 0) return;
    make_room(self, caller_cpu_);
    work_(context_, helper + 1);
    self.done.store(last);
  }
}

/// The caller's thread goes where the system puts it, and that may be a helper's processor. Both
/// would run there by turns for the whole call, while the spare processor does nothing and the
/// system takes milliseconds to see it. The helper goes to the spare one instead: by itself when it
/// begins a call, moved by the caller when that waits.
void ThreadTeam::make_room(Helper& helper, int cpu) noexcept {
  if (cpu < 0 || helper.cpu != cpu) return;
  const int spare = spare_cpu_.exchange(-1);
  if (spare < 0) return;
  // The other side may just have moved it.
  const bool moved = helper.cpu == cpu && pin_to(spare, helper.thread.native_handle());
  if (moved) helper.cpu = spare;
  spare_cpu_.store(moved ? cpu : spare);
}

/// Called by the caller's thread while it waits.
void ThreadTeam::part(void* self) noexcept {
  auto& team = *static_cast<ThreadTeam*>(self);
  const int own = sched_getcpu();
  for (auto& h : team.helpers_) team.make_room(*h, own);
}

/// Waits for a job other than `last`: looks for a while, then parks.
std::uint64_t ThreadTeam::next_job(std::uint64_t last) noexcept {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(options_.spin_us);
  auto yield_at = Clock::now() + kYield;
  std::uint32_t job = jobs_.load(std::memory_order_acquire);
  while (job == last && Clock::now() < end) {
    for (int i = 0; i < 16 && job == last; ++i) {
      _mm_pause();
      job = jobs_.load(std::memory_order_acquire);
    }
    if (job == last && Clock::now() > yield_at) {
      give_way();
      yield_at = Clock::now() + kYield;
    }
  }
  while (job == last) {
    parked_.fetch_add(1, std::memory_order_seq_cst);
    job = jobs_.load(std::memory_order_seq_cst);
    if (job == last) futex_wait(jobs_, job);
    parked_.fetch_sub(1, std::memory_order_seq_cst);
    job = jobs_.load(std::memory_order_acquire);
  }
  return job;
}

}  // namespace deepcpu
