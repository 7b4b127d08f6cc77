// SPDX-License-Identifier: Apache-2.0
#include "deepcpu/model.hpp"

#include <fmt/format.h>
#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>

#include "src/compile.hpp"
#include "src/guard_memory.hpp"
#include "src/model/weights.hpp"
#include "src/other_ways.hpp"
#include "src/runtime/row_order.hpp"
#include "src/runtime/runner.hpp"
#include "src/runtime/team_choice.hpp"
#include "src/schedule/names.hpp"

namespace deepcpu {

struct Model::Impl : CompiledModel {
  /// The programs of OtherWays, and for which runs.
  std::shared_ptr<const CompiledModel> alone;
  std::shared_ptr<const CompiledModel> hoist;
  TeamChoice::Range range;  ///< also of one that is not there
  double others_us = 0.0;   ///< OtherWays::microseconds
};

namespace {
std::size_t code_bytes_of(const Compilation& c) {
  std::size_t bytes = 0;
  for (const LayerCode& layer : c.layers) {
    if (layer.step.code) bytes += layer.step.code->size();
    if (layer.hoist && layer.hoist->code) bytes += layer.hoist->code->size();
    if (layer.ahead && layer.ahead->code) bytes += layer.ahead->code->size();
  }
  return bytes;
}
}  // namespace

namespace {
/// The model serves without, where there is no memory for them.
void add_other_ways(Model::Impl& model, const CompileOptions& options) {
  OtherWays others = compile_other_ways(model.compiled, options);
  model.others_us = others.microseconds;
  const auto add = [&](std::shared_ptr<const CompiledModel>& to,
                       std::unique_ptr<Compilation> from) {
    if (!from) return;
    (void)guard_memory("keep another way", [&]() -> Status {
      auto other = std::make_shared<CompiledModel>();
      other->compiled = std::move(*from);
      other->packed = model.packed;
      to = std::move(other);
      return {};
    });
  };
  add(model.alone, std::move(others.alone));
  add(model.hoist, std::move(others.hoist));
  model.range = {others.most_alone, others.least_hoist};
}
}  // namespace

Result<Model> Model::compile(const ModelSpec& spec, const Weights& weights,
                             const CompileOptions& options) {
  return guard_memory("compile the model", [&]() -> Result<Model> {
    if (auto st = spec.validate(); !st) return st.error();
    if (auto st = check_weights(spec, weights); !st) return st.error();
    auto compiled = compile_program(spec, options);
    if (!compiled) return compiled.error();
    auto impl = std::make_shared<Impl>();
    impl->compiled = std::move(*compiled);
    auto packed = pack_weights(impl->compiled, weights);
    if (!packed) return packed.error();
    impl->packed = std::move(*packed);
    add_other_ways(*impl, options);
    return Model(std::move(impl));
  });
}

const ModelSpec& Model::spec() const noexcept { return impl_->compiled.spec; }
const Schedule& Model::schedule() const noexcept { return impl_->compiled.schedule; }
const std::vector<std::string>& Model::notes() const noexcept { return impl_->compiled.notes; }
std::size_t Model::packed_bytes() const noexcept { return impl_->packed->bytes.size(); }

double Model::compile_microseconds() const noexcept {
  return impl_->compiled.microseconds + impl_->others_us;
}

std::size_t Model::code_bytes() const noexcept {
  std::size_t bytes = code_bytes_of(impl_->compiled);
  for (const auto& other : {impl_->alone, impl_->hoist}) {
    bytes += other ? code_bytes_of(other->compiled) : 0;
  }
  return bytes;
}

struct Session::Impl {
  std::unique_ptr<Runner> runner;
  std::unique_ptr<Runner> alone;  ///< the model on one thread, if that may be faster
  std::unique_ptr<Runner> hoist;  ///< the same with parallel=hoist, if that may be faster
  Runner* current = nullptr;      ///< the one that has the states
  TeamChoice choice;
  bool carries_state = true;  ///< forward models; others start anew at every call
  bool state_is_set = true;   ///< by the user or by reset, for the next call
  bool verbose = false;
  int threads = 0;          ///< of the last run
  std::atomic_flag in_use;  ///< set while run() is under way

