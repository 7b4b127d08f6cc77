// SPDX-License-Identifier: Apache-2.0
/// The perf map: a text file by which `perf report` names emitted code.
#pragma once

#include <string>

#include "jit/code_blob.hpp"

namespace deepcpu::jit::inspect {

/// The lines `START SIZE name` of a blob, start and size in hex without 0x: one for the whole code,
/// or (`by_label`) one per label, named `<symbol>/<label>`, and one for what stands before the
/// first. Ranges never overlap, since perf's lookup takes them to be disjoint.
std::string perf_map_lines(const CodeBlob& blob, bool by_label);

/// Appends the lines to /tmp/perf-<pid>.map in one write. The first call of a process starts the
/// file anew, as an earlier process may have had the same number. There is no way to take a line
/// back: when pages are reused, perf goes by the later line. Returns whether it was written;
/// a symbolic link at that path is never followed. Thread-safe.
bool append_perf_map(const CodeBlob& blob, bool by_label);

}  // namespace deepcpu::jit::inspect
