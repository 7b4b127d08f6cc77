// SPDX-License-Identifier: Apache-2.0
/// Threads as the public interface shows them: the cap, what is used, what is said when fewer are.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

int processors() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

Model compile_capped(const Sample& s, int threads) {
  CompileOptions options;
  options.threads = threads;
  return Model::compile(s.spec, s.weights, options).value();
}

TEST_CASE("threads is a cap: one above the processors is legal, uses no more and says so") {
  const Sample s = Sample::make("lstm:i64h256t3");
  const std::vector<float> expected = run_once(compile_capped(s, 1), s);
  for (const int threads : {processors() + 1, 1000, 1'000'000'000}) {
    const Model model = compile_capped(s, threads);
    CHECK(model.schedule().threads >= 1);
    CHECK(model.schedule().threads <= processors());
    const auto& notes = model.notes();
    const std::string start =
        "threads=" + std::to_string(threads) + ": the calling thread may use ";
    CHECK(std::any_of(notes.begin(), notes.end(),
                      [&](const std::string& note) { return note.starts_with(start); }));
    CHECK(bit_difference(run_once(model, s), expected).empty());
  }
  for (int threads = 1; threads <= processors(); ++threads) {
    const Model model = compile_capped(s, threads);
    CHECK(model.schedule().threads <= threads);
    const auto& notes = model.notes();
    CHECK(std::none_of(notes.begin(), notes.end(),
                       [](const std::string& note) { return note.starts_with("threads="); }));
  }
}

bool bind_to_one_processor() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  return sched_setaffinity(0, sizeof one, &one) == 0;
}

TEST_CASE("a process that binds itself to one processor compiles for one thread from then on",
          "[fork]") {
  const Sample s = Sample::make("lstm:i64h256t2");
  (void)compile_capped(s, 2);  // the library has looked at the machine before
  const Ending ending = run_forked([&] {
    if (!bind_to_one_processor()) return 2;
    const Model model = compile_capped(s, 2);
    if (model.schedule().threads != 1) return 3;
    const std::vector<std::string> said = {
        "threads=2: the calling thread may use 1 processors; no more are used"};
    return model.notes() == said ? 0 : 4;
  });
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}

TEST_CASE("a model compiled for more processors than are left runs on one thread and says so",
          "[fork]") {
  if (processors() < 2) return;  // then none can be taken away
  const Sample s = Sample::make("lstm:i5h40b2t9");
  const Model model = compile_for(s, host_isa(), 2);
  const std::vector<float> expected = run_once(compile_for(s, host_isa(), 1), s);
  const Ending ending = run_forked([&] {
    if (!bind_to_one_processor()) return 2;
    auto session = model.session();
    if (!session.ok()) return 3;
    const std::vector<std::string> said = {
        "threads: the calling thread may use fewer processors than the one that compiled the "
        "model; one "
        "thread serves instead"};
    if (session->notes() != said) return 4;
    std::vector<float> y(s.y_size());
    if (!session->run(s.x, y).ok()) return 5;
    return bit_difference(y, expected).empty() ? 0 : 6;
  });
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}

