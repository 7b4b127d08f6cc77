// SPDX-License-Identifier: Apache-2.0
#include "src/tune/wisdom_file.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "src/io/file_lock.hpp"
#include "tests/catch.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/random.hpp"
#include "tests/support/wisdom_entries.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

using test::read_bytes;
using test::TempDir;
using test::wisdom_entry;
using test::wisdom_of;
using test::write_bytes;

std::size_t legal_entries(const std::string& path) {
  const auto items = read_wisdom(path);
  REQUIRE(items.ok());
  std::size_t count = 0;
  for (const WisdomItem& item : *items) count += item.entry ? 1 : 0;
  return count;
}

/// Entry `i` of many, all with different keys.
WisdomEntry numbered(int i) { return wisdom_entry(fmt::format("lstm:i{}h8", i + 1)); }

std::string save_error(const std::string& path, const WisdomEntry& e = numbered(0)) {
  const Status status = save_wisdom(path, std::span(&e, 1));
  return status.ok() ? "no error" : status.error().message();
}

TEST_CASE("wisdom file: saved, found, merged; the lock stays, nothing else does") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  CHECK(save_error(path) == "no error");
  CHECK(read_bytes(path) == wisdom_of({numbered(0)}));
  CHECK(save_error(path, numbered(1)) == "no error");
  CHECK(read_bytes(path) == wisdom_of({numbered(0), numbered(1)}));
  CHECK(save_error(path, numbered(0)) == "no error");
  CHECK(legal_entries(path) == 2);
  CHECK(dir.entries() == 2);
}

TEST_CASE("wisdom file: the better evidence stays, whichever comes first") {
  WisdomEntry worse = wisdom_entry("lstm:i8h8", 1, 8);
  WisdomEntry better = wisdom_entry("lstm:i8h8", 1, 32);
  better.measured_us = 50;
  for (const auto& order : {std::pair{worse, better}, {better, worse}}) {
    const TempDir dir;
    const std::string path = dir.file("w.json");
    CHECK(save_error(path, order.first) == "no error");
    CHECK(save_error(path, order.second) == "no error");
    CHECK(read_bytes(path) == wisdom_of({better}));
  }
}

TEST_CASE("wisdom file: what is not ours stays byte by byte, what is illegal is replaced") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  WisdomEntry other = wisdom_entry("lstm:i8h8");
  other.key.machine = "elsewhere";
  const std::string foreign = "{ \"schedule\" : {\"later\":\n 1e5 }, \"key\":{} }";
  const std::string illegal =
      test::replaced(to_item(wisdom_entry("gru:i8h8")).text, "\"group\":1", "\"group\":0");
  WisdomItem a = to_item(other);
  a.text = test::replaced(a.text, "\"spread\": 0.01", "\"spread\":  10e-3");
  WisdomItem b, c;
  b.text = foreign;
  c.text = illegal;
  write_bytes(path, wisdom_text({a, b, c}));
  CHECK(save_error(path, wisdom_entry("gru:i8h8")) == "no error");
  CHECK(read_bytes(path) == wisdom_text({a, b, to_item(wisdom_entry("gru:i8h8"))}));
  CHECK(save_error(path, wisdom_entry("lstm:i8h8")) == "no error");
  CHECK(read_bytes(path) ==
        wisdom_text({a, b, to_item(wisdom_entry("gru:i8h8")), to_item(wisdom_entry("lstm:i8h8"))}));
}

TEST_CASE("wisdom file: one that is no wisdom is never overwritten") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  for (const char* text : {"{", "[]", "my thesis", "{\"format\":2,\"entries\":[]}"}) {
    write_bytes(path, text);
    CHECK(save_error(path).find(path + ": ") == 0);
    CHECK(read_bytes(path) == text);
  }
  write_bytes(path, "");
  CHECK(read_wisdom(path).error().message() == path + ": is empty");
  CHECK(save_error(path) == "no error");
  CHECK(legal_entries(path) == 1);
}

