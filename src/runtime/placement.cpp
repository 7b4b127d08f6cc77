// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/placement.hpp"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <set>
#include <utility>

#include "jit/index.hpp"
#include "src/machine/system.hpp"

namespace deepcpu {
namespace {

/// As many as kernels are built for; further ones are not counted.
constexpr std::size_t kMostCpus = 8192;

/// Of this process. Plain memory, so that a forked child can begin with none.
std::array<int, kMostCpus> teams_on{};
std::atomic_flag teams_on_lock = ATOMIC_FLAG_INIT;
std::atomic<unsigned> fork_count{0};

/// For a few instructions; a thread that holds it cannot be gone, but in a forked child.
class Lock {
 public:
  Lock() noexcept {
    while (teams_on_lock.test_and_set(std::memory_order_acquire)) _mm_pause();
  }
  ~Lock() { teams_on_lock.clear(std::memory_order_release); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};

void begin_child() noexcept {
  teams_on.fill(0);
  teams_on_lock.clear();
  ++fork_count;
}

void count(const std::vector<int>& cpus, int more) noexcept {
  for (const int cpu : cpus) {
    if (at(cpu) < kMostCpus) teams_on[at(cpu)] += more;
  }
}

/// Immortal: threads may use it while the process ends.
const std::vector<int>& cores() {
  static const std::vector<int>& all = *new std::vector<int>([] {
    std::vector<int> cpus(at(std::max(get_nprocs_conf(), 1)));
    std::iota(cpus.begin(), cpus.end(), 0);
    return cores_of("", cpus);
  }());
  return all;
}

}  // namespace

void read_cores() { (void)cores(); }

int core_of(int cpu) noexcept {
  const std::vector<int>& all = cores();
  return at(cpu) < all.size() ? all[at(cpu)] : cpu;
}

unsigned forks() noexcept {
  static const int watching = pthread_atfork(nullptr, nullptr, begin_child);
  (void)watching;
  return fork_count.load(std::memory_order_relaxed);
}

std::vector<int> cores_first(const std::vector<int>& cpus, const std::vector<int>& cores) {
  std::set<int> seen;
  std::vector<int> order;
  std::vector<int> further;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    (seen.insert(cores[i]).second ? order : further).push_back(cpus[i]);
  }
  order.insert(order.end(), further.begin(), further.end());
  return order;
}

std::vector<int> pick_processors(const std::vector<int>& cpus, const std::vector<int>& teams,
                                 std::size_t threads, std::size_t own) {
  if (threads >= cpus.size()) return cpus;
  const std::size_t places = cpus.size() / threads;
  for (std::size_t i = 0; i < places; ++i) {
    const auto first = static_cast<std::ptrdiff_t>((own / threads + i) % places * threads);
    const auto end = first + static_cast<std::ptrdiff_t>(threads);
    const bool is_free = std::all_of(teams.begin() + first, teams.begin() + end,
                                     [](int count_here) { return count_here == 0; });
    if (is_free) return {cpus.begin() + first, cpus.begin() + end};
  }
  std::vector<std::size_t> order(cpus.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return teams[a] < teams[b]; });
  std::vector<int> out;
  for (std::size_t i = 0; i < threads; ++i) out.push_back(cpus[order[i]]);
  return out;
}

Placement::Placement(std::size_t threads) : forks_(forks()) {
  read_cores();
  const std::vector<int> allowed = affinity();
  std::vector<int> cores;
  for (const int cpu : allowed) cores.push_back(core_of(cpu));
  const std::vector<int> cpus = cores_first(allowed, cores);
  const auto here = std::find(cpus.begin(), cpus.end(), sched_getcpu());
  const std::size_t own = here == cpus.end() ? 0 : static_cast<std::size_t>(here - cpus.begin());
  std::vector<int> teams(cpus.size());
  const auto look = [&] {
    for (std::size_t i = 0; i < cpus.size(); ++i) {
      teams[i] = at(cpus[i]) < kMostCpus ? teams_on[at(cpus[i])] : 0;
    }
  };
  // Under the lock nothing takes memory; if others have picked in between, once more.
  std::vector<int> seen;
  for (bool taken = false; !taken;) {
    seen = teams;
    cpus_ = pick_processors(cpus, seen, threads, own);
    const Lock lock;
    look();
    taken = teams == seen;
    if (taken) count(cpus_, 1);
  }
}

Placement::~Placement() {
  if (cpus_.empty() || forks_ != forks()) return;
  const Lock lock;
  count(cpus_, -1);
}

Placement::Placement(Placement&& other) noexcept
    : cpus_(std::exchange(other.cpus_, {})), forks_(other.forks_) {}

Placement& Placement::operator=(Placement&& other) noexcept {
  std::swap(cpus_, other.cpus_);
  std::swap(forks_, other.forks_);
  return *this;
}

}  // namespace deepcpu
