// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/output_files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "src/io/file.hpp"
#include "src/io/npy.hpp"

namespace deepcpu::cli {
OutputFiles::~OutputFiles() {
  for (const File& file : files_) ::unlink(file.temporary.c_str());
}

Status OutputFiles::stage(const std::string& path, std::span<const std::int64_t> shape,
                          std::span<const float> data) {
  auto target = write_target(path);
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
    if (auto status = replace_file(file.temporary, file.target, file.path); !status) return status;
    files_.pop_back();
  }
  return {};
}

}  // namespace deepcpu::cli