  /// Of the last run.
  Parallel parallel() const noexcept {
    return threads > 1 ? current->model().compiled.schedule.parallel : Parallel::none;
  }
};

namespace {
/// Marks a session as in use; taken() is false if another thread is inside run() already.
class InUse {
 public:
  explicit InUse(std::atomic_flag& flag)
      : flag_(flag), taken_(!flag.test_and_set(std::memory_order_acquire)) {}
  ~InUse() {
    if (taken_) flag_.clear(std::memory_order_release);
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  bool taken() const { return taken_; }

 private:
  std::atomic_flag& flag_;
  bool taken_;
};
}  // namespace

namespace {
/// That the states and the scratch of a session can be had.
Status check_memory(const CompiledModel& model, std::int64_t max_steps) {
  const Compilation& c = model.compiled;
  const std::string what =
      fmt::format("session: with batch={}, blocks of {} steps and max_steps={} it takes",
                  c.spec.batch, c.program.block, max_steps);
  return check_available(what, session_bytes(c, max_steps));
}

/// Null where there is no such program, or no memory for its states and scratch besides those that
/// the session has already: it serves without.
std::unique_ptr<Runner> make_other(const std::shared_ptr<const CompiledModel>& model, Layout layout,
                                   std::int64_t max_steps, std::shared_ptr<ThreadTeam> team) {
  std::unique_ptr<Runner> runner;
  if (!model) return runner;
  (void)guard_memory("make the runner of another way", [&]() -> Status {
    if (auto st = check_memory(*model, max_steps); !st) return st;
    runner = std::make_unique<Runner>(model, layout, max_steps, std::move(team));
    return {};
  });
  return runner;
}
}  // namespace

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Model::session(Layout layout, std::int64_t max_steps,
                               const HelperOptions& helpers) const {
  return guard_memory("make a session", [&]() -> Result<Session> {
    constexpr std::int64_t kMostSteps = 2147483647;
    if (max_steps < 0 || max_steps > kMostSteps) {
      return Error(fmt::format("max_steps={}: must be between 0 and {}", max_steps, kMostSteps));
    }
    constexpr int kMostSpin = 10'000'000;
    if (helpers.spin_us < 0 || helpers.spin_us > kMostSpin) {
      return Error(fmt::format("spin_us={}: must be between 0 and {}", helpers.spin_us, kMostSpin));
    }
    if (max_steps == 0) max_steps = impl_->compiled.spec.steps;
    if (auto st = check_memory(*impl_, max_steps); !st) return st.error();
    auto session = std::make_unique<Session::Impl>();
    session->runner = std::make_unique<Runner>(impl_, layout, max_steps, nullptr, helpers);
    session->alone = make_other(impl_->alone, layout, max_steps, nullptr);
    // Without helpers for the team there are none for this.
    const std::shared_ptr<ThreadTeam> team = session->runner->team();
    if (team) session->hoist = make_other(impl_->hoist, layout, max_steps, team);
    if (session->hoist && session->hoist->team() != team) session->hoist.reset();
    TeamChoice::Range range = impl_->range;
    if (!session->alone) range.most_alone = 0;
    if (!session->hoist) range.least_hoist = 0;
    session->choice = TeamChoice(range);
    session->current = session->runner.get();
    session->carries_state = impl_->compiled.spec.direction == Direction::forward;
    const char* verbose = std::getenv("DEEPCPU_VERBOSE");
    session->verbose = verbose != nullptr && std::string_view(verbose) == "1";
    return Session(std::move(session));
  });
}

namespace {

Status check_size(std::string_view name, std::size_t have, std::int64_t want,
                  std::string_view rule) {
  if (have == static_cast<std::size_t>(want)) return {};
  return Error(fmt::format("{}: {} numbers given, {} needed ({})", name, have, want, rule));
}

Status check_lengths(std::span<const std::int64_t> lengths, std::int64_t batch,
                     std::int64_t steps) {
  if (lengths.empty()) return {};
  if (auto st = check_size("lengths", lengths.size(), batch, "one per batch row"); !st) return st;
  return check_within(lengths, steps);
}

/// Inputs of later steps are read after outputs of earlier ones were written.
Status check_apart(std::string_view name, std::span<const float> input, std::span<const float> y) {
  const std::less<const float*> before;
  const float* end = input.data() + input.size();
  const bool apart = !before(input.data(), y.data() + y.size()) || !before(y.data(), end);
  if (apart || input.empty() || y.empty()) return {};
  return Error(fmt::format("y: overlaps {}; must be apart from all that is read", name));
}

Status check_extra(const ModelSpec& spec, std::span<const std::span<const float>> extra,
                   std::int64_t steps, std::span<const float> y) {
  const std::vector<int>& inputs = spec.cell.inputs();
  if (extra.size() + 1 != inputs.size()) {
    return Error(fmt::format("extra: {} inputs given, cell {} has {} besides x", extra.size(),
                             spec.cell.name(), inputs.size() - 1));
  }
  for (std::size_t i = 0; i < extra.size(); ++i) {
    const Node& n = spec.cell.nodes()[static_cast<std::size_t>(inputs[i + 1])];
    const std::int64_t want = steps * spec.batch * spec.width(n.dim, 0);
    if (auto st = check_size(n.name, extra[i].size(), want, "T * batch * width"); !st) return st;
    if (auto st = check_apart(n.name, extra[i], y); !st) return st;
  }
  return {};
}

Status check_run(const Runner& runner, std::span<const float> x, std::span<float> y,
                 const RunInput& in) {
  const ModelSpec& spec = runner.model().compiled.spec;
  // The number of steps is x.size() over the numbers of one, rounded down.
  if (x.size() != static_cast<std::size_t>(in.steps * spec.batch * spec.input)) {
    return Error(fmt::format("x: {} numbers given, not a multiple of batch {} * input {}", x.size(),
                             spec.batch, spec.input));
  }
  const std::int64_t y_size = in.steps * spec.batch * spec.output_width();
  if (auto st = check_size("y", y.size(), y_size, "T * batch * output width"); !st) return st;
  if (auto st = check_apart("x", x, y); !st) return st;
  if (auto st = check_extra(spec, in.extra, in.steps, y); !st) return st;
  if (runner.model().compiled.program.whole_sequence && in.steps > runner.max_steps()) {
    return Error(fmt::format("T={}: longer than max_steps={} that the session was made for",
                             in.steps, runner.max_steps()));
  }
  return check_lengths(in.lengths, spec.batch, in.steps);
}

/// An aid: whether the line could be made and written does not matter.
void report_run(const Session::Impl& session, std::int64_t steps) {
  const Compilation& c = session.current->model().compiled;
  (void)guard_memory("report the run", [&]() -> Status {
    const std::string line =
        fmt::format("deepcpu,run,{},{},{},{},{}\n", c.spec.str(), to_string(c.schedule.isa),
                    session.threads, word(session.parallel()), steps);
    std::fputs(line.c_str(), stderr);
    return {};
  });
}

}  // namespace

namespace {
TeamChoice::Way next_way(Session::Impl& session, const RunInput& in) noexcept {
  using Way = TeamChoice::Way;
  if (!session.runner->why_serial().empty()) return session.alone ? Way::alone : Way::team;
  return session.choice.next(in.steps, !in.lengths.empty());
}

/// The runner for the next run, with the states.
Runner& runner_for(Session::Impl& session, const RunInput& in) noexcept {
  if (!session.alone && !session.hoist) return *session.current;
  const TeamChoice::Way way = next_way(session, in);
  Runner* runner = session.runner.get();
  if (way == TeamChoice::Way::alone) runner = session.alone.get();
  if (way == TeamChoice::Way::hoist) runner = session.hoist.get();
  if (runner != session.current) runner->take_states(*session.current);
  session.current = runner;
  return *runner;
}

Status checked_run(Session::Impl& session, std::span<const float> x, std::span<float> y,
                   std::span<const std::span<const float>> extra,
                   std::span<const std::int64_t> lengths) {
  const InUse guard(session.in_use);
  if (!guard.taken()) return Error("run: the session is in use by another thread");
  const ModelSpec& spec = session.runner->model().compiled.spec;
  RunInput in;
  in.x = x.data();
  in.y = y.data();
  in.extra = extra;
  in.lengths = lengths;
  in.steps = static_cast<std::int64_t>(x.size()) / (spec.batch * spec.input);
  if (auto st = check_run(*session.runner, x, y, in); !st) return st;
  ThreadTeam* team = session.runner->team().get();
  if (team != nullptr && !team->follow_fork()) {
    return Error(
        "threads: the helpers could not be started after fork(); the next run tries again");
  }
  const auto full = [&](std::int64_t length) { return length == in.steps; };
  if (std::all_of(lengths.begin(), lengths.end(), full)) in.lengths = {};
  Runner& runner = runner_for(session, in);
  if (!session.carries_state && !session.state_is_set) runner.reset();
  if (session.alone || session.hoist) {
    const std::uint64_t start = __rdtsc();
    session.threads = runner.run(in);
    session.choice.took(static_cast<double>(__rdtsc() - start));
  } else {
    session.threads = runner.run(in);
  }
  session.state_is_set = false;
  if (session.verbose) report_run(session, in.steps);
  return {};
}
}  // namespace

namespace {
Status moved_from(std::string_view call) noexcept {
  return guard_memory("say that a session was moved from", [&]() -> Status {
    return Error(fmt::format("{}: the session was moved from", call));
  });
}
}  // namespace

Status Session::run(std::span<const float> x, std::span<float> y,
                    std::span<const std::span<const float>> extra,
                    std::span<const std::int64_t> lengths) noexcept {
  if (!impl_) return moved_from("run");
  // Only sentences of errors need memory here.
  return guard_memory("say what is wrong with the run",
                      [&] { return checked_run(*impl_, x, y, extra, lengths); });
}

std::vector<std::string> Session::notes() const {
  if (!impl_) return {};
  const std::string_view why = impl_->runner->why_serial();
  if (why.empty()) return {};
  return {fmt::format("threads: {}; one thread serves instead", why)};
}

int Session::threads() const noexcept { return impl_ ? impl_->threads : 0; }

Parallel Session::parallel() const noexcept { return impl_ ? impl_->parallel() : Parallel::none; }

void Session::reset() noexcept {
  if (!impl_) return;
  impl_->current->reset();
  impl_->state_is_set = true;
}

namespace {

/// Calls visit(program step, state index, offset in the user's array, count) for state `name`.
template <class Visit>
Status for_state(const Runner& runner, std::string_view name, std::size_t size, Visit visit) {
  const Compilation& c = runner.model().compiled;
  const auto& states = c.spec.cell.states();
  const auto it =
      std::find_if(states.begin(), states.end(), [&](const State& s) { return s.name == name; });
  if (it == states.end()) {
    return Error(fmt::format("state {}: cell {} has no such state", name, c.spec.cell.name()));
  }
  std::int64_t total = 0;
  for (const ProgramStep& step : c.program.steps) {
    total += c.spec.width(it->dim, step.layer) * c.spec.batch;
  }
  if (auto st = check_size(fmt::format("state {}", name), size, total,
                           "layers * directions * batch * width");
      !st) {
    return st;
  }
  std::size_t offset = 0;
  for (std::size_t i = 0; i < c.program.steps.size(); ++i) {
    visit(i, static_cast<int>(it - states.begin()), offset);
    offset +=
        static_cast<std::size_t>(c.spec.width(it->dim, c.program.steps[i].layer) * c.spec.batch);
  }
  return {};
}

}  // namespace

Status Session::set_state(std::string_view name, std::span<const float> values) {
  if (!impl_) return moved_from("set_state");
  Runner& runner = *impl_->current;
  const auto store = [&](std::size_t step, int state, std::size_t at) {
    // Of a model that starts anew at every call, the states not set begin at zero.
    if (!impl_->carries_state && !impl_->state_is_set) runner.reset();
    impl_->state_is_set = true;
    runner.store_state(step, state, values.data() + at);
  };
  return guard_memory("set a state", [&] { return for_state(runner, name, values.size(), store); });
}

Status Session::get_state(std::string_view name, std::span<float> values) const {
  if (!impl_) return moved_from("get_state");
  const Runner& runner = *impl_->current;
  const auto load = [&](std::size_t step, int state, std::size_t at) {
    runner.load_state(step, state, values.data() + at);
  };
  return guard_memory("get a state", [&] { return for_state(runner, name, values.size(), load); });
}

}  // namespace deepcpu