TEST_CASE("wisdom file: paths that cannot be read or written") {
  const TempDir dir;
  const auto read_error = [](const std::string& path) {
    const auto items = read_wisdom(path);
    return items.ok() ? "no error" : items.error().message();
  };
  CHECK(read_error(dir.file("none")).find("cannot be read: No such file") != std::string::npos);
  CHECK(read_error("/dev/zero") == "/dev/zero: is not a regular file");
  CHECK(read_error(dir.file("")).find("is not a regular file") != std::string::npos);
  REQUIRE(::mkfifo(dir.file("pipe").c_str(), 0600) == 0);
  CHECK(read_error(dir.file("pipe")).find("is not a regular file") != std::string::npos);
  CHECK(save_error(dir.file("pipe")).find("is not a regular file") != std::string::npos);
  CHECK(save_error("/dev/full") == "/dev/full: is not a regular file");
  CHECK(save_error(dir.file("no/such/w.json")).find("cannot be locked: No such file") !=
        std::string::npos);
  CHECK(save_error("") == "path: is empty");
}

TEST_CASE("wisdom file: 100 MB are refused without being read") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  write_bytes(path, "");
  REQUIRE(::truncate(path.c_str(), 100 << 20) == 0);
  const std::string sentence = path + ": has 104857600 bytes; must be at most 8388608";
  CHECK(read_wisdom(path).error().message() == sentence);
  CHECK(save_error(path) == sentence);
}

TEST_CASE("wisdom file: none grows beyond what can be read") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  WisdomItem item;
  item.text = "\"" + std::string(kMostWisdomBytes - 1000, 'x') + "\"";
  const std::string before = wisdom_text({item});
  write_bytes(path, before);
  CHECK(save_error(path, wisdom_entry("lstm:i8h8l64")).find("must have at most 65536 in 8388608") !=
        std::string::npos);
  CHECK(read_bytes(path) == before);
}

TEST_CASE("wisdom file: a symbolic link stays one, and both names share the lock") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  const std::string link = dir.file("link.json");
  CHECK(save_error(path) == "no error");
  REQUIRE(::symlink("w.json", link.c_str()) == 0);
  CHECK(save_error(link, numbered(1)) == "no error");
  CHECK(legal_entries(path) == 2);
  CHECK(std::filesystem::is_symlink(link));
  CHECK(dir.entries() == 3);
}

/// Runs `body` as a user for whom permissions count.
template <class Body>
int as_nobody(const Body& body) {
  return test::run_forked([&] {
           if (::geteuid() == 0 && ::setuid(65534) != 0) return 99;
           return body() ? 0 : 1;
         })
      .status;
}

TEST_CASE("wisdom file: read-only files and folders are refused and stay as they are") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  CHECK(save_error(path) == "no error");
  const std::string before = read_bytes(path);
  const std::string folder = dir.file("");
  REQUIRE(::chmod(folder.c_str(), 0777) == 0);
  REQUIRE(::chmod(dir.file("w.json.lock").c_str(), 0444) == 0);
  REQUIRE(::chmod(path.c_str(), 0444) == 0);
  const std::string refused = path + ": cannot be written: Permission denied";
  CHECK(as_nobody([&] { return save_error(path, numbered(1)) == refused; }) == 0);
  REQUIRE(::chmod(path.c_str(), 0666) == 0);
  REQUIRE(::chmod(folder.c_str(), 0555) == 0);
  CHECK(as_nobody([&] { return save_error(path, numbered(1)) == refused; }) == 0);
  CHECK(as_nobody([&] {
          return save_error(dir.file("new.json")).find("cannot be locked: Permission denied") !=
                 std::string::npos;
        }) == 0);
  REQUIRE(::chmod(folder.c_str(), 0777) == 0);
  CHECK(read_bytes(path) == before);
  CHECK(as_nobody([&] { return save_error(path, numbered(1)) == "no error"; }) == 0);
}

TEST_CASE("wisdom file: when the disk is full it stays as it was") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  CHECK(save_error(path) == "no error");
  const std::string before = read_bytes(path);
  const auto ending = test::run_forked([&] {
    // A limit on the size of files: the write ends in the middle, as on a full disk.
    const rlimit limit{before.size() + 10, before.size() + 10};
    ::signal(SIGXFSZ, SIG_IGN);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 99;
    return save_error(path, numbered(1)) == path + ": cannot be written: File too large" ? 0 : 1;
  });
  CHECK(ending.status == 0);
  CHECK(read_bytes(path) == before);
  CHECK(dir.entries() == 2);
}

