// SPDX-License-Identifier: Apache-2.0
/// The corpus of the fuzzers, file by file, without libFuzzer.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "src/tune/wisdom_json.hpp"
#include "tests/catch.hpp"
#include "tests/fuzz/targets.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

std::vector<std::string> corpus(const char* name) {
  std::vector<std::string> files;
  const std::string folder = std::string(DEEPCPU_SOURCE_DIR) + "/tests/fuzz/corpus/" + name;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST_CASE("fuzz corpus: wisdom files") {
  std::size_t legal = 0;
  for (const std::string& file : corpus("wisdom")) {
    INFO(file);
    const std::string bytes = test::read_bytes(file);
    CHECK_NOTHROW(fuzz::wisdom(bytes));
    const auto items = parse_wisdom(bytes);
    if (!items.ok()) continue;
    for (const WisdomItem& item : *items) legal += item.entry ? 1 : 0;
  }
  // A corpus in which nothing is legal reaches none of the later checks.
  CHECK(legal >= 8);
}

TEST_CASE("fuzz corpus: problem strings") {
  std::size_t legal = 0;
  for (const std::string& file : corpus("problem")) {
    INFO(file);
    const std::string bytes = test::read_bytes(file);
    CHECK_NOTHROW(fuzz::problem(bytes));
    legal += ModelSpec::parse(bytes).ok() ? 1 : 0;
  }
  CHECK(legal >= 8);
}

}  // namespace
}  // namespace deepcpu
