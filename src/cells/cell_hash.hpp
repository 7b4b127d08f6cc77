// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "deepcpu/cell.hpp"

namespace deepcpu {

/// A number for the structure of a cell: its operations, their arguments, widths and constants, and
/// which of them share a parameter. Names of cells, nodes, states and tensors do not take part, nor
/// where a parameter's numbers stand in a tensor. The same on every machine and in every version;
/// files hold it. FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv).
std::uint64_t cell_hash(const Cell& cell) noexcept;

/// A hash as files spell it: 16 hexadecimal digits.
std::string hash_text(std::uint64_t hash);

}  // namespace deepcpu
