// SPDX-License-Identifier: Apache-2.0
/// deepcpu tune: finds the fastest schedules of problems on this machine and stores them.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/machine/machine_model.hpp"
#include "src/tune/measure.hpp"
#include "src/tune/tuner.hpp"
#include "src/tune/wisdom_entry.hpp"
#include "src/tune/wisdom_file.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/compile_flags.hpp"
#include "tools/deepcpu/notes.hpp"
#include "tools/deepcpu/problem_list.hpp"

namespace deepcpu::cli {
namespace {

constexpr const char* kFooter =
    "Every candidate is compared bit for bit with a reference before its time counts. Ctrl-C ends\n"
    "the search; what was found so far is printed and stored, and the exit status is 1.";

struct TuneFlags {
  std::vector<std::string> problems;
  std::string file;
  std::string shard;
  std::string effort = "measure";
  std::string isa;
  int threads = 1;
  int candidates = TuneOptions{}.candidates;
  double seconds = TuneOptions{}.seconds;
  bool cold = false;
  bool json = false;
  std::string machine;
  std::string output;
};

std::atomic<bool> interrupted{false};

/// Takes Ctrl-C and SIGTERM while it lives. A second one ends the process as usual.
class Interrupts {
 public:
  Interrupts() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted.store(true); };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &before_[0]);
    sigaction(SIGTERM, &action, &before_[1]);
  }
  ~Interrupts() {
    sigaction(SIGINT, &before_[0], nullptr);
    sigaction(SIGTERM, &before_[1], nullptr);
  }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  struct sigaction before_[2]{};
};

/// One line on stderr that is written over and over; nothing if stderr is no terminal.
class Bar {
 public:
  explicit Bar(std::string problem) : problem_(std::move(problem)), on_(isatty(STDERR_FILENO)) {}
  ~Bar() {
    if (on_) fmt::print(stderr, "\r\x1b[K");
  }
  Bar(const Bar&) = delete;
  Bar& operator=(const Bar&) = delete;

  void show(const TuneProgress& p) const {
    if (!on_) return;
    constexpr int kWidth = 24;
    const int full = static_cast<int>(std::lround(p.done * kWidth));
    fmt::print(stderr, "\r\x1b[K{} [{:#<{}}{:.<{}}] {} of {} left, best {:.1f} us", problem_, "",
               full, "", kWidth - full, p.left, p.candidates, p.best_us);
    std::fflush(stderr);
  }

 private:
  std::string problem_;
  bool on_;
};

nlohmann::ordered_json to_json(const ModelSpec& spec, const TuneResult& r) {
  nlohmann::ordered_json json;
  json["problem"] = spec.str();
  json["effort"] = std::string(to_string(r.effort));
  json["predicted_us"] = r.predicted_us;
  json["measured_us"] = r.measured_us > 0 ? nlohmann::ordered_json(r.measured_us) : nullptr;
  json["spread"] = r.spread;
  json["candidates"] = r.candidates.size();
  json["stopped"] = r.stopped;
  json["schedule"] = nlohmann::ordered_json::parse(r.schedule.to_json());
  auto refused = nlohmann::ordered_json::array();
  for (const Candidate& c : r.candidates) {
    if (c.refused.empty()) continue;
    refused.push_back(
        {{"schedule", nlohmann::ordered_json::parse(c.schedule.to_json())}, {"reason", c.refused}});
  }
  json["refused"] = std::move(refused);
  return json;
}

void print(const ModelSpec& spec, const TuneResult& r) {
  std::string time = fmt::format("predicted {:.1f} us", r.predicted_us);
  if (r.measured_us > 0) {
    const char* busy = r.spread < kDisturbed ? "" : ", the machine was busy: tune again";
    time = fmt::format("{:.1f} us (spread {:.1f} %{}), predicted {:.1f} us", r.measured_us,
                       100.0 * r.spread, busy, r.predicted_us);
  }
  fmt::print("{}: {}, {} candidates{}\n  {}\n", spec.str(), time, r.candidates.size(),
             r.stopped ? ", stopped early" : "", r.schedule.to_json());
  for (const Candidate& c : r.candidates) {
    if (!c.refused.empty()) fmt::print("  refused: {}: {}\n", c.schedule.to_json(), c.refused);
  }
  std::fflush(stdout);
}

Result<TuneOptions> options_of(const TuneFlags& flags, std::optional<MachineModel>& machine) {
  TuneOptions options;
  const auto effort = parse_effort(flags.effort);
  if (!effort) return effort.error();
  options.effort = *effort;
  options.threads = flags.threads;
  options.candidates = flags.candidates;
  options.seconds = flags.seconds;
  options.cold = flags.cold;
  if (!flags.isa.empty()) {
    const auto isa = parse_isa(flags.isa);
    if (!isa) return isa.error();
    options.isa = *isa;
  }
  if (!flags.machine.empty()) {
    auto described = described_machine(flags.machine);
    if (!described) return described.error();
    machine = std::move(*described);
    options.machine = &*machine;
  }
  options.stop = [] { return interrupted.load(); };
  return options;
}

/// Says so where the file holds better evidence than what was just found.
Status note_kept(const std::string& path, const ModelSpec& spec, const WisdomEntry& entry) {
  const auto items = read_wisdom(path);
  if (!items) return items.error();
  for (const WisdomItem& item : *items) {
    if (!item.entry || item.id != entry.key.id() || !better_evidence(*item.entry, entry)) continue;
    const std::string note =
        fmt::format("{}: keeps its entry for {}, which was {}", path, spec.str(),
                    item.entry->measured_us > 0
                        ? fmt::format("measured with {:.1f} us for b={}, t={}",
                                      item.entry->measured_us, item.entry->rows, item.entry->steps)
                        : std::string("never measured"));
    print_notes(std::span(&note, 1));
  }
  return {};
}

