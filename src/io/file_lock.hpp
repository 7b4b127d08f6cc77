// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// The exclusive right to change a file, among all threads and processes that ask for it here. It
/// ends with the object, or with the process, however that ends. Movable.
class FileLock {
 public:
  /// Locks `<path>.lock`, which is made if it is not there and stays. Waits for another holder at
  /// most `seconds`. Errors name `path`.
  static Result<FileLock> acquire(const std::string& path, double seconds);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace deepcpu
