// SPDX-License-Identifier: Apache-2.0
/// deepcpu bench: how fast problems run, warm and with the weights in the caches.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/compile.hpp"
#include "src/machine/machine_model.hpp"
#include "src/other_ways.hpp"
#include "src/quantile.hpp"
#include "src/runtime/kernel_cache.hpp"
#include "src/tune/limit.hpp"
#include "src/tune/measure.hpp"
#include "tools/deepcpu/arrays.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/compile_flags.hpp"
#include "tools/deepcpu/notes.hpp"
#include "tools/deepcpu/peak_memory.hpp"
#include "tools/deepcpu/problem_list.hpp"
#include "tools/deepcpu/work.hpp"

namespace deepcpu::cli {
namespace {

constexpr std::uint64_t kSeed = 1;
/// Compilations with an empty kernel cache, of which the median counts.
constexpr std::size_t kCompiles = 5;

constexpr const char* kFooter =
    "Times are of one run over t steps, one after the other, or with --pause as a service that is\n"
    "called now and then sees them. Without --schedule a session on several threads goes on\n"
    "alone, or shares only products of the input, where that turns out to be faster. compile:\n"
    "from the parsed problem to code, without packing the weights; first: the first run of all.\n"
    "GFLOP/s: of the matrix products. GB/s: of the weights that the kernels load, inside the time\n"
    "loop once per step and register tile of rows.\n"
    "of limit: the limit (DESIGN.md) over the median; made of measured rates if the machine was\n"
    "calibrated, else of estimated ones. --json has more, such as packed_bytes of weights,\n"
    "peak_bytes, which compiling, a session and the first run take beside the caller's arrays,\n"
    "and runs_alone and runs_hoist, the parts of the timed runs that went on alone or shared only\n"
    "products of the input, where the schedule shares more.\n"
    "What fails, a line of FILE that is no problem included, is named on stderr, the others go\n"
    "on, and the exit status is 1.";

struct BenchFlags {
  std::vector<std::string> problems;
  std::string file;
  bool json = false;
  double seconds = 0.5;
  double pause_us = 0.0;
  CompileFlags compile;
};

struct Row {
  ModelSpec spec;
  Schedule schedule;
  std::vector<std::string> notes;
  Timing timing;
  double compile_us = 0.0;
  double first_call_us = 0.0;
  std::size_t packed_bytes = 0;
  std::optional<std::int64_t> peak_bytes;  ///< of compiling, a session and the first run
  /// Parts of the timed runs that did not go as the schedule says: on one thread, with
  /// Parallel::hoist.
  double runs_alone = 0.0;
  double runs_hoist = 0.0;
  double gflops = 0.0;
  double gbytes_per_s = 0.0;
  Limit limit;  ///< of zeros if there is none: the interpreter
};

Result<double> median_compile(const ModelSpec& spec, const CompileOptions& options,
                              Compilation& last) {
  std::vector<double> us(kCompiles);
  for (double& each : us) {
    kernel_cache().clear();
    auto compiled = compile_program(spec, options);
    if (!compiled) return compiled.error();
    each = compiled->microseconds + compile_other_ways(*compiled, options).microseconds;
    last = std::move(*compiled);
  }
  return median(std::move(us));
}

/// What a caller brings along.
struct Arrays {
  std::vector<NpyFloats> inputs;
  NpyFloats y;
};

MeasureOptions measure_options(const BenchFlags& flags) {
  MeasureOptions options;
  options.seconds = flags.seconds;
  options.warm_up_seconds = std::min(options.warm_up_seconds, flags.seconds);
  if (flags.pause_us > 0.0) {
    const std::chrono::duration<double, std::micro> pause(flags.pause_us);
    options.pause = [pause] { std::this_thread::sleep_for(pause); };
  }
  return options;
}

/// Times the first run and then the warm ones. The state carries on from run to run.
Status time_runs(const Model& model, Arrays& arrays, const MeasureOptions& options,
                 const PeakMemory& memory, Row& row) {
  const auto& inputs = arrays.inputs;
  NpyFloats& y = arrays.y;
  auto session = model.session(Layout::time_major, row.spec.steps);
  if (!session) return session.error();
  for (std::string& note : session->notes()) row.notes.push_back(std::move(note));
  std::vector<std::span<const float>> extra;
  for (std::size_t i = 1; i < inputs.size(); ++i) extra.emplace_back(inputs[i].data);
  Status status;
  double runs = 0.0;
  double alone = 0.0;
  double hoist = 0.0;
  const Schedule& s = row.schedule;
  const auto run = [&] {
    auto done = session->run(inputs.front().data, y.data, extra);
    if (!done) status = done;
    runs += 1.0;
    alone += s.threads > 1 && session->threads() == 1 ? 1.0 : 0.0;
    const Parallel shared = session->parallel();
    hoist += shared == Parallel::hoist && s.parallel != shared ? 1.0 : 0.0;
  };
  row.first_call_us = time_once(run);
  row.peak_bytes = memory.bytes();
  if (!status) return status;
  runs = alone = hoist = 0.0;
  row.timing = measure(run, options);
  row.runs_alone = runs > 0.0 ? alone / runs : 0.0;
  row.runs_hoist = runs > 0.0 ? hoist / runs : 0.0;
  if (row.runs_alone > 0.5 && session->notes().empty()) {
    row.notes.push_back(fmt::format("threads: {:.0f} % of the runs went on alone, which was faster",
                                    100.0 * row.runs_alone));
  }
  if (row.runs_hoist > 0.5) {
    row.notes.push_back(
        fmt::format("threads: in {:.0f} % of the runs they shared only products of the input, "
                    "which was faster",
                    100.0 * row.runs_hoist));
  }
  return status;
}

Limit limit_of_run(const ModelSpec& spec, Isa isa, int threads) {
  if (isa == Isa::interpreter) return {};
  const auto work = ModelWork::of(spec, isa);
  if (!work) return {};
  return limit_of(*work, machine_model(), static_cast<double>(spec.steps), threads);
}

Result<Row> bench_problem(const std::string& problem, const CompileOptions& options,
                          const MeasureOptions& timing) {
  Row row;
  auto spec = timed_problem(problem);
  if (!spec) return spec.error();
  row.spec = std::move(*spec);
  const auto weights = Weights::random(row.spec, kSeed);
  if (!weights) return weights.error();
  if (auto status = check_memory(row.spec); !status) return status.error();
  Arrays arrays{random_inputs(row.spec, kSeed), make_array(output_shape(row.spec))};
  kernel_cache().clear();
  const PeakMemory memory;
  const auto model = Model::compile(row.spec, *weights, options);
  if (!model) return model.error();
  row.packed_bytes = model->packed_bytes();
  row.schedule = model->schedule();
  row.notes = model->notes();
  if (auto status = time_runs(*model, arrays, timing, memory, row); !status) return status.error();
  Compilation compiled;
  const auto compile_us = median_compile(row.spec, options, compiled);
  if (!compile_us) return compile_us.error();
  row.compile_us = *compile_us;
  const Work work = count_work(compiled, row.spec.steps);
  row.gflops = work.flops / row.timing.median_us * 1e-3;
  row.gbytes_per_s = work.weight_bytes / row.timing.median_us * 1e-3;
  row.limit = limit_of_run(row.spec, row.schedule.isa, options.threads);
  return row;
}

nlohmann::ordered_json to_json(const Row& row) {
  nlohmann::ordered_json json;
  json["problem"] = row.spec.str();
  json["cell"] = row.spec.cell.name();
  json["threads"] = row.schedule.threads;
  json["isa"] = std::string(to_string(row.schedule.isa));
  json["median_us"] = row.timing.median_us;
  json["p99_us"] = row.timing.p99_us;
  json["min_us"] = row.timing.min_us;
  json["spread"] = row.timing.spread;
  json["samples"] = row.timing.samples;
  json["compile_us"] = row.compile_us;
  json["first_call_us"] = row.first_call_us;
  json["packed_bytes"] = row.packed_bytes;
  json["peak_bytes"] =
      row.peak_bytes ? nlohmann::ordered_json(*row.peak_bytes) : nlohmann::ordered_json(nullptr);
  json["runs_alone"] = row.runs_alone;
  json["runs_hoist"] = row.runs_hoist;
  json["gflops"] = row.gflops;
  json["gbytes_per_s"] = row.gbytes_per_s;
  const auto or_null = [](double us) { return us > 0 ? nlohmann::ordered_json(us) : nullptr; };
  json["limit_us"] = or_null(row.limit.us);
  json["floor_us"] = or_null(row.limit.floor_us);
  json["schedule"] = nlohmann::ordered_json::parse(row.schedule.to_json());
  json["notes"] = row.notes;
  return json;
}

/// Prints rows as they come; the widest problem is known before.
class Table {
 public:
  explicit Table(const std::vector<ListedProblem>& entries) {
    for (const ListedProblem& entry : entries) {
      const auto spec = ModelSpec::parse(entry.problem);
      if (spec) width_ = std::max(width_, spec->str().size());
    }
  }
  void print(const Row& row) {
    if (!std::exchange(headed_, true)) {
      fmt::print("{:<{}}  {:>7}  {:<11}  {:>11}  {:>11}  {:>10}  {:>11}  {:>8}  {:>8}  {:>8}\n",
                 "problem", width_, "threads", "isa", "median us", "p99 us", "compile us",
                 "first us", "GFLOP/s", "GB/s", "of limit");
    }
    fmt::print("{:<{}}  {:>7}  {:<11}  ", row.spec.str(), width_, row.schedule.threads,
               to_string(row.schedule.isa));
    fmt::print("{:>11.2f}  {:>11.2f}  {:>10.1f}  {:>11.1f}  {:>8.2f}  {:>8.2f}  {:>8.2f}\n",
               row.timing.median_us, row.timing.p99_us, row.compile_us, row.first_call_us,
               row.gflops, row.gbytes_per_s, row.limit.us / row.timing.median_us);
    std::fflush(stdout);
  }

