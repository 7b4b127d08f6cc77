// SPDX-License-Identifier: Apache-2.0
/// Wisdom files on disk: read, and changed by several processes at once.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "deepcpu/result.hpp"
#include "src/tune/wisdom_json.hpp"

namespace deepcpu {

/// The entries of a file. Errors name the file.
Result<std::vector<WisdomItem>> read_wisdom(const std::string& path);

/// Adds each of `items`, all legal, or puts it in place of the item with its key if that one is
/// refused or is no better evidence. What was there keeps its order.
void merge_items(std::vector<WisdomItem>& into, std::vector<WisdomItem> items);

/// Reads the file (an absent or empty one has no entries), applies `change` and writes it, all
/// under the file's lock. The file is whole or unchanged. Errors: as read_wisdom, the lock held by
/// another process for a minute, a file that cannot be written.
Status update_wisdom(const std::string& path,
                     const std::function<void(std::vector<WisdomItem>&)>& change);

/// What can be known before there is something to save: `path` can be written, and what stands
/// there, if anything, is a wisdom file. Errors as update_wisdom.
Status check_wisdom_output(const std::string& path);

/// Merges entries, of any machine, into the file.
Status save_wisdom(const std::string& path, std::span<const WisdomEntry> entries);

}  // namespace deepcpu