/// After every problem, so that nothing found is lost whenever the run ends.
Status store(const TuneFlags& flags, const ModelSpec& spec, const TuneOptions& options,
             const TuneResult& result) {
  if (flags.output.empty()) return {};
  const WisdomEntry entry = tuned_entry(spec, options, result);
  if (auto status = save_wisdom(flags.output, std::span(&entry, 1)); !status) return status;
  return note_kept(flags.output, spec, entry);
}

Result<TuneResult> tune_with_bar(const ModelSpec& spec, TuneOptions options) {
  const Bar bar(spec.str());
  options.progress = [&](const TuneProgress& p) { bar.show(p); };
  return tune(spec, options);
}

Status tune_all(const TuneFlags& flags) {
  const auto list = problem_list(flags.problems, flags.file, flags.shard);
  if (!list) return list.error();
  std::optional<MachineModel> machine;
  auto options = options_of(flags, machine);
  if (!options) return options.error();
  if (!flags.output.empty()) {
    if (auto status = check_wisdom_output(flags.output); !status) return status;
  }
  const Interrupts guard;
  auto array = nlohmann::ordered_json::array();
  std::optional<Error> failed;
  const auto fail = [&](Error error) {
    if (failed) fmt::print(stderr, "deepcpu: {}\n", failed->message());
    failed = std::move(error);
  };
  for (const ListedProblem& entry : *list) {
    if (interrupted.load()) break;
    const auto spec = timed_problem(entry.problem);
    const auto result = spec ? tune_with_bar(*spec, *options) : spec.error();
    if (!result) {
      fail(Error(entry.where + result.error().message()));
      continue;
    }
    if (flags.json) {
      array.push_back(to_json(*spec, *result));
    } else {
      print(*spec, *result);
    }
    if (auto status = store(flags, *spec, *options, *result); !status) {
      fail(status.error());
      break;
    }
  }
  if (interrupted.load()) fail(Error("stopped by a signal; what was found before is kept"));
  if (flags.json) fmt::print("{}\n", array.dump(2));
  if (failed) return *failed;
  return {};
}

void add_search_flags(CLI::App& app, TuneFlags& flags) {
  app.add_option("--effort", flags.effort,
                 "estimate: run nothing; measure: time what the cost model ranks first;"
                 " exhaustive: time all that the pruning rules leave")
      ->option_text("estimate|measure|exhaustive [measure]")
      ->check(CLI::IsMember({"estimate", "measure", "exhaustive"}));
  app.add_option("--candidates", flags.candidates, "Schedules that are timed with measure")
      ->option_text("K [20]")
      ->check(CLI::Range(1, 100000));
  app.add_option("--seconds", flags.seconds, "Time limit per problem")
      ->option_text("S [10]")
      ->check(is_number)
      ->check(CLI::Range(0.01, 86400.0));
  app.add_option("--threads", flags.threads, "Most threads to use")
      ->option_text("N [1]")
      ->check(CLI::Range(1, 1024));
  app.add_option("--isa", flags.isa, "Best instruction set to use")
      ->option_text("ISA")
      ->check(CLI::IsMember({"interpreter", "avx2", "avx512"}));
  app.add_flag("--cold", flags.cold, "Evict the weights from all caches before every run");
  app.add_option("--machine", flags.machine,
                 "Answer for the machine that this file describes; needs --effort estimate")
      ->option_text("FILE.json")
      ->check(names_file);
}

/// Throws CLI::Error where options do not go together.
void check_flags(const CLI::App& app, const TuneFlags& flags) {
  if (flags.problems.empty() && flags.file.empty()) {
    throw CLI::RequiredError("PROBLEM or --problems");
  }
  if (!flags.machine.empty() && flags.effort != "estimate") {
    throw CLI::ValidationError("--machine", "needs --effort estimate: nothing can be run there");
  }
  const auto only_with = [&](const char* option, std::initializer_list<const char*> efforts) {
    if (app.count(option) == 0) return;
    for (const char* effort : efforts) {
      if (flags.effort == effort) return;
    }
    throw CLI::ValidationError(option, "has no meaning with --effort " + flags.effort);
  };
  only_with("--candidates", {"measure"});
  only_with("--cold", {"measure", "exhaustive"});
  only_with("--seconds", {"measure", "exhaustive"});
  if (flags.cold && !flags.output.empty()) {
    throw CLI::ValidationError("--cold", "cannot go with --output: wisdom is for warm weights");
  }
  for (const std::string& problem : flags.problems) demand(timed_problem(problem));
}

}  // namespace

void add_tune(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("tune", "Find the fastest schedules on this machine");
  auto flags = std::make_shared<TuneFlags>();
  sub->add_option("problems", flags->problems, "Problems, as lstm:i256h256; t is the length timed")
      ->option_text("PROBLEM...");
  sub->add_option("--problems", flags->file, "More problems, one per line; # starts a comment")
      ->option_text("FILE")
      ->check(names_file);
  sub->add_option("--shard", flags->shard, "Only every n-th problem, from the i-th on; i from 1")
      ->option_text("i/n")
      ->check(is_shard);
  add_search_flags(*sub, *flags);
  sub->add_option("--output", flags->output,
                  "Add what was found to this wisdom file, problem by problem; better evidence that"
                  " it holds stays")
      ->option_text("FILE.json")
      ->check(names_file);
  sub->add_flag("--json", flags->json, "Print an array of objects");
  sub->footer(kFooter);
  sub->callback([flags, sub, &action] {
    check_flags(*sub, *flags);
    action = [flags] { return tune_all(*flags); };
  });
}

}  // namespace deepcpu::cli
