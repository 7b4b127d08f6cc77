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

/// Binds the calling thread to the (index + 1)-th processor after the first one that it may use,
/// so that the first is left to the caller's thread. A refusal changes nothing.
void pin_to(int index) noexcept {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  const int count = CPU_COUNT(&allowed);
  if (count < 2) return;
  int wanted = (index + 1) % count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

}  // namespace

ThreadTeam::ThreadTeam(int helpers, TeamOptions options) : options_(options) {
  for (int i = 0; i < helpers; ++i) helpers_.push_back(std::make_unique<Helper>());
  for (int i = 0; i < helpers; ++i) {
    try {
      helpers_[static_cast<std::size_t>(i)]->thread = std::thread([this, i] { loop(i); });
    } catch (const std::exception&) {
      complete_ = false;
      return;
    }
  }
}

ThreadTeam::~ThreadTeam() {
  jobs_.fetch_or(kEnd, std::memory_order_seq_cst);
  futex_wake_all(jobs_);
  for (auto& h : helpers_) {
    if (h->thread.joinable()) h->thread.join();
  }
}

void ThreadTeam::run(Work work, void* context) noexcept {
  work_ = work;
  context_ = context;
  const std::uint32_t job = (jobs_.load(std::memory_order_relaxed) + 1) & ~kEnd;
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
  if (options_.pin) pin_to(helper);
  std::uint64_t last = 0;
  Helper& self = *helpers_[static_cast<std::size_t>(helper)];
  for (;;) {
    last = next_job(last);
    if ((last & kEnd) != 0) return;
    work_(context_, helper + 1);
    self.done.store(last);
  }
}

/// Waits for a job other than `last`: looks for a while, then parks.
std::uint64_t ThreadTeam::next_job(std::uint64_t last) noexcept {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(options_.spin_us);
  std::uint32_t job = jobs_.load(std::memory_order_acquire);
  while (job == last && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16 && job == last; ++i) {
      _mm_pause();
      job = jobs_.load(std::memory_order_acquire);
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
