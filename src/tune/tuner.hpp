// SPDX-License-Identifier: Apache-2.0
/// Tuner: finds the fastest schedule of a problem on this machine by running candidates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/model.hpp"
#include "src/tune/cost_model.hpp"
#include "src/tune/race.hpp"

namespace deepcpu {

enum class Effort : std::uint8_t {
  estimate,    ///< the cost model alone; nothing is run
  measure,     ///< the candidates that the model ranks first are timed
  exhaustive,  ///< every schedule that the pruning rules leave is timed
};
std::string_view to_string(Effort effort) noexcept;
Result<Effort> parse_effort(std::string_view text);

struct TuneProgress {
  std::size_t candidates = 0;  ///< of which times are taken
  int left = 0;                ///< not yet dropped
  int rounds = 0;              ///< of the present heat
  double best_us = 0.0;        ///< of the leader of the present heat
  double done = 0.0;           ///< 0..1, by the time limit
};

struct TuneOptions {
  Effort effort = Effort::measure;
  int threads = 1;           ///< a cap besides the processors that the process may use
  std::optional<Isa> isa{};  ///< a cap besides the best that the machine has
  int candidates = 20;       ///< of effort measure
  /// Timed first, with any effort but estimate; they count as candidates.
  std::vector<Schedule> also{};
  double seconds = 10.0;   ///< time limit; there is always an answer
  bool cold = false;       ///< weights are evicted from all caches before every run
  std::uint64_t seed = 1;  ///< of weights and inputs
  /// What the cost model goes by; null: machine_model(). With another the effort must be estimate:
  /// the answer is for that machine, its ISA and number of cores.
  const MachineModel* machine = nullptr;
  std::function<void(const TuneProgress&)> progress{};
  std::function<bool()> stop{};  ///< asked often; true ends the search with the best so far
  /// For tests: may change what a candidate computed before it is compared.
  std::function<void(const Schedule&, std::vector<float>&)> tamper{};
};

/// A candidate and what was found out.
struct Candidate {
  Schedule schedule;
  Prediction predicted;  ///< for the problem's own number of steps
  RaceTime measured;     ///< all zero if it was never timed
  std::string refused;   ///< why it was not ranked; empty if it was
};

struct TuneResult {
  Schedule schedule;
  double predicted_us = 0.0;
  double measured_us = 0.0;  ///< 0 with effort estimate
  double spread = 0.0;
  Effort effort = Effort::estimate;  ///< estimate also where the interpreter serves
  std::int64_t steps = 0;            ///< of the runs that were timed
  /// By `stop`, or before all schedules were ranked and all candidates had their time.
  bool stopped = false;
  /// Best first; those that were never ranked last.
  std::vector<Candidate> candidates;
};

/// Every candidate is run and compared, bit for bit, with the simplest schedule of one thread
/// before its time counts; one that differs is refused and never ranked. Runs on the calling
/// thread and on helpers. Errors: an illegal spec, no memory for weights and inputs.
Result<TuneResult> tune(const ModelSpec& spec, const TuneOptions& options);

}  // namespace deepcpu
