// SPDX-License-Identifier: Apache-2.0
#include "src/io/file_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

namespace deepcpu {
namespace {

Error lock_error(const std::string& path, int code) {
  return Error(
      fmt::format("{}: cannot be locked: {}", path, std::generic_category().message(code)));
}

int open_lock(const std::string& name) {
  // O_NONBLOCK: a pipe of this name must not make us wait.
  constexpr int kFlags = O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int fd = ::open(name.c_str(), O_RDWR | kFlags, 0666);
  // Another user's lock file can be locked too, on most file systems.
  return fd < 0 && errno == EACCES ? ::open(name.c_str(), O_RDONLY | kFlags, 0666) : fd;
}

}  // namespace

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<FileLock> FileLock::acquire(const std::string& path, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  const int fd = open_lock(path + ".lock");
  if (fd < 0) return lock_error(path, errno);
  FileLock lock(fd);
  std::chrono::microseconds pause(200);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return lock_error(path, errno);
    if (Clock::now() >= end) {
      return Error(
          fmt::format("{}: another process has held {}.lock for {} seconds", path, path, seconds));
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10000));
  }
  return lock;
}

}  // namespace deepcpu
