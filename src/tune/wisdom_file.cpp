// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "src/guard_memory.hpp"
#include "src/io/file.hpp"
#include "src/io/file_lock.hpp"
#include "src/tune/wisdom_check.hpp"

namespace deepcpu {
namespace {

constexpr double kLockSeconds = 60.0;

bool is_absent(const std::string& path) {
  return ::access(path.c_str(), F_OK) != 0 && errno == ENOENT;
}

/// The items of a file to be changed.
Result<std::vector<WisdomItem>> read_old(const std::string& path) {
  if (is_absent(path)) return std::vector<WisdomItem>();
  const auto text = read_text_file(path, kMostWisdomBytes);
  if (!text) return text.error();
  if (text->empty()) return std::vector<WisdomItem>();
  auto items = parse_wisdom(*text);
  if (!items) return with_prefix(path + ": ", items.error());
  return items;
}

Status write_items(const std::string& path, const std::vector<WisdomItem>& items) {
  const std::string text = wisdom_text(items);
  if (text.size() > kMostWisdomBytes || items.size() > kMostWisdomEntries) {
    return Error(fmt::format("{}: would have {} entries in {} bytes; must have at most {} in {}",
                             path, items.size(), text.size(), kMostWisdomEntries,
                             kMostWisdomBytes));
  }
  const std::array parts = {std::as_bytes(std::span(text))};
  return write_file(path, parts);
}

}  // namespace

Result<std::vector<WisdomItem>> read_wisdom(const std::string& path) {
  return guard_memory("read the wisdom", [&]() -> Result<std::vector<WisdomItem>> {
    const auto text = read_text_file(path, kMostWisdomBytes);
    if (!text) return text.error();
    auto items = parse_wisdom(*text);
    if (!items) return with_prefix(path + ": ", items.error());
    return items;
  });
}

void merge_items(std::vector<WisdomItem>& into, std::vector<WisdomItem> items) {
  std::unordered_map<std::string, std::size_t> at;
  for (std::size_t i = 0; i < into.size(); ++i) {
    if (into[i].id.empty()) continue;
    // Of an illegal and a legal item with one key, the legal one stands for it.
    const auto [found, added] = at.emplace(into[i].id, i);
    if (!added && !into[found->second].entry) found->second = i;
  }
  for (WisdomItem& item : items) {
    const auto [found, added] = at.emplace(item.id, into.size());
    if (added) {
      into.push_back(std::move(item));
      continue;
    }
    WisdomItem& old = into[found->second];
    if (old.entry && better_evidence(*old.entry, *item.entry)) continue;
    old = std::move(item);
  }
}

Status update_wisdom(const std::string& path,
                     const std::function<void(std::vector<WisdomItem>&)>& change) {
  return guard_memory("change the wisdom", [&]() -> Status {
    const auto target = write_target(path);
    if (!target) return target.error();
    const auto lock = FileLock::acquire(*target, kLockSeconds);
    if (!lock) return lock.error();
    remove_leftovers(*target);
    auto items = read_old(path);
    if (!items) return items.error();
    change(*items);
    return write_items(path, *items);
  });
}

Status check_wisdom_output(const std::string& path) {
  return guard_memory("look at the wisdom", [&]() -> Status {
    if (auto status = check_writable(path); !status) return status;
    const auto old = read_old(path);
    return old ? Status() : Status(old.error());
  });
}

Status save_wisdom(const std::string& path, std::span<const WisdomEntry> entries) {
  return update_wisdom(path, [&](std::vector<WisdomItem>& items) {
    std::vector<WisdomItem> ours;
    ours.reserve(entries.size());
    for (const WisdomEntry& entry : entries) ours.push_back(to_item(entry));
    merge_items(items, std::move(ours));
  });
}

}  // namespace deepcpu
