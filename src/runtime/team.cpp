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

#include "src/machine/pin.hpp"

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

/// A thread that looks for work gives way so often: helpers of several sessions may be bound to one
/// processor.
constexpr auto kYield = std::chrono::microseconds(4);

}  // namespace

ThreadTeam::ThreadTeam(int helpers, const HelperOptions& options)
    : options_(options), forks_(forks()) {
  for (int i = 0; i < helpers; ++i) helpers_.push_back(std::make_unique<Helper>());
  read_cores();  // now, not in a run
  if (options_.pin) choose_cpus();
  start();
}

void ThreadTeam::start() noexcept {
  const std::uint64_t last = jobs_.load();
  complete_ = true;
  for (int i = 0; i < helpers(); ++i) {
    try {
      Helper& h = *helpers_[static_cast<std::size_t>(i)];
      h.thread = std::thread([this, i, last] { loop(i, last); });
      if (h.cpu >= 0 && !pin_to(h.thread.native_handle(), h.cpu)) h.cpu = -1;
    } catch (const std::exception&) {
      complete_ = false;
      stop();
      jobs_.fetch_and(~kEnd);
      return;
    }
  }
}

void ThreadTeam::stop() noexcept {
  jobs_.fetch_or(kEnd, std::memory_order_seq_cst);
  futex_wake_all(jobs_);
  for (auto& h : helpers_) {
    if (h->thread.joinable()) h->thread.join();
  }
}

/// One processor per helper, as long as there are enough; one is left to the caller.
void ThreadTeam::choose_cpus() {
  place_ = Placement(helpers_.size() + 1);
  const std::vector<int>& cpus = place_.cpus();
  for (std::size_t i = 0; i < helpers_.size(); ++i) {
    helpers_[i]->cpu = cpus.size() < 2 ? -1 : cpus[(i + 1) % cpus.size()];
  }
  spare_cpu_ = helpers_.size() < cpus.size() ? cpus.front() : -1;
}

bool ThreadTeam::follow_fork() noexcept {
  const unsigned now = forks();
  if (now == forks_) return complete_;
  forget_helpers();
  parked_.store(0);  // only helpers that are gone were counted
  try {
    if (options_.pin) choose_cpus();
  } catch (const std::exception&) {
    return false;
  }
  start();
  if (complete_) forks_ = now;  // else the next run tries again
  return complete_;
}

/// Their threads are in another process. A handle may mean another thread here by now, so it is
/// neither joined nor detached.
void ThreadTeam::forget_helpers() noexcept {
  for (auto& h : helpers_) std::construct_at(&h->thread);
}

ThreadTeam::~ThreadTeam() {
  if (forks() != forks_) forget_helpers();
  stop();
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

void ThreadTeam::loop(int helper, std::uint64_t last) noexcept {
  Helper& self = *helpers_[static_cast<std::size_t>(helper)];
  int caller = -1;  // where both were when neither was in the other's way
  int own = -1;
  for (;;) {
    last = next_job(last);
    if ((last & kEnd) != 0) return;
    if (caller_cpu_ != caller || self.cpu != own) {
      own = self.cpu;
      caller = make_room(self, caller_cpu_) ? caller_cpu_ : -1;
    }
    work_(context_, helper + 1);
    self.done.store(last);
  }
}

/// The caller's thread goes where the system puts it, and that may be a helper's processor. Both
/// would run there by turns for the whole call, while the spare processor does nothing and the
/// system takes milliseconds to see it. Or it may be another one of the helper's core, whose units
/// both would share. The helper goes to the spare one instead: by itself when it begins a call,
/// moved by the caller when that waits. Gives whether nothing was to be done.
bool ThreadTeam::make_room(Helper& helper, int cpu) noexcept {
  const int from = helper.cpu;
  if (cpu < 0 || from < 0 || core_of(from) != core_of(cpu)) return true;
  const int spare = spare_cpu_.exchange(-1);
  if (spare < 0) return false;
  // The other side may just have moved it; and a spare one of the caller's core is no better,
  // unless the helper's is the caller's own.
  const bool better = from == cpu || core_of(spare) != core_of(cpu);
  const bool moved = better && helper.cpu == from && pin_to(helper.thread.native_handle(), spare);
  if (moved) helper.cpu = spare;
  spare_cpu_.store(moved ? from : spare);
  return false;
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