TEST_CASE("wisdom file: a lock is exclusive, has an end, and dies with its holder") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  {
    const auto held = FileLock::acquire(path, 0.0);
    REQUIRE(held.ok());
    const auto second = FileLock::acquire(path, 0.02);
    REQUIRE_FALSE(second.ok());
    CHECK(second.error().message().find("another process has held") != std::string::npos);
    CHECK(test::run_forked([&] { return FileLock::acquire(path, 0.0).ok() ? 1 : 0; }).status == 0);
  }
  CHECK(FileLock::acquire(path, 0.0).ok());
  CHECK(test::run_forked([&] {
          static auto kept = FileLock::acquire(path, 0.0);  // NOLINT: ends with the process
          return kept.ok() ? 0 : 1;
        }).status == 0);
  CHECK(FileLock::acquire(path, 0.0).ok());
}

TEST_CASE("wisdom file: processes that save at the same time lose nothing") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  constexpr int kProcesses = 8;
  constexpr int kSaves = 20;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    children.push_back(test::start_child([&] {
      for (int i = 0; i < kSaves; ++i) {
        if (save_error(path, numbered(p * kSaves + i)) != "no error") return 1;
      }
      return 0;
    }));
  }
  for (const pid_t child : children) CHECK(test::wait_for(child).status == 0);
  CHECK(legal_entries(path) == kProcesses * kSaves);
  CHECK(dir.entries() == 2);
}

TEST_CASE("wisdom file: threads that save at the same time lose nothing") {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&path, t] {
      for (int i = 0; i < 5; ++i) {
        const WisdomEntry e = numbered(t * 5 + i);
        if (!save_wisdom(path, std::span(&e, 1)).ok()) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(legal_entries(path) == 20);
}

/// Kills a process that saves without pause, `rounds` times at random moments. The file must be
/// whole each time, with every entry of whose save the process has reported the end.
void kill_savers(int rounds) {
  const TempDir dir;
  const std::string path = dir.file("w.json");
  test::Random random(3);
  int saved = 0;
  for (int round = 0; round < rounds; ++round) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = test::start_child([&] {
      for (int i = saved;; i = (i + 1) % 50) {
        if (save_error(path, numbered(i)) != "no error") return 1;
        if (::write(ends[1], &i, sizeof i) != sizeof i) return 2;
      }
    });
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(500, 20000)));
    ::kill(child, SIGKILL);
    CHECK(test::wait_for(child).signal == SIGKILL);
    for (int i = 0; ::read(ends[0], &i, sizeof i) == sizeof i;) saved = std::max(saved, i + 1);
    ::close(ends[0]);
    if (!std::filesystem::exists(path)) {
      CHECK(saved == 0);
      continue;
    }
    CHECK(legal_entries(path) >= static_cast<std::size_t>(saved));
    saved %= 50;
  }
  CHECK(save_error(path) == "no error");
  CHECK(dir.entries() == 2);  // the leftovers of those that were killed are gone
}

TEST_CASE("wisdom file: a process killed while it saves leaves the file whole") { kill_savers(10); }

TEST_CASE("wisdom file: 200 processes killed while they save", "[.slow]") { kill_savers(200); }

TEST_CASE("wisdom files: whether one can be written is known before there is an entry") {
  const test::TempDir dir;
  const std::string path = dir.file("w.json");
  CHECK(check_wisdom_output(path).ok());
  CHECK(dir.entries() == 0);
  const std::string nowhere = dir.file("none/w.json");
  CHECK(check_wisdom_output(nowhere).error().message() ==
        nowhere + ": cannot be written: No such file or directory");
  CHECK(check_wisdom_output("/dev/full").error().message() == "/dev/full: is not a regular file");
  REQUIRE(save_wisdom(path, {}).ok());
  const std::string good = test::read_bytes(path);
  CHECK(check_wisdom_output(path).ok());
  CHECK(test::read_bytes(path) == good);
  test::write_bytes(path, R"({"format":1,"key":"a calibration, say"})");
  CHECK(check_wisdom_output(path).error().message() ==
        path + ": is no wisdom file: must be an object with format and entries");
  test::write_bytes(path, "");
  CHECK(check_wisdom_output(path).ok());
}

}  // namespace
}  // namespace deepcpu
