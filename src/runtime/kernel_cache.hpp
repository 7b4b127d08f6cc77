// SPDX-License-Identifier: Apache-2.0
/// The in-process cache of emitted kernels.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "deepcpu/kernels.hpp"
#include "deepcpu/result.hpp"
#include "jit/code_blob.hpp"
#include "jit/kernel_plan.hpp"

namespace deepcpu {

/// Maps a KernelPlan (with the ISA inside it; names do not take part) to its code. A kernel is
/// shared: eviction and clear() only drop the cache's own reference, so code in use stays. The
/// least recently used kernel goes first. Thread-safe.
class KernelCache {
 public:
  using Kernel = std::shared_ptr<const jit::CodeBlob>;
  using Compile = std::function<Result<Kernel>(const jit::KernelPlan&)>;

  static constexpr std::size_t kDefaultCapacity = 1024;

  explicit KernelCache(std::size_t capacity = kDefaultCapacity) : capacity_(capacity) {}
  KernelCache(const KernelCache&) = delete;
  KernelCache& operator=(const KernelCache&) = delete;

  /// The plan's kernel, from the cache or else by `compile(plan)`.
  ///
  /// `compile` runs without any lock and may use the cache itself. Of the threads that ask for the
  /// same plan at the same time one compiles and the others wait for it. An error goes to all of
  /// them and is not kept: the next call compiles again. An exception from `compile`, a null
  /// kernel, and compilations that wait for each other in a circle are errors too.
  Result<Kernel> get_or_compile(const jit::KernelPlan& plan, const Compile& compile);

  /// Most kernels held; 0 keeps none. Lowering it evicts at once.
  void set_capacity(std::size_t kernels);
  std::size_t capacity() const;
  /// Drops all kernels. A compilation under way still answers those who wait for it, but what it
  /// gives is not kept.
  void clear();
  KernelCounters counters() const;

 private:
  /// A kernel held, in the order of use.
  struct Use {
    const jit::KernelPlan* key = nullptr;  ///< the map's own
    Kernel kernel;
  };
  /// One plan's place. Kept alive by the map, its compiling thread and its waiters. All that is
  /// needed to finish it is made before its compilation begins, so that nothing can go wrong
  /// between the end of the compilation and the waking of the waiters.
  struct Entry {
    std::optional<Result<Kernel>> result;  ///< once compiled, well or not
    std::thread::id owner;
    const jit::KernelPlan* key = nullptr;      ///< the map's own, while `listed`
    bool listed = false;                       ///< in the map
    std::list<Use> place = std::list<Use>(1);  ///< the list node to be, until done
    std::list<Use>::iterator use;              ///< place in uses_, once done and listed
  };
  struct Hash {
    std::size_t operator()(const jit::KernelPlan& plan) const noexcept { return jit::hash(plan); }
  };
  using EntryPtr = std::shared_ptr<Entry>;

  Result<Kernel> wait(std::unique_lock<std::mutex>& lock, const EntryPtr& entry,
                      const jit::KernelPlan& plan);
  bool would_wait_for_itself(const Entry& entry) const;
  void finish(Entry& entry, Result<Kernel> result) noexcept;
  void unlist(Entry& entry) noexcept;
  /// Drops kernels until the capacity holds. They are returned, to be freed without the lock.
  std::list<Use> shrink() noexcept;

  mutable std::mutex mutex_;
  std::condition_variable finished_;
  std::size_t capacity_;
  std::unordered_map<jit::KernelPlan, EntryPtr, Hash> entries_;
  std::list<Use> uses_;                                            ///< most recently used first
  std::unordered_map<std::thread::id, const Entry*> waiting_for_;  ///< threads inside wait()
  KernelCounters counters_;
};

/// The cache that all models of this process share.
KernelCache& kernel_cache();

}  // namespace deepcpu
