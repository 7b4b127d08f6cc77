// SPDX-License-Identifier: Apache-2.0
#include "tests/property/harness.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/compile.hpp"
#include "src/runtime/memory.hpp"
#include "tests/support/call_shim.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/guarded_buffer.hpp"
#include "tests/support/random_cells.hpp"

namespace deepcpu::test {
namespace {

std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

const Node& input_node(const ModelSpec& spec, std::size_t i) {
  return spec.cell.nodes()[index(spec.cell.inputs()[i])];
}

/// Row blocks of a state: one per layer and direction, with the width of each.
std::vector<std::int64_t> state_widths(const ModelSpec& spec, const State& state) {
  std::vector<std::int64_t> widths;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    const std::int64_t width = oracle::width_of(spec, state.dim, layer);
    widths.insert(widths.end(), index(spec.directions()), width);
  }
  return widths;
}

/// Swaps the two outer dimensions of [outer, inner, width].
std::vector<float> swapped(std::span<const float> from, std::int64_t outer, std::int64_t inner,
                           std::int64_t width) {
  std::vector<float> to(from.size());
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::int64_t i = 0; i < inner; ++i) {
      std::copy_n(from.begin() + (o * inner + i) * width, width,
                  to.begin() + (i * outer + o) * width);
    }
  }
  return to;
}

/// Row `row` of [steps, batch, width].
std::vector<float> sequence_row(const std::vector<float>& from, std::int64_t batch,
                                std::int64_t row, std::int64_t width) {
  std::vector<float> out;
  const auto steps = static_cast<std::int64_t>(from.size()) / (batch * width);
  for (std::int64_t t = 0; t < steps; ++t) {
    const auto first = from.begin() + (t * batch + row) * width;
    out.insert(out.end(), first, first + width);
  }
  return out;
}

std::vector<float> states_row(const ModelSpec& spec, const State& state,
                              const std::vector<float>& from, std::int64_t row) {
  std::vector<float> out;
  auto block = from.begin();
  for (const std::int64_t width : state_widths(spec, state)) {
    out.insert(out.end(), block + row * width, block + (row + 1) * width);
    block += spec.batch * width;
  }
  return out;
}

/// A sequence in the session's layout, in memory that faults past its end (or before its start,
/// by turns) and cannot be written.
GuardedBuffer placed(std::span<const float> values, const ModelSpec& spec, std::int64_t steps,
                     Layout layout, Against against) {
  GuardedBuffer buffer(values.size_bytes(), against);
  const std::int64_t rows = steps * spec.batch;
  if (layout == Layout::time_major || rows == 0) {
    buffer.fill(values);
  } else {
    const std::int64_t width = static_cast<std::int64_t>(values.size()) / rows;
    buffer.fill(swapped(values, steps, spec.batch, width));
  }
  buffer.make_read_only();
  return buffer;
}

/// One call of Session::run for the steps [first, first + steps).
class Call {
 public:
  Call(const Problem& problem, const RunOptions& options, std::int64_t first, std::int64_t steps)
      : problem_(problem),
        options_(options),
        first_(first),
        steps_(steps),
        against_((first + steps) % 2 == 0 ? Against::end : Against::start),
        x_(place(problem.x, problem.spec.input)),
        y_(index(steps * problem.spec.batch * oracle::output_width(problem.spec)) * sizeof(float),
           against_) {
    for (std::size_t i = 0; i < problem.extra.size(); ++i) {
      const Dim dim = input_node(problem.spec, i + 1).dim;
      extra_.push_back(place(problem.extra[i], oracle::width_of(problem.spec, dim, 0)));
    }
  }

  /// Appends the y of this call, time-major.
  void operator()(Session& session, bool code, std::vector<float>& y) {
    std::vector<std::span<const float>> extra;
    for (const GuardedBuffer& e : extra_) extra.push_back(e.floats());
    Status status;
    auto function = [&] {
      status = session.run(x_.floats(), y_.floats(), extra, problem_.lengths);
    };
    CallOptions convention;
    convention.mxcsr = kDefaultMxcsr;
    convention.check_uppers = code && steps_ > 0 && problem_.lengths.empty();
    const std::string broken = checked_run(function, convention);
    if (!status.ok()) fail("run: " + status.error().message());
    if (!broken.empty()) fail("run broke the calling convention: " + broken);
    if (!y_.intact()) fail("run wrote next to y");
    append(y);
  }

