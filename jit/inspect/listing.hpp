// SPDX-License-Identifier: Apache-2.0
/// The listing of emitted code that `deepcpu dump --stage asm` prints.
#pragma once

#include <string>

#include "jit/code_blob.hpp"

namespace deepcpu::jit::inspect {

/// A blob whose labels and notes are sorted, as publish() leaves them, as text: a head with symbol,
/// ISA and size, then every instruction with its offset, labels and notes at their places, and the
/// constants as 32-bit words. Offsets, never addresses: the same code gives the same text.
///
/// The instructions are written by `objdump` of binutils, which is run on a temporary file. Where
/// it cannot be run, a sentence says so and the code follows as bytes, labels and notes included.
/// Thread-safe. Meant for people: it takes tens of milliseconds.
std::string listing(const CodeBlob& blob, const std::string& objdump = "objdump");

}  // namespace deepcpu::jit::inspect
