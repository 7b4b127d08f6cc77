// SPDX-License-Identifier: Apache-2.0
/// Entries of wisdom files for tests.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "src/tune/wisdom_entry.hpp"
#include "src/tune/wisdom_json.hpp"

namespace deepcpu::test {

/// A legal entry of this machine, measured, with one layer schedule per layer and hoist_block
/// `block`, so that entries can be told apart.
inline WisdomEntry wisdom_entry(std::string_view problem, int threads = 1, int block = 16) {
  const ModelSpec spec = ModelSpec::parse(problem).value();
  WisdomEntry e;
  e.key = WisdomKey::of(spec, threads, machine().isa);
  e.schedule.isa = machine().isa;
  e.schedule.layers.resize(spec.hidden.size());
  for (LayerSchedule& layer : e.schedule.layers) layer.hoist_block = block;
  e.predicted_us = 90.5;
  e.measured_us = 100.25;
  e.spread = 0.01;
  e.rows = spec.batch;
  e.steps = 100;
  e.candidates = 20;
  e.effort = Effort::measure;
  e.version = "0.1.0";
  return e;
}

/// A file with these entries.
inline std::string wisdom_of(const std::vector<WisdomEntry>& entries) {
  std::vector<WisdomItem> items;
  for (const WisdomEntry& e : entries) items.push_back(to_item(e));
  return wisdom_text(items);
}

/// `text` with its first `from`, which must be there, replaced.
inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos) throw std::invalid_argument("no such text: " + std::string(from));
  return text.replace(at, from.size(), to);
}

}  // namespace deepcpu::test