/// From now on the system refuses this process every new thread.
bool refuse_threads() {
  const auto number = static_cast<std::uint32_t>(offsetof(seccomp_data, nr));
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
  };
  sock_fprog program{static_cast<unsigned short>(std::size(rules)), rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#if !DEEPCPU_THREAD_SANITIZER  // it refuses threads after a fork of a process that has several
TEST_CASE("a session with helpers goes on in a forked child as in its parent", "[fork]") {
  const Sample s = Sample::make("lstm:i5h40b2t9");
  const Model model = compile_for(s, host_isa(), 2);
  Session session = model.session().value();
  std::vector<float> y(s.y_size());
  std::vector<float> other(s.y_size());
  REQUIRE(session.run(s.x, y).ok());
  const pid_t child = start_child([&] {
    alarm(20);
    Session mine = std::move(session);  // ends its helpers here, so that the child ends
    if (!mine.run(s.x, y).ok()) return 2;
    // The state came along: a second run, as of one that was never forked.
    Session whole = model.session().value();
    if (!whole.run(s.x, other).ok() || !whole.run(s.x, other).ok()) return 3;
    return bit_difference(y, other).empty() ? 0 : 4;
  });
  REQUIRE(session.run(s.x, y).ok());
  const Ending ending = wait_for(child);
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}

TEST_CASE("where helpers cannot be started after a fork, a run says so", "[fork]") {
  if (processors() < 2) return;
  const Sample s = Sample::make("lstm:i5h40b2t9");
  Session session = compile_for(s, host_isa(), 2).session().value();
  std::vector<float> y(s.y_size());
  const Ending ending = run_forked([&] {
    alarm(20);
    if (!refuse_threads()) return 2;
    const Status status = session.run(s.x, y);
    if (status.ok()) return 3;
    const std::string said =
        "threads: the helpers could not be started after fork(); the next run tries again";
    return status.error().message() == said ? 0 : 4;
  });
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}
#endif

TEST_CASE("where the system refuses threads, one serves, says so, and gives the same bits",
          "[fork]") {
  struct Case {
    const char* problem;
    int threads;
    Parallel parallel;
  };
  const std::vector<Case> cases = {{"lstm:i5h40b2t9", 2, Parallel::none},
                                   {"gru:i5h40l3b2t9,reset=before", 3, Parallel::wavefront},
                                   {"lstm:i5h20l2bib2t9", 2, Parallel::directions}};
  for (const Case& c : cases) {
    const Sample s = Sample::make(c.problem);
    const Model model = compile_for(s, host_isa(), c.threads, c.parallel);
    const std::vector<float> expected = run_once(compile_for(s, host_isa(), 1), s);
    CHECK(model.session(Layout::time_major, 9).value().notes().empty());
    const Ending ending = run_forked([&] {
      if (!refuse_threads()) return 2;
      auto session = model.session(Layout::time_major, s.spec.steps);
      if (!session.ok()) return 3;
      const std::vector<std::string> said = {
          "threads: the helpers could not be started; one thread serves instead"};
      if (session->notes() != said) return 4;
      std::vector<float> y(s.y_size());
      if (!session->run(s.x, y).ok()) return 5;
      return bit_difference(y, expected).empty() ? 0 : 6;
    });
    INFO(c.problem);
    CHECK(ending.signal == 0);
    CHECK(ending.status == 0);
  }
}

/// Two threads call run at once. One is refused; which one, and whether at all, is a matter of
/// time, so the first run is long and the attempts are repeated.
TEST_CASE("a second run while one is under way is refused, and the first is not disturbed") {
  const Sample s = Sample::make("lstm:i32h64t20000");
  const Model model = compile_for(s, host_isa(), 1);
  const std::vector<float> expected = run_once(model, s);
  Session session = model.session().value();
  std::vector<float> y(s.y_size());
  bool refused = false;
  for (int attempt = 0; attempt < 20 && !refused; ++attempt) {
    session.reset();
    std::atomic<bool> over{false};
    std::atomic<bool> begun{false};
    Status first;
    std::thread other([&] {
      begun = true;
      first = session.run(s.x, y);
      over = true;
    });
    while (!begun) std::this_thread::yield();
    while (!over && !refused) {
      const Status second = session.run({}, {});
      if (second.ok()) continue;
      refused = true;
      CHECK(second.error().message() == "run: the session is in use by another thread");
    }
    other.join();
    // The other thread may have come while the second, empty run was under way.
    if (first.ok()) CHECK(bit_difference(y, expected).empty());
    refused = refused && first.ok();
  }
  CHECK(refused);
  session.reset();
  CHECK(session.run(s.x, y).ok());  // the session is free again
  CHECK(bit_difference(y, expected).empty());
}

TEST_CASE("sessions of one model run at once") {
  const Sample s = Sample::make("gru:i8h40b2t20");
  const Model model = compile_capped(s, 2);
  const std::vector<float> expected = run_once(model, s);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10; ++n) {
        if (!bit_difference(run_once(model, s), expected).empty()) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}

}  // namespace
