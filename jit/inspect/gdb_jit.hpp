// SPDX-License-Identifier: Apache-2.0
/// gdb's JIT interface ("JIT Compilation Interface" in gdb's manual): a list of in-memory object
/// files that gdb reads when a hook function is called.
#pragma once

#include <cstddef>
#include <memory>

#include "jit/code_blob.hpp"

namespace deepcpu::jit::inspect {

/// Tells gdb of the blob's code; it is withdrawn when the returned handle is destroyed, which must
/// happen before the code's memory is freed. Thread-safe.
std::shared_ptr<const void> register_with_gdb(const CodeBlob& blob);

/// Number of object files that gdb knows of at this moment. Thread-safe.
std::size_t gdb_registrations();

}  // namespace deepcpu::jit::inspect
