// SPDX-License-Identifier: Apache-2.0
#include "src/io/file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>

namespace deepcpu {
namespace {

/// Linux transfers at most 0x7ffff000 bytes per call; stay well below.
constexpr std::size_t kLargestTransfer = std::size_t{1} << 30;

Error file_error(const std::string& path, std::string_view action, int code) {
  return Error(
      fmt::format("{}: cannot be {}: {}", path, action, std::generic_category().message(code)));
}

/// Closes a descriptor when it goes out of scope.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// A file that is removed when it goes out of scope, unless it was kept.
class Temporary {
 public:
  Temporary() = default;
  ~Temporary() {
    if (!name.empty()) ::unlink(name.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  std::string name;  ///< empty: there is none
};

Status write_all(int fd, const std::string& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd, bytes.data(), std::min(bytes.size(), kLargestTransfer));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return file_error(path, "written", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

Status write_and_close(Descriptor& file, const std::string& path,
                       std::span<const std::span<const std::byte>> parts) {
  for (const auto& part : parts) {
    if (auto status = write_all(file.get(), path, part); !status) return status;
  }
  if (::fsync(file.get()) != 0) return file_error(path, "written", errno);
  if (::close(file.release()) != 0) return file_error(path, "written", errno);
  return {};
}

/// A new file beside `target`, open for writing; `path` is what the user calls it.
Result<int> open_temporary(const std::string& target, const std::string& path,
                           Temporary& temporary) {
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string name = fmt::format("{}.{}.{}.tmp", target, ::getpid(), counter.fetch_add(1));
    const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
      temporary.name = std::move(name);
      return fd;
    }
    if (errno != EEXIST) return file_error(path, "written", errno);
  }
  return file_error(path, "written", EEXIST);
}

std::string directory_of(const std::string& target) {
  const auto parent = std::filesystem::path(target).parent_path();
  return parent.empty() ? "." : parent.string();
}

/// Makes a rename last through a power failure. Directories that cannot be opened are left.
void flush_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

InputFile::InputFile(std::string path, int fd, std::uint64_t size)
    : path_(std::move(path)), fd_(fd), size_(size) {}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<InputFile> InputFile::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not wait for ever.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return file_error(path, "read", errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return file_error(path, "read", errno);
  if (!S_ISREG(info.st_mode)) return Error(fmt::format("{}: is not a regular file", path));
  std::string name = path;  // while the descriptor has an owner
  return InputFile(std::move(name), file.release(), static_cast<std::uint64_t>(info.st_size));
}

Status InputFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  if (offset > size_ || into.size() > size_ - offset) {
    return Error(
        fmt::format("{}: ends at byte {}, before byte {}", path_, size_, offset + into.size()));
  }
  while (!into.empty()) {
    const std::size_t want = std::min(into.size(), kLargestTransfer);
    const ssize_t done = ::pread(fd_, into.data(), want, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return file_error(path_, "read", errno);
    if (done == 0) return Error(fmt::format("{}: became shorter while it was read", path_));
    into = into.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return {};
}

namespace {
/// Where links lead to of which the last one names nothing that is there.
Result<std::string> end_of_links(const std::string& path) {
  constexpr int kMostLinks = 40;  // as in the kernel
  std::filesystem::path at = path;
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code code;
    const auto next = std::filesystem::read_symlink(at, code);
    if (code) return at.string();
    at = at.parent_path() / next;  // which is `next` if that is absolute
  }
  return file_error(path, "written", ELOOP);
}
}  // namespace

Result<std::string> write_target(const std::string& path) {
  if (path.empty()) return Error("path: is empty");
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return end_of_links(path);
    return file_error(path, "written", errno);
  }
  if (!S_ISREG(info.st_mode)) return Error(fmt::format("{}: is not a regular file", path));
  // A rename would replace a file that its owner made read-only.
  if (::access(path.c_str(), W_OK) != 0) return file_error(path, "written", errno);
  std::error_code code;
  const auto resolved = std::filesystem::canonical(path, code);
  if (code) return file_error(path, "written", code.value());
  return resolved.string();
}

Status replace_file(const std::string& finished, const std::string& target,
                    const std::string& path) {
  struct stat old {};
  if (::stat(target.c_str(), &old) == 0) {
    // By descriptor: in a folder that others may write, the name could be another file by now.
    const Descriptor file(::open(finished.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (file.get() < 0) return file_error(path, "written", errno);
    constexpr auto kSame = static_cast<uid_t>(-1);
    const bool same_group = ::fchown(file.get(), old.st_uid, old.st_gid) == 0 ||
                            ::fchown(file.get(), kSame, old.st_gid) == 0;
    // What its group might do, another must not. No bits that lend an owner's rights.
    const mode_t mode = old.st_mode & (same_group ? mode_t{0777} : mode_t{0707});
    if (::fchmod(file.get(), mode) != 0) return file_error(path, "written", errno);
  }
  if (::rename(finished.c_str(), target.c_str()) != 0) return file_error(path, "written", errno);
  return {};
}

Status check_writable(const std::string& path) {
  const auto target = write_target(path);
  if (!target) return target.error();
  Temporary temporary;
  const auto fd = open_temporary(*target, path, temporary);
  if (!fd) return fd.error();
  ::close(*fd);
  return {};
}

void remove_leftovers(const std::string& target) {
  const std::string folder = directory_of(target);
  const std::string start = std::filesystem::path(target).filename().string() + ".";
  // Not std::filesystem::directory_iterator, which ends the program where memory runs out.
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(folder.c_str()), ::closedir);
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    std::string_view name = entry->d_name;
    constexpr std::string_view kEnd = ".tmp";
    if (name.size() < start.size() + kEnd.size()) continue;
    if (!name.starts_with(start) || !name.ends_with(kEnd)) continue;
    name.remove_prefix(start.size());
    name.remove_suffix(kEnd.size());
    // As open_temporary names them: process, point, counter.
    if (name.find_first_not_of("0123456789.") != std::string_view::npos) continue;
    ::unlinkat(::dirfd(entries.get()), entry->d_name, 0);
  }
}

Result<std::string> read_text_file(const std::string& path, std::size_t most) {
  const auto file = InputFile::open(path);
  if (!file) return file.error();
  if (file->size() > most) {
    return Error(fmt::format("{}: has {} bytes; must be at most {}", path, file->size(), most));
  }
  std::string text(static_cast<std::size_t>(file->size()), '\0');
  if (auto status = file->read(0, std::as_writable_bytes(std::span(text))); !status) {
    return status.error();
  }
  return text;
}

Status write_file(const std::string& path, std::span<const std::span<const std::byte>> parts) {
  const auto target = write_target(path);
  if (!target) return target.error();
  const std::string directory = directory_of(*target);
  Temporary temporary;
  const auto fd = open_temporary(*target, path, temporary);
  if (!fd) return fd.error();
  Descriptor file(*fd);
  if (auto status = write_and_close(file, path, parts); !status) return status;
  if (auto status = replace_file(temporary.name, *target, path); !status) return status;
  temporary.name.clear();
  flush_directory(directory);
  return {};
}

}  // namespace deepcpu
