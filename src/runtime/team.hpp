// SPDX-License-Identifier: Apache-2.0
/// ThreadTeam: the helpers that run a model's further participants.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/runtime/placement.hpp"
#include "src/runtime/wait.hpp"

namespace deepcpu {

/// Owned by the runners of one Session; one call at a time. The caller's own thread is participant
/// 0 and is never pinned.
class ThreadTeam {
 public:
  using Work = void (*)(void* context, int participant) noexcept;

  explicit ThreadTeam(int helpers, const HelperOptions& options = {});
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int helpers() const noexcept { return static_cast<int>(helpers_.size()); }
  /// Whether all helpers could be started.
  bool complete() const noexcept { return complete_; }
  /// Starts the helpers anew in a process that is a copy of the one which made the team (fork): it
  /// has a single thread. Else does nothing. To be called before run(); false if there is no memory
  /// or no thread for it now.
  bool follow_fork() noexcept;
  /// Runs work(context, p) for p = 0 .. helpers: 0 on the calling thread. Returns when all are
  /// done.
  void run(Work work, void* context) noexcept;

 private:
  struct Helper {
    std::thread thread;
    Counter done;
    std::atomic<int> cpu{-1};  ///< where it is bound, -1 = nowhere
  };
  void choose_cpus();
  void start() noexcept;
  void stop() noexcept;
  void forget_helpers() noexcept;
  bool make_room(Helper& helper, int cpu) noexcept;
  static void part(void* self) noexcept;
  void loop(int helper, std::uint64_t last) noexcept;
  std::uint64_t next_job(std::uint64_t last) noexcept;

  HelperOptions options_;
  bool complete_ = true;
  unsigned forks_;  ///< forks() when helpers were started
  Placement place_;
  /// No helper is bound to it; -1 = there are as many helpers as processors, or one is moving.
  std::atomic<int> spare_cpu_{-1};
  /// Number of calls so far; bit 31 tells helpers to end. 32 bits: a futex is. What belongs to a
  /// call stands beside it, so that a helper that sees the number has it all.
  alignas(128) std::atomic<std::uint32_t> jobs_{0};
  int caller_cpu_ = -1;  ///< where the caller was when it began the call
  Work work_ = nullptr;
  void* context_ = nullptr;
  alignas(128) std::atomic<int> parked_{0};
  std::vector<std::unique_ptr<Helper>> helpers_;
};

}  // namespace deepcpu
