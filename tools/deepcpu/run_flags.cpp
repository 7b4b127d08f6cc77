// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/run_flags.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "tools/deepcpu/command.hpp"

namespace deepcpu::cli {
namespace {

constexpr const char* kFooter =
    "Arrays are npy files, C order, float32: x [T, B, I], y [T, B, H * directions], states\n"
    "[layers * directions, B, H] as PyTorch orders them; lengths [B] is int32 or int64. A state\n"
    "whose width differs per layer is one array [sum] of all its numbers, layer after layer, each\n"
    "[directions, B, width]. T comes from x; so does B unless the problem states it. Without x,\n"
    "T and B are those of the problem. Output files appear only when all went well.";

/// A word as cells name their inputs and states.
bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

/// `name=file`, or nothing if `text` does not start so.
std::optional<NamedFile> split(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || !is_name(std::string_view(text).substr(0, equals))) {
    return std::nullopt;
  }
  return NamedFile{text.substr(0, equals), text.substr(equals + 1)};
}

void add(std::vector<NamedFile>& files, NamedFile file, const std::string& option) {
  const bool twice = std::any_of(files.begin(), files.end(),
                                 [&](const NamedFile& f) { return f.name == file.name; });
  if (twice) throw CLI::ValidationError(option, fmt::format("{} is given twice", file.name));
  files.push_back(std::move(file));
}

/// Files of states: `--state name=file`, and the short forms for h and c.
std::vector<NamedFile> states(const std::vector<std::string>& named, const std::string& h,
                              const std::string& c, const std::string& option) {
  std::vector<NamedFile> files;
  if (!h.empty()) files.push_back({"h", h});
  if (!c.empty()) files.push_back({"c", c});
  for (const std::string& text : named) {
    auto file = split(text);
    if (!file) throw CLI::ValidationError(option, fmt::format("{} must be NAME=FILE", text));
    add(files, std::move(*file), option);
  }
  return files;
}

void check_outputs(const RunFlags& flags) {
  std::set<std::string> paths = {flags.output};
  for (const NamedFile& file : flags.final) {
    if (paths.insert(file.path).second) continue;
    throw CLI::ValidationError(file.path, "two outputs cannot be one file");
  }
}

/// CLI11 would read -1, and whatever is too large, as the largest number.
std::string check_natural(const std::string& text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value);
  if (code == std::errc() && stop == end) return "";
  return "must be a whole number, 0 to 18446744073709551615";
}

void add_named(CLI::App& app, const std::string& option, std::vector<std::string>& into,
               const std::string& what) {
  app.add_option(option, into, what)
      ->option_text("NAME=FILE.npy ...")
      ->allow_extra_args(false)
      ->check(names_file);
}

}  // namespace

RunOptions::RunOptions(CLI::App& app) {
  const auto file = [&](const char* option, std::string& into, const char* what) {
    app.add_option(option, into, what)->option_text("FILE.npy")->check(names_file);
  };
  app.add_option("--problem", flags_.problem, "Problem, as lstm:i40h256l3")
      ->option_text("PROBLEM REQUIRED")
      ->required();
  auto* model = app.add_option("--model", flags_.model,
                               "Weights in PyTorch's names; without it they are random, see --seed")
                    ->option_text("FILE.safetensors")
                    ->check(names_file);
  app.add_option("--prefix", flags_.prefix,
                 "Takes only the tensors of --model whose names begin so, without it")
      ->option_text("TEXT")
      ->needs(model);
  app.add_option("--input", inputs_,
                 "x; NAME=FILE for a further input of the cell, [T, B, width]. May be repeated; "
                 "without any, all inputs are random")
      ->option_text("[NAME=]FILE.npy ...")
      ->allow_extra_args(false)
      ->check(names_file);
  file("--output", flags_.output, "Where y goes");
  file("--h0", h0_, "Initial state h; zero without it");
  file("--c0", c0_, "Initial state c");
  file("--hn", hn_, "Where the final state h goes");
  file("--cn", cn_, "Where the final state c goes");
  add_named(app, "--state", states_, "Initial state NAME. May be repeated");
  add_named(app, "--final", finals_, "Where the final state NAME goes. May be repeated");
  file("--lengths", flags_.lengths, "Valid steps of every row, 0 to T; y is zero past them");
  app.add_option("--seed", flags_.seed, "Of random weights and inputs")
      ->option_text("N [0]")
      ->check(check_natural);
  add_compile_flags(app, flags_.compile);
  app.footer(kFooter);
}

RunFlags RunOptions::flags() const {
  RunFlags flags = flags_;
  for (const std::string& text : inputs_) {
    auto file = split(text);
    add(flags.inputs, file ? std::move(*file) : NamedFile{"x", text}, "--input");
  }
  flags.initial = states(states_, h0_, c0_, "--state");
  flags.final = states(finals_, hn_, cn_, "--final");
  check_outputs(flags);
  return flags;
}

}  // namespace deepcpu::cli