 private:
  GuardedBuffer place(const std::vector<float>& all, std::int64_t width) const {
    const std::size_t step = index(problem_.spec.batch * width);
    const std::span<const float> part(all.data() + index(first_) * step, index(steps_) * step);
    return placed(part, problem_.spec, steps_, options_.layout, against_);
  }

  void append(std::vector<float>& y) const {
    const std::span<const float> out = y_.floats();
    if (options_.layout == Layout::time_major) {
      y.insert(y.end(), out.begin(), out.end());
      return;
    }
    const std::vector<float> turned =
        swapped(out, problem_.spec.batch, steps_, oracle::output_width(problem_.spec));
    y.insert(y.end(), turned.begin(), turned.end());
  }

  const Problem& problem_;
  const RunOptions& options_;
  std::int64_t first_;
  std::int64_t steps_;
  Against against_;
  GuardedBuffer x_;
  GuardedBuffer y_;
  std::vector<GuardedBuffer> extra_;
};

}  // namespace

Problem make_problem(const std::string& text) {
  Result<ModelSpec> spec = parse_problem(text);
  if (!spec.ok()) fail(text + ": " + spec.error().message());
  const std::uint64_t seed = hash_of(text);
  Problem p{text, *spec, Weights::random(*spec, seed).value(), spec->steps, {}, {}, {}, {}};
  Random random(seed);
  const std::size_t rows = index(p.steps * spec->batch);
  p.x = random_floats(random, rows * index(spec->input));
  for (std::size_t i = 1; i < spec->cell.inputs().size(); ++i) {
    const std::int64_t width = oracle::width_of(*spec, input_node(*spec, i).dim, 0);
    p.extra.push_back(random_floats(random, rows * index(width)));
  }
  for (const State& s : spec->cell.states()) {
    const std::vector<std::int64_t> widths = state_widths(*spec, s);
    const std::int64_t sum = std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
    p.initial[s.name] = random_floats(random, index(sum * spec->batch));
  }
  if (random.chance(0.25)) {
    for (std::int64_t b = 0; b < spec->batch; ++b) p.lengths.push_back(random.range(0, p.steps));
  }
  return p;
}

oracle::Input oracle_input(const Problem& p) {
  const auto widened = [](const std::vector<float>& v) {
    return std::vector<double>(v.begin(), v.end());
  };
  oracle::Input input;
  input.steps = p.steps;
  input.x = widened(p.x);
  for (const auto& e : p.extra) input.extra.push_back(widened(e));
  for (const auto& [name, values] : p.initial) input.initial[name] = widened(values);
  input.lengths = p.lengths;
  return input;
}

Problem one_row(const Problem& p, std::int64_t row) {
  Problem out = p;
  out.spec.batch = 1;
  out.x = sequence_row(p.x, p.spec.batch, row, p.spec.input);
  for (std::size_t i = 0; i < p.extra.size(); ++i) {
    const std::int64_t width = oracle::width_of(p.spec, input_node(p.spec, i + 1).dim, 0);
    out.extra[i] = sequence_row(p.extra[i], p.spec.batch, row, width);
  }
  for (const State& s : p.spec.cell.states()) {
    out.initial[s.name] = states_row(p.spec, s, p.initial.at(s.name), row);
  }
  if (!p.lengths.empty()) out.lengths = {p.lengths[index(row)]};
  return out;
}

Outcome row_of(const Problem& p, const Outcome& outcome, std::int64_t row) {
  Outcome out;
  out.y = sequence_row(outcome.y, p.spec.batch, row, oracle::output_width(p.spec));
  for (const State& s : p.spec.cell.states()) {
    out.final[s.name] = states_row(p.spec, s, outcome.final.at(s.name), row);
  }
  return out;
}

