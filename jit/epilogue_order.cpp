// SPDX-License-Identifier: Apache-2.0
#include "jit/epilogue_order.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "jit/element_ops.hpp"
#include "jit/index.hpp"

namespace deepcpu::jit {
namespace {

/// Whether the result is waited for long: of sigmoid, tanh or a division, not of a clamp or relu.
bool is_function(const Instr& instr) {
  return instr.action == Action::element && find_element_op(instr.op)->latency > 4 * kStepLatency;
}

std::array<int, 3> operands(const Instr& i) { return {i.a, i.b, i.c}; }

/// Whether another function, at some distance, waits for the result.
std::vector<bool> feeds_function(const std::vector<Instr>& epilogue) {
  std::vector<bool> out(epilogue.size(), false);
  for (std::size_t i = epilogue.size(); i-- > 0;) {
    if (!out[i] && !is_function(epilogue[i])) continue;
    for (const int o : operands(epilogue[i])) {
      if (o >= 0) out[at(o)] = true;
    }
  }
  return out;
}

/// How many functions stand one after the other up to each instruction, itself among them; of
/// those with as many, what no further function waits for comes later. What has no operands comes
/// with the first instruction that reads it, but before it is overwritten.
std::vector<int> waves(const std::vector<Instr>& epilogue) {
  const int count = static_cast<int>(epilogue.size());
  const std::vector<bool> urgent = feeds_function(epilogue);
  std::vector<int> wave(epilogue.size(), 0);
  int stored = 0;
  for (int i = 0; i < count; ++i) {
    for (const int o : operands(epilogue[at(i)])) {
      if (o >= 0) wave[at(i)] = std::max(wave[at(i)], wave[at(o)]);
    }
    if (is_function(epilogue[at(i)])) ++wave[at(i)];
    if (epilogue[at(i)].action == Action::store) {
      // Others take what is stored last as a sign that the rest has been stored.
      wave[at(i)] = stored = std::max(stored, wave[at(i)]);
    }
  }
  for (int i = 0; i < count; ++i) wave[at(i)] = 2 * wave[at(i)] + (urgent[at(i)] ? 0 : 1);
  std::vector<int> first(epilogue.size(), std::numeric_limits<int>::max());
  for (int i = 0; i < count; ++i) {
    for (const int o : operands(epilogue[at(i)])) {
      if (o >= 0) first[at(o)] = std::min(first[at(o)], wave[at(i)]);
    }
  }
  for (int i = 0; i < count; ++i) {
    const Instr& leaf = epilogue[at(i)];
    if (leaf.a >= 0 || first[at(i)] == std::numeric_limits<int>::max()) continue;
    wave[at(i)] = first[at(i)];
    if (leaf.action != Action::load && leaf.action != Action::broadcast) continue;
    // A state that is written in place is read before.
    for (int later = i + 1; later < count; ++later) {
      const Instr& store = epilogue[at(later)];
      if (store.action != Action::store || store.ref.buffer != leaf.ref.buffer) continue;
      wave[at(i)] = std::min(wave[at(i)], wave[at(later)]);
    }
  }
  return wave;
}

}  // namespace

std::vector<EpilogueStep> by_waves(const std::vector<Instr>& epilogue, int columns) {
  const std::vector<int> wave = waves(epilogue);
  std::vector<EpilogueStep> out;
  std::vector<std::vector<int>> place(at(columns), std::vector<int>(epilogue.size(), -1));
  const int last = epilogue.empty() ? -1 : *std::max_element(wave.begin(), wave.end());
  for (int w = 0; w <= last; ++w) {
    for (int column = 0; column < columns; ++column) {
      std::vector<int>& placed = place[at(column)];
      for (std::size_t i = 0; i < epilogue.size(); ++i) {
        if (wave[i] != w) continue;
        placed[i] = static_cast<int>(out.size());
        Instr instr = epilogue[i];
        for (std::int32_t* o : {&instr.a, &instr.b, &instr.c}) {
          if (*o >= 0) *o = placed[at(*o)];
        }
        out.push_back({std::move(instr), column});
      }
    }
  }
  return out;
}

}  // namespace deepcpu::jit
