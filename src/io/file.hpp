// SPDX-License-Identifier: Apache-2.0
/// Files as the readers and writers of this folder need them: bounded reads and whole writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// A regular file, open for reading. Movable; closes itself.
class InputFile {
 public:
  static Result<InputFile> open(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  const std::string& path() const noexcept { return path_; }
  /// Bytes in the file when it was opened.
  std::uint64_t size() const noexcept { return size_; }
  /// Fills `into` from `offset` bytes on. An error when the file ends before.
  Status read(std::uint64_t offset, std::span<std::byte> into) const;

 private:
  InputFile(std::string path, int fd, std::uint64_t size);
  std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

/// Writes `parts` one after the other to `path`. The file is whole or unchanged: the bytes go to a
/// temporary file in the same directory, are flushed to the device, and then renamed. An existing
/// `path` must be a regular file; a symbolic link is followed. Thread-safe.
Status write_file(const std::string& path, std::span<const std::span<const std::byte>> parts);

/// Where write_file(path) writes: where a symbolic link leads to, even if nothing is there yet,
/// else `path`. Errors: `path` is there and is no regular file, or may not be written.
Result<std::string> write_target(const std::string& path);

/// Renames a finished file over `target`, which a write_target() gave for `path`. It gets owner,
/// group and permissions of the file that it replaces, as far as this process may give them.
Status replace_file(const std::string& finished, const std::string& target,
                    const std::string& path);

/// Whether write_file(path) could begin now: makes its temporary file and removes it again. For
/// programs that have long work to do before they write.
Status check_writable(const std::string& path);

/// Removes what processes that were killed inside write_file(target) left beside it. Only for files
/// that nobody writes at this moment.
void remove_leftovers(const std::string& target);

/// The whole of a regular file of at most `most` bytes. Errors name the file.
Result<std::string> read_text_file(const std::string& path, std::size_t most);

}  // namespace deepcpu