std::string difference(const Outcome& actual, const Outcome& expected) {
  std::string out = bit_difference(actual.y, expected.y);
  if (!out.empty()) return "y: " + out;
  for (const auto& [name, values] : expected.final) {
    out = bit_difference(actual.final.at(name), values);
    if (!out.empty()) return "state " + name + ": " + out;
  }
  return {};
}

namespace {
/// Whether a kernel of the model has no code because it would be too large.
bool too_large(const ModelSpec& spec, const CompileOptions& options) {
  const auto compiled = compile_program(spec, options);
  if (!compiled.ok()) return false;
  return std::any_of(compiled->layers.begin(), compiled->layers.end(),
                     [](const LayerCode& layer) { return layer.too_large(); });
}
}  // namespace

Model compile(const Problem& p, Isa isa, const std::optional<Schedule>& schedule) {
  poison_new_memory.store(true);
  CompileOptions options;
  options.isa = isa;
  options.schedule = schedule;
  if (schedule) options.threads = schedule->threads;
  Result<Model> model = Model::compile(p.spec, p.weights, options);
  if (!model.ok()) fail("compile: " + model.error().message());
  if (!model->notes().empty()) {
    if (too_large(p.spec, options)) throw CodeTooLarge(model->notes().front());
    fail("compile took a fallback: " + model->notes().front());
  }
  if (isa != Isa::interpreter && model->code_bytes() == 0) fail("compile: no code was emitted");
  return std::move(*model);
}

namespace {
/// A session that goes through a problem, call by call.
class Stream {
 public:
  Stream(const Problem& p, const Model& model, const RunOptions& options)
      : p_(p), options_(options), emitted_(model.code_bytes() > 0) {
    Result<Session> session = model.session(options.layout, p.steps);
    if (!session.ok()) fail("session: " + session.error().message());
    session_.emplace(std::move(*session));
    for (const auto& [name, values] : p.initial) session_->set_state(name, values).value();
  }

  void advance(std::int64_t steps) {
    Call call(p_, options_, first_, steps);
    call(*session_, emitted_, out_.y);
    first_ += steps;
  }

  Outcome outcome() {
    for (const auto& [name, values] : p_.initial) {
      out_.final[name].resize(values.size());
      session_->get_state(name, out_.final[name]).value();
    }
    return std::move(out_);
  }

 private:
  const Problem& p_;
  RunOptions options_;
  bool emitted_;
  std::optional<Session> session_;
  std::int64_t first_ = 0;
  Outcome out_;
};
}  // namespace

Outcome run(const Problem& p, const Model& model, const RunOptions& options) {
  Stream stream(p, model, options);
  std::vector<std::int64_t> parts = options.parts;
  if (parts.empty()) parts = {p.steps};
  for (const std::int64_t steps : parts) stream.advance(steps);
  return stream.outcome();
}

std::pair<Outcome, Outcome> run_in_turns(const Problem& a, const Problem& b, const Model& model,
                                         const RunOptions& options) {
  Stream first(a, model, options);
  Stream second(b, model, options);
  for (const std::int64_t steps : options.parts) {
    first.advance(steps);
    second.advance(steps);
  }
  Outcome one = first.outcome();
  return {std::move(one), second.outcome()};
}

std::vector<Isa> host_isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa <= host_isa()) out.push_back(isa);
  }
  return out;
}

std::vector<std::string> problems(int count, std::uint64_t first_seed) {
  if (const char* one = std::getenv("DEEPCPU_PROBLEM")) return {one};
  const char* is_short = std::getenv("DEEPCPU_TEST_SHORT");
  if (is_short != nullptr && std::string_view(is_short) == "1") count = (count + 3) / 4;
  if (const char* seed = std::getenv("DEEPCPU_SEED")) {
    first_seed += std::strtoull(seed, nullptr, 10);
  }
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(random_problem(first_seed + static_cast<std::uint64_t>(i)));
  }
  return out;
}

}  // namespace deepcpu::test
