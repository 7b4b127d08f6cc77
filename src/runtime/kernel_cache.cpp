// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/kernel_cache.hpp"

#include <exception>
#include <iterator>
#include <new>
#include <utility>

#include "src/guard_memory.hpp"

namespace deepcpu {
namespace {

using Kernel = KernelCache::Kernel;

Error compile_error(const jit::KernelPlan& plan, const std::string& what) {
  return Error("kernel " + plan.name + ": " + what);
}

Result<Kernel> compile_checked(const KernelCache::Compile& compile, const jit::KernelPlan& plan) {
  try {
    Result<Kernel> result = compile(plan);
    if (result.ok() && *result == nullptr) return compile_error(plan, "compilation gave no code");
    return result;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return compile_error(plan, std::string("compilation threw: ") + e.what());
  } catch (...) {
    return compile_error(plan, "compilation threw an unknown exception");
  }
}

/// Turns all that a compile function can do wrong into an error, so that no waiter is left behind.
Result<Kernel> guarded(const KernelCache::Compile& compile, const jit::KernelPlan& plan) noexcept {
  return guard_memory("compile a kernel", [&] { return compile_checked(compile, plan); });
}

}  // namespace

Result<Kernel> KernelCache::get_or_compile(const jit::KernelPlan& plan, const Compile& compile) {
  std::unique_lock lock(mutex_);
  if (const auto found = entries_.find(plan); found != entries_.end()) {
    const EntryPtr entry = found->second;
    if (!entry->result) return wait(lock, entry, plan);
    ++counters_.hits;
    uses_.splice(uses_.begin(), uses_, entry->use);
    return *entry->result;
  }
  const auto entry = std::make_shared<Entry>();
  entry->owner = std::this_thread::get_id();
  entry->key = &entries_.emplace(plan, entry).first->first;
  entry->listed = true;
  ++counters_.misses;

  lock.unlock();
  Result<Kernel> result = guarded(compile, plan);
  lock.lock();

  finish(*entry, std::move(result));
  const std::list<Use> dropped = shrink();
  lock.unlock();
  finished_.notify_all();
  return *entry->result;
}

Result<Kernel> KernelCache::wait(std::unique_lock<std::mutex>& lock, const EntryPtr& entry,
                                 const jit::KernelPlan& plan) {
  ++counters_.misses;
  if (would_wait_for_itself(*entry)) {
    return compile_error(plan, "its compilation asks for the kernel itself");
  }
  const std::thread::id self = std::this_thread::get_id();
  waiting_for_[self] = entry.get();
  finished_.wait(lock, [&] { return entry->result.has_value(); });
  waiting_for_.erase(self);
  return *entry->result;
}

/// Follows the chain: who compiles the entry, what that thread waits for, who compiles that. If it
/// comes back to this thread, waiting would never end. A circle needs compilations that truly
/// depend on each other, since a thread only waits for what its own compilations asked for.
bool KernelCache::would_wait_for_itself(const Entry& entry) const {
  const std::thread::id self = std::this_thread::get_id();
  for (const Entry* at = &entry; !at->result;) {
    if (at->owner == self) return true;
    const auto next = waiting_for_.find(at->owner);
    if (next == waiting_for_.end()) return false;
    at = next->second;
  }
  return false;
}

void KernelCache::finish(Entry& entry, Result<Kernel> result) noexcept {
  entry.result.emplace(std::move(result));
  if (!entry.result->ok()) {
    ++counters_.failures;
    unlist(entry);
    return;
  }
  ++counters_.compiles;
  if (!entry.listed) return;  // clear() came in between
  entry.place.front() = {entry.key, **entry.result};
  entry.use = entry.place.begin();
  uses_.splice(uses_.begin(), entry.place);
}

void KernelCache::unlist(Entry& entry) noexcept {
  if (!entry.listed) return;
  entry.listed = false;
  const auto place = entries_.find(*entry.key);
  if (place != entries_.end()) entries_.erase(place);
}

std::list<KernelCache::Use> KernelCache::shrink() noexcept {
  std::list<Use> dropped;
  while (uses_.size() > capacity_) {
    const auto last = std::prev(uses_.end());
    const auto place = entries_.find(*last->key);
    place->second->listed = false;
    entries_.erase(place);
    dropped.splice(dropped.end(), uses_, last);
    ++counters_.evictions;
  }
  return dropped;
}

void KernelCache::set_capacity(std::size_t kernels) {
  std::list<Use> dropped;
  const std::lock_guard lock(mutex_);
  capacity_ = kernels;
  dropped = shrink();
}

std::size_t KernelCache::capacity() const {
  const std::lock_guard lock(mutex_);
  return capacity_;
}

void KernelCache::clear() {
  decltype(entries_) dropped;
  decltype(uses_) kernels;
  const std::lock_guard lock(mutex_);
  for (auto& [plan, entry] : entries_) entry->listed = false;
  dropped.swap(entries_);
  kernels.swap(uses_);
}

KernelCounters KernelCache::counters() const {
  const std::lock_guard lock(mutex_);
  KernelCounters counters = counters_;
  counters.size = uses_.size();
  return counters;
}

KernelCache& kernel_cache() {
  // Never destroyed: threads and static models may use it while the process ends.
  union Immortal {
    Immortal() : cache() {}
    ~Immortal() {}
    KernelCache cache;
  };
  static Immortal immortal;
  return immortal.cache;
}

KernelCounters kernel_counters() { return kernel_cache().counters(); }
void set_kernel_capacity(std::size_t kernels) { kernel_cache().set_capacity(kernels); }
void clear_kernels() { kernel_cache().clear(); }

}  // namespace deepcpu
