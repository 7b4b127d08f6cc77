// SPDX-License-Identifier: Apache-2.0
/// Runs a piece of a test in a process of its own: for what changes a process for good, or ends it.
#pragma once

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/sanitizers.hpp"

namespace deepcpu::test {

/// How a child process ended.
struct Ending {
  int status = -1;  ///< its exit status, if it exited
  int signal = 0;   ///< the signal that ended it, or 0
};

/// Calls `body` in a forked child, whose exit status is what it returns. The exit is a plain system
/// call: nothing is flushed and no destructor runs. It ends the calling thread, the only one of a
/// forked child; under the thread sanitizer, whose own thread would go on, the whole process.
template <class Body>
pid_t start_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    const int status = body();
    for (;;) syscall(DEEPCPU_THREAD_SANITIZER ? SYS_exit_group : SYS_exit, status);
  }
  return child;
}

inline Ending wait_for(pid_t child) {
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return {};
  if (WIFEXITED(status)) return {WEXITSTATUS(status), 0};
  return {-1, WIFSIGNALED(status) ? WTERMSIG(status) : 0};
}

template <class Body>
Ending run_forked(const Body& body) {
  return wait_for(start_child(body));
}

}  // namespace deepcpu::test
