// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/output_files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "src/io/npy.hpp"

namespace deepcpu::cli {
namespace {

namespace fs = std::filesystem;

/// Where writing to `path` ends up. A rename would replace a directory's or a device's name.
Result<std::string> resolve_target(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (status.type() == fs::file_type::not_found) return path;
  if (code) return Error(fmt::format("{}: cannot be written: {}", path, code.message()));
  if (!fs::is_regular_file(status)) return Error(fmt::format("{}: is not a regular file", path));
  const fs::path target = fs::canonical(path, code);
  if (code) return Error(fmt::format("{}: cannot be written: {}", path, code.message()));
  return target.string();
}

}  // namespace

OutputFiles::~OutputFiles() {
  for (const File& file : files_) ::unlink(file.temporary.c_str());
}

Status OutputFiles::stage(const std::string& path, std::span<const std::int64_t> shape,
                          std::span<const float> data) {
  auto target = resolve_target(path);
  if (!target) return target.error();
  File file{path, *target, fmt::format("{}.{}.new", *target, ::getpid())};
  if (auto status = write_npy(file.temporary, shape, data); !status) {
    const std::string& text = status.error().message();
    // The user knows the file by its own name.
    if (!text.starts_with(file.temporary)) return status;
    return Error(path + text.substr(file.temporary.size()));
  }
  files_.push_back(std::move(file));
  return {};
}

Status OutputFiles::commit() {
  while (!files_.empty()) {
    const File& file = files_.back();
    std::error_code code;
    fs::rename(file.temporary, file.target, code);
    if (code) return Error(fmt::format("{}: cannot be written: {}", file.path, code.message()));
    files_.pop_back();
  }
  return {};
}

}  // namespace deepcpu::cli
