// SPDX-License-Identifier: Apache-2.0
/// deepcpu wisdom: files of tuned schedules.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/io/quote.hpp"
#include "src/model/problem.hpp"
#include "src/tune/wisdom_file.hpp"
#include "tools/deepcpu/command.hpp"

namespace deepcpu::cli {
namespace {

bool is_here(const WisdomEntry& entry) { return entry.key.machine == this_machine_key(); }

// ---- show

std::string caps_of(const WisdomKey& key) {
  return fmt::format("batch {}, steps {}, {} thread{}{}", key.batch.text, key.steps.text,
                     key.threads, key.threads == 1 ? "" : "s",
                     key.isa ? fmt::format(", {} at most", to_string(*key.isa)) : "");
}

std::string evidence_of(const WisdomEntry& e) {
  std::string text = e.effort ? std::string(to_string(*e.effort)) : "written by hand";
  if (e.measured_us > 0) {
    text += fmt::format(", measured {:.1f} us (spread {:.1f} %)", e.measured_us, 100.0 * e.spread);
  }
  if (e.predicted_us > 0) text += fmt::format(", predicted {:.1f} us", e.predicted_us);
  if (e.rows > 0) text += fmt::format(", b={}", e.rows);
  if (e.steps > 0) text += fmt::format(", t={}", e.steps);
  if (e.candidates > 0) text += fmt::format(", {} candidates", e.candidates);
  if (!e.version.empty()) text += fmt::format(", version {}", e.version);
  return text;
}

Status show(const std::string& path) {
  const auto items = read_wisdom(path);
  if (!items) return items.error();
  for (std::size_t i = 0; i < items->size(); ++i) {
    const WisdomItem& item = (*items)[i];
    if (!item.entry) {
      fmt::print("entry {}: refused: {}\n", i, item.refused);
      continue;
    }
    const WisdomEntry& e = *item.entry;
    fmt::print("entry {}: {}, {}{}\n", i, quote(e.key.problem), caps_of(e.key),
               is_here(e) ? "" : fmt::format(", on {}", quote(e.key.machine)));
    fmt::print("  {}\n  {}\n", evidence_of(e), e.schedule.to_json());
  }
  return {};
}

// ---- verify

Status verify(const std::string& path, bool any_machine) {
  const auto items = read_wisdom(path);
  if (!items) return items.error();
  std::size_t refused = 0;
  for (std::size_t i = 0; i < items->size(); ++i) {
    const WisdomItem& item = (*items)[i];
    const bool elsewhere = item.entry && !any_machine && !is_here(*item.entry);
    if (item.entry && !elsewhere) continue;
    ++refused;
    fmt::print("entry {}: {}\n", i,
               elsewhere ? fmt::format("key.machine={}: is another machine",
                                       quote(item.entry->key.machine))
                         : item.refused);
  }
  if (refused == 0) return {};
  return Error(fmt::format("{}: {} of {} entries are refused", path, refused, items->size()));
}

// ---- merge

Status merge(const std::string& out, const std::vector<std::string>& in) {
  std::vector<WisdomItem> all;
  for (const std::string& path : in) {
    auto items = read_wisdom(path);
    if (!items) return items.error();
    for (std::size_t i = 0; i < items->size(); ++i) {
      WisdomItem& item = (*items)[i];
      if (item.entry) {
        all.push_back(std::move(item));
      } else {
        fmt::print(stderr, "deepcpu: note: {}: entry {} is left out: {}\n", path, i, item.refused);
      }
    }
  }
  return update_wisdom(out, [&](auto& items) { merge_items(items, std::move(all)); });
}

// ---- prune

using Version = std::array<int, 3>;

std::optional<Version> version_of(std::string_view text) {
  Version version{};
  for (std::size_t i = 0; i < version.size(); ++i) {
    const std::size_t end = std::min(text.find('.'), text.size());
    const auto [next, code] = std::from_chars(text.data(), text.data() + end, version[i]);
    if (code != std::errc() || next != text.data() + end || version[i] < 0) return {};
    const bool last = i + 1 == version.size();
    if (last != (end == text.size())) return {};
    text.remove_prefix(last ? end : end + 1);
  }
  return version;
}

struct PruneFlags {
  std::string path;
  bool machine_only = false;
  bool estimates = false;
  bool refused = false;
  std::string older_than;
  std::string problem;
};

/// Why an item goes; empty if it stays. What is refused may be of a later version of the library,
/// so it goes only when that is asked for.
std::string_view dropped(const WisdomItem& item, const PruneFlags& flags,
                         const std::optional<Version>& oldest) {
  if (!item.entry) return flags.refused ? "refused" : "";
  if (flags.machine_only && !is_here(*item.entry)) return "of another machine";
  if (!flags.problem.empty() && item.entry->key.problem == flags.problem) return "named";
  if (flags.estimates && item.entry->effort && item.entry->measured_us <= 0) return "estimated";
  const auto version = version_of(item.entry->version);
  if (oldest && version && *version < *oldest) return "older";
  return {};
}

Status prune(const PruneFlags& flags) {
  // update_wisdom makes a file that is not there; here that is a mistake.
  if (const auto items = read_wisdom(flags.path); !items) return items.error();
  const auto oldest = version_of(flags.older_than);
  std::string lines;
  std::size_t left = 0;
  std::size_t refused = 0;
  auto status = update_wisdom(flags.path, [&](std::vector<WisdomItem>& items) {
    std::vector<WisdomItem> keep;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const std::string_view why = dropped(items[i], flags, oldest);
      if (why.empty()) {
        refused += items[i].entry ? 0 : 1;
        keep.push_back(std::move(items[i]));
        continue;
      }
      const auto& entry = items[i].entry;
      lines += fmt::format("entry {} dropped: {}: {}\n", i, why,
                           entry ? quote(entry->key.problem) : items[i].refused);
    }
    left = keep.size();
    items = std::move(keep);
  });
  if (!status) return status;
  fmt::print("{}{} {}\n", lines, left, left == 1 ? "entry stays" : "entries stay");
  if (refused > 0) {
    fmt::print("{} of them are refused here (deepcpu wisdom verify); --refused drops them\n",
               refused);
  }
  return {};
}

/// As keys spell it.
std::string problem_of_key(const std::string& text) {
  auto shape = parse_shape(text);
  if (!shape) throw CLI::ValidationError("--problem", shape.error().message());
  if (shape->has_batch || shape->has_steps) {
    throw CLI::ValidationError("--problem", "must not state b or t: entries for all of them go");
  }
  // Options that a cell of this process has in their canonical form; others as they are.
  if (const auto spec = ModelSpec::parse(text)) return shape_text(spec->cell.name(), *spec);
  return shape_text(shape->cell, shape->spec);
}

// ---- the command line

void add_show(CLI::App& group, Action& action) {
  CLI::App* sub = group.add_subcommand("show", "Print the entries of a file");
  auto path = std::make_shared<std::string>();
  sub->add_option("file", *path, "Wisdom file")->option_text("FILE REQUIRED")->required();
  sub->callback([path, &action] { action = [path] { return show(*path); }; });
}

void add_verify(CLI::App& group, Action& action) {
  CLI::App* sub = group.add_subcommand(
      "verify", "Print one line per entry that is refused here; then the exit status is 1");
  auto path = std::make_shared<std::string>();
  auto any = std::make_shared<bool>(false);
  sub->add_option("file", *path, "Wisdom file")->option_text("FILE REQUIRED")->required();
  sub->add_flag("--any-machine", *any, "Entries of other machines are no reason to refuse them");
  sub->callback([=, &action] { action = [=] { return verify(*path, *any); }; });
}

void add_merge(CLI::App& group, Action& action) {
  CLI::App* sub = group.add_subcommand(
      "merge", "Add the entries of files to OUT, the best evidence per key; OUT may be new");
  auto out = std::make_shared<std::string>();
  auto in = std::make_shared<std::vector<std::string>>();
  sub->add_option("out", *out, "Wisdom file to write")->option_text("OUT REQUIRED")->required();
  sub->add_option("in", *in, "Wisdom files to read; illegal entries are left out, with a note")
      ->option_text("IN... REQUIRED")
      ->required();
  sub->callback([=, &action] { action = [=] { return merge(*out, *in); }; });
}

void add_prune(CLI::App& group, Action& action) {
  CLI::App* sub = group.add_subcommand("prune", "Drop the entries that the options name");
  auto flags = std::make_shared<PruneFlags>();
  sub->add_option("file", flags->path, "Wisdom file")->option_text("FILE REQUIRED")->required();
  sub->add_flag("--machine-only", flags->machine_only, "Drop the entries of other machines");
  sub->add_flag("--estimates", flags->estimates, "Drop estimates that nothing was measured for");
  sub->add_flag("--refused", flags->refused,
                "Drop what this version does not take, mistakes and what later versions wrote");
  sub->add_option("--older-than", flags->older_than,
                  "Drop what earlier versions of the library found")
      ->option_text("VERSION");
  sub->add_option("--problem", flags->problem,
                  "Drop the entries for this problem, as show prints it, without b and t")
      ->option_text("PROBLEM");
  sub->callback([flags, &action] {
    if (!flags->older_than.empty() && !version_of(flags->older_than)) {
      throw CLI::ValidationError("--older-than", "must look like 0.1.0");
    }
    if (!flags->problem.empty()) flags->problem = problem_of_key(flags->problem);
    if (!flags->machine_only && !flags->estimates && !flags->refused && flags->older_than.empty() &&
        flags->problem.empty()) {
      throw CLI::ValidationError("prune", "an option has to say what is dropped");
    }
    action = [flags] { return prune(*flags); };
  });
}

}  // namespace

void add_wisdom(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("wisdom", "Show, verify, merge and prune tuned schedules");
  group->require_subcommand(1);
  add_show(*group, action);
  add_verify(*group, action);
  add_merge(*group, action);
  add_prune(*group, action);
}

}  // namespace deepcpu::cli
