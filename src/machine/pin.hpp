// SPDX-License-Identifier: Apache-2.0
/// Binding threads to processors.
#pragma once

#include <pthread.h>

namespace deepcpu {

/// Binds a thread to one processor. False if the system refuses, which changes nothing. Takes no
/// memory.
bool pin_to(pthread_t thread, int cpu) noexcept;

}  // namespace deepcpu
