// SPDX-License-Identifier: Apache-2.0
/// An ELF64 object file in memory that describes emitted code to a debugger.
#pragma once

#include <cstddef>
#include <vector>

#include "jit/code_blob.hpp"

namespace deepcpu::jit::inspect {

/// A relocatable object for x86-64 with the sections .text (no bytes of its own: it names the
/// address range of the blob's code), .eh_frame (unwind rule of an rbp frame), .symtab (the symbol
/// over the whole code, and `<symbol>/<label>` per label), .strtab and .shstrtab. It holds the
/// code's address, so it is valid as long as the blob.
std::vector<std::byte> elf_image(const CodeBlob& blob);

}  // namespace deepcpu::jit::inspect
