// SPDX-License-Identifier: Apache-2.0
/// Output files that appear together: all of them whole, or none.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "deepcpu/result.hpp"

namespace deepcpu::cli {

/// First every file is written under another name beside its place; commit() renames them. What
/// was not committed is removed again. Files that stood there before are replaced by commit() only.
class OutputFiles {
 public:
  OutputFiles() = default;
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;
  ~OutputFiles();

  /// Writes an npy file of float32 for `path`. Errors name `path`.
  Status stage(const std::string& path, std::span<const std::int64_t> shape,
               std::span<const float> data);
  Status commit();

 private:
  struct File {
    std::string path;    ///< as the user wrote it
    std::string target;  ///< symbolic links followed
    std::string temporary;
  };
  std::vector<File> files_;  ///< staged, not yet renamed
};

}  // namespace deepcpu::cli
