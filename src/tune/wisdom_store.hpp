// SPDX-License-Identifier: Apache-2.0
/// The schedules that this process has loaded or found by tuning. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "deepcpu/model.hpp"
#include "deepcpu/wisdom.hpp"
#include "src/tune/wisdom_entry.hpp"

namespace deepcpu::wisdom {

/// The tuned schedule for exactly this problem, number of usable threads and ISA cap, if there is
/// one that is legal for the spec's batch. The first call of the process reads the file that
/// DEEPCPU_WISDOM names; what went wrong there is added to `notes` at every call.
std::optional<Schedule> find(const ModelSpec& spec, Isa isa, int threads,
                             std::vector<std::string>& notes);

/// Adds an entry of this machine unless better evidence is there. Errors: it is illegal, or another
/// machine's.
Status add(const WisdomEntry& entry);

}  // namespace deepcpu::wisdom