 private:
  std::size_t width_ = std::string_view("problem").size();
  bool headed_ = false;
};

Status bench(const BenchFlags& flags) {
  const auto entries = problem_list(flags.problems, flags.file);
  if (!entries) return entries.error();
  const auto options = compile_options(flags.compile);
  if (!options) return options.error();
  auto array = nlohmann::ordered_json::array();
  Table table(*entries);
  std::optional<Error> failed;
  for (const ListedProblem& entry : *entries) {
    auto row = bench_problem(entry.problem, *options, measure_options(flags));
    if (!row) {
      if (failed) fmt::print(stderr, "deepcpu: {}\n", failed->message());
      failed = Error(entry.where + row.error().message());
    } else if (flags.json) {
      array.push_back(to_json(*row));
    } else {
      table.print(*row);
      for (std::string& note : row->notes) note = fmt::format("{}: {}", row->spec.str(), note);
      print_notes(row->notes);
    }
  }
  if (flags.json) fmt::print("{}\n", array.dump(2));
  if (failed) return *failed;
  return {};
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("bench", "Time problems, warm, with random numbers");
  auto flags = std::make_shared<BenchFlags>();
  sub->add_option("problems", flags->problems, "Problems, as lstm:i256h256; t is the length timed")
      ->option_text("PROBLEM...");
  sub->add_option("--file", flags->file, "More problems, one per line; # starts a comment")
      ->option_text("FILE")
      ->check(names_file);
  sub->add_flag("--json", flags->json, "Print an array of objects instead of a table");
  sub->add_option("--seconds", flags->seconds, "About how long each problem is timed")
      ->option_text("S [0.5]")
      ->check(is_number)
      ->check(CLI::Range(0.001, 3600.0));
  sub->add_option("--pause", flags->pause_us, "Sleep so many microseconds before each run")
      ->option_text("US [0]")
      ->check(is_number)
      ->check(CLI::Range(0.0, 1e6));
  add_compile_flags(*sub, flags->compile);
  sub->footer(kFooter);
  sub->callback([flags, &action] {
    if (flags->problems.empty() && flags->file.empty()) {
      throw CLI::RequiredError("PROBLEM or --file");
    }
    for (const std::string& problem : flags->problems) demand(timed_problem(problem));
    action = [flags] { return bench(*flags); };
  });
}

}  // namespace deepcpu::cli
