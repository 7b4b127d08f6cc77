// SPDX-License-Identifier: Apache-2.0
#include "src/cells/cell_hash.hpp"

#include <fmt/format.h>

#include <bit>

#include "jit/fnv.hpp"

namespace deepcpu {
namespace {

/// Over 32-bit words.
class Words {
 public:
  void add(std::uint32_t value) noexcept { hash_.add(value, 4); }
  void add(int value) noexcept { add(static_cast<std::uint32_t>(value)); }
  void add(std::size_t value) noexcept { add(static_cast<std::uint32_t>(value)); }
  void add(Dim value) noexcept { add(static_cast<std::uint32_t>(value)); }
  void add(float value) noexcept { add(std::bit_cast<std::uint32_t>(value)); }
  std::uint64_t value() const noexcept { return hash_.value(); }

 private:
  Fnv1a hash_;
};

}  // namespace

std::uint64_t cell_hash(const Cell& cell) noexcept {
  Words hash;
  hash.add(cell.nodes().size());
  for (const Node& node : cell.nodes()) {
    hash.add(static_cast<std::uint32_t>(node.op));
    hash.add(node.dim);
    hash.add(node.a);
    hash.add(node.b);
    hash.add(node.parameter);
    hash.add(node.p);
    hash.add(node.q);
  }
  hash.add(cell.parameters().size());
  for (const Parameter& parameter : cell.parameters()) {
    hash.add(parameter.is_matrix ? 1U : 0U);
    hash.add(parameter.rows);
    hash.add(parameter.cols);
  }
  hash.add(cell.states().size());
  for (const State& state : cell.states()) {
    hash.add(state.dim);
    hash.add(state.node);
    hash.add(state.next);
  }
  hash.add(cell.inputs().size());
  for (const int input : cell.inputs()) hash.add(input);
  hash.add(cell.output());
  return hash.value();
}

std::string hash_text(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

}  // namespace deepcpu
