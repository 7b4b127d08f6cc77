// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_entry.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "deepcpu/version.hpp"
#include "src/cells/cell_hash.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/system.hpp"
#include "src/model/problem.hpp"

namespace deepcpu {
namespace {

/// Sizes and direction of a problem string: what stands between the cell and its options.
std::string_view dims_of(std::string_view problem) {
  problem.remove_prefix(std::min(problem.find(':') + 1, problem.size()));
  return problem.substr(0, problem.find(','));
}

int rank(const std::optional<Effort>& effort) noexcept {
  if (!effort) return 1;
  return *effort == Effort::estimate ? 0 : 1 + static_cast<int>(*effort);
}

double time_of_one(const WisdomEntry& e) noexcept {
  const auto steps = static_cast<double>(std::max<std::int64_t>(e.steps, 1));
  const auto rows = static_cast<double>(std::max<std::int64_t>(e.rows, 1));
  return e.measured_us / (steps * rows);
}

}  // namespace

namespace {
template <class Classes>
const SizeClass& class_in(const Classes& classes, std::int64_t size) noexcept {
  const auto* found = std::find_if(classes.begin(), classes.end(),
                                   [&](const SizeClass& c) { return size <= c.high; });
  return found == classes.end() ? classes.back() : *found;
}
}  // namespace

const SizeClass& batch_class(std::int64_t batch) noexcept { return class_in(kBatchClasses, batch); }
const SizeClass& step_class(std::int64_t steps) noexcept { return class_in(kStepClasses, steps); }

const std::string& this_machine_key() {
  static const std::string key = machine_key(machine());
  return key;
}

WisdomKey WisdomKey::of(const ModelSpec& spec, int threads, Isa isa, const Machine& on) {
  WisdomKey key;
  key.cell = cell_hash(spec.cell);
  key.problem = shape_text(spec.cell.name(), spec);
  key.threads = threads;
  key.batch = batch_class(spec.batch);
  key.steps = step_class(spec.steps);
  if (isa < on.isa) key.isa = isa;
  key.machine = &on == &deepcpu::machine() ? this_machine_key() : machine_key(on);
  return key;
}

std::string WisdomKey::id() const {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}", hash_text(cell), dims_of(problem), threads, batch.text,
                     steps.text, isa ? to_string(*isa) : "", machine);
}

WisdomEntry tuned_entry(const ModelSpec& spec, const TuneOptions& options,
                        const TuneResult& result) {
  WisdomEntry e;
  const MachineModel* elsewhere = options.machine;
  const int usable = elsewhere != nullptr
                         ? elsewhere->cores
                         : usable_threads(static_cast<int>(affinity().size()), machine().cpu_quota);
  const int threads = std::max(std::min(options.threads, usable), result.schedule.threads);
  const Isa best = elsewhere != nullptr ? elsewhere->isas.back().isa : machine().isa;
  const Isa host = elsewhere != nullptr ? best : host_isa();
  const Isa isa = std::min(options.isa.value_or(best), host);
  e.key = WisdomKey::of(spec, threads, isa);
  e.key.isa = isa < best ? std::optional(isa) : std::nullopt;
  if (elsewhere != nullptr) e.key.machine = elsewhere->key;
  e.schedule = result.schedule;
  e.predicted_us = result.predicted_us;
  e.measured_us = result.measured_us;
  e.spread = result.measured_us > 0.0 ? result.spread : 0.0;
  e.rows = spec.batch;
  e.steps = result.steps;
  // What was hardly timed is little evidence: of a search that ended at once only the winner
  // counts.
  const auto timed = [](const Candidate& c) { return c.measured.rounds >= kTrialRounds; };
  e.candidates = result.measured_us > 0.0
                     ? std::max<std::int64_t>(1, std::count_if(result.candidates.begin(),
                                                               result.candidates.end(), timed))
                     : static_cast<std::int64_t>(result.candidates.size());
  const Effort effort = result.stopped ? Effort::measure : result.effort;  // not exhaustive
  e.effort = result.measured_us > 0.0 ? effort : Effort::estimate;
  e.version = DEEPCPU_VERSION;
  return e;
}

bool better_evidence(const WisdomEntry& a, const WisdomEntry& b) noexcept {
  const auto strength = [](const WisdomEntry& e) {
    return std::tuple(e.measured_us > 0.0, rank(e.effort), e.candidates, -time_of_one(e));
  };
  return strength(a) > strength(b);
}

}  // namespace deepcpu
