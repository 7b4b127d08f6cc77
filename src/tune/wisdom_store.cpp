// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"
#include "src/tune/wisdom_check.hpp"
#include "src/tune/wisdom_file.hpp"

namespace deepcpu::wisdom {
namespace {

struct Known {
  WisdomEntry entry;
  bool lowered = false;  ///< lowering has accepted it, for the least batch of its class
};

struct Store {
  std::shared_mutex mutex;
  std::unordered_map<std::string, Known> entries;  ///< by WisdomKey::id
  std::once_flag environment;
  std::vector<std::string> notes;  ///< about DEEPCPU_WISDOM; constant once it has been read
};

Store& store() {
  static Store& instance = *new Store;  // threads may use it while the process ends
  return instance;
}

/// Takes what is legal here. All of it or, without memory, nothing.
Report take(std::vector<WisdomItem> items) {
  Report report;
  Store& s = store();
  const std::unique_lock lock(s.mutex);
  auto entries = s.entries;
  for (std::size_t i = 0; i < items.size(); ++i) {
    WisdomItem& item = items[i];
    if (!item.entry) {
      report.refused.push_back({i, std::move(item.refused), false});
    } else if (item.entry->key.machine != this_machine_key()) {
      report.refused.push_back(
          {i, fmt::format("key.machine={}: is another machine", quote(item.entry->key.machine)),
           true});
    } else {
      const auto known = entries.find(item.id);
      if (known != entries.end() && better_evidence(known->second.entry, *item.entry)) {
        ++report.kept;
        continue;
      }
      entries.insert_or_assign(std::move(item.id), Known{std::move(*item.entry), item.lowered});
      ++report.taken;
    }
  }
  s.entries.swap(entries);
  return report;
}

/// In an order of their own: a file's text must not depend on that of a hash table.
std::vector<WisdomEntry> all_entries() {
  std::vector<std::pair<std::string, WisdomEntry>> all;
  {
    Store& s = store();
    const std::shared_lock lock(s.mutex);
    for (const auto& [id, known] : s.entries)
      all.emplace_back(known.entry.key.problem + id, known.entry);
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<WisdomEntry> entries;
  for (auto& [order, entry] : all) entries.push_back(std::move(entry));
  return entries;
}

/// DEEPCPU_WISDOM, once. Another machine's entries are no reason for a note.
void read_environment(Store& s) {
  const char* path = std::getenv("DEEPCPU_WISDOM");
  if (path == nullptr || *path == '\0') return;
  const auto report = load(path);
  if (!report) {
    // Then the next compile tries again.
    if (report.error().kind() == ErrorKind::memory) throw std::bad_alloc();
    s.notes.push_back("DEEPCPU_WISDOM: " + report.error().message());
    return;
  }
  const auto illegal = [](const Refusal& r) { return !r.other_machine; };
  const auto& refused = report->refused;
  const auto count = std::count_if(refused.begin(), refused.end(), illegal);
  if (count == 0) return;
  const Refusal& first = *std::find_if(refused.begin(), refused.end(), illegal);
  s.notes.push_back(fmt::format("DEEPCPU_WISDOM: {}: {} entries are refused, the first is {}: {}",
                                path, count, first.index, first.reason));
}

}  // namespace

Result<Report> load(const std::string& path) {
  return guard_memory("load the wisdom", [&]() -> Result<Report> {
    auto items = read_wisdom(path);
    if (!items) return items.error();
    return take(std::move(*items));
  });
}

Status save(const std::string& path) {
  return guard_memory("save the wisdom", [&] { return save_wisdom(path, all_entries()); });
}

void forget() {
  Store& s = store();
  const std::unique_lock lock(s.mutex);
  s.entries.clear();
}

std::size_t size() {
  Store& s = store();
  const std::shared_lock lock(s.mutex);
  return s.entries.size();
}

std::optional<Schedule> find(const ModelSpec& spec, Isa isa, int threads,
                             std::vector<std::string>& notes) {
  Store& s = store();
  std::call_once(s.environment, [&] { read_environment(s); });
  notes.insert(notes.end(), s.notes.begin(), s.notes.end());
  if (size() == 0) return {};
  const WisdomKey key = WisdomKey::of(spec, threads, isa);
  Known known;
  {
    const std::shared_lock lock(s.mutex);
    const auto found = s.entries.find(key.id());
    if (found == s.entries.end()) return {};
    known = found->second;
  }
  const bool checked = known.lowered && spec.batch == key.batch.low;
  const Status status = checked ? Status() : check_lowering(spec, known.entry.schedule);
  if (status.ok()) return std::move(known.entry.schedule);
  notes.push_back(
      fmt::format("wisdom: schedule.{}; the estimate serves instead", status.error().message()));
  return {};
}

Status add(const WisdomEntry& entry) {
  return guard_memory("keep a schedule", [&]() -> Status {
    // The same way as a file's entries, so that what is saved can be loaded.
    auto items = parse_wisdom(wisdom_text({to_item(entry)}));
    if (!items) return items.error();
    const Report report = take(std::move(*items));
    if (!report.refused.empty()) return Error(report.refused.front().reason);
    return {};
  });
}

}  // namespace deepcpu::wisdom
