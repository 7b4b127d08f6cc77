// SPDX-License-Identifier: Apache-2.0
#include "src/io/safetensors.hpp"

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

using test::float_bytes;
using test::little_endian;
using test::read_bytes;
using test::TempDir;
using test::write_bytes;

std::string container(const std::string& header, const std::string& data) {
  return little_endian(header.size(), 8) + header + data;
}

std::string open_error(const std::string& bytes) {
  const TempDir dir;
  const std::string path = dir.file("m.safetensors");
  write_bytes(path, bytes);
  const auto file = SafetensorsFile::open(path);
  if (file.ok()) return "no error";
  CHECK(file.error().message().starts_with(path + ": "));
  return file.error().message().substr(path.size() + 2);
}

std::string header_error(std::string_view header, std::uint64_t data_bytes) {
  const auto entries = parse_safetensors_header(header, data_bytes);
  return entries.ok() ? "no error" : entries.error().message();
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

/// A header with one float32 tensor `a`.
std::string one(const std::string& shape, const std::string& offsets) {
  return R"({"a":)" + entry("F32", shape, offsets) + "}";
}

TEST_CASE("safetensors: tensors come back as they were written") {
  const TempDir dir;
  const std::string path = dir.file("m.safetensors");
  test::Random random(3);
  for (int round = 0; round < 30; ++round) {
    const auto count = static_cast<std::size_t>(random.integer(0, 8));
    std::vector<std::string> names;
    std::vector<std::vector<std::int64_t>> shapes;
    std::vector<std::vector<float>> data;
    for (std::size_t i = 0; i < count; ++i) {
      names.push_back("tensor \"" + std::to_string(i) + "\" \xc3\xa9");
      shapes.emplace_back();
      std::size_t size = 1;
      for (int d = random.integer(0, 3); d > 0; --d) {
        shapes.back().push_back(random.integer(0, 5));
        size *= static_cast<std::size_t>(shapes.back().back());
      }
      data.push_back(test::random_floats(random, size));
    }
    std::vector<SafetensorsTensor> tensors;
    for (std::size_t i = 0; i < count; ++i) tensors.push_back({names[i], shapes[i], data[i]});
    REQUIRE(write_safetensors(path, tensors).ok());
    const auto file = SafetensorsFile::open(path);
    REQUIRE(file.ok());
    REQUIRE(file->entries().size() == count);
    for (const auto& found : file->entries()) {
      const auto i = static_cast<std::size_t>(std::find(names.begin(), names.end(), found.name) -
                                              names.begin());
      REQUIRE(i < count);
      CHECK(found.dtype == "F32");
      CHECK(found.shape == shapes[i]);
      CHECK(file->read_f32(found).value() == data[i]);
    }
  }
  CHECK(dir.entries() == 1);
}

TEST_CASE("safetensors: the written bytes are those of the format") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {1, 2};
  const std::vector<float> data = {1.0F, 2.0F};
  const std::vector<SafetensorsTensor> tensors = {{"a", shape, data}};
  REQUIRE(write_safetensors(dir.file("m"), tensors).ok());
  std::string header = R"({"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(read_bytes(dir.file("m")) == container(header, float_bytes({1.0F, 2.0F})));
}

TEST_CASE("safetensors: metadata, other types, odd offsets and padding are read") {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"u":)" + entry("U8", "[3]", "[0,3]") + R"(,"f":)" +
      entry("F32", "[]", "[3,7]") + R"(,"e":)" + entry("F32", "[0,4]", "[3,3]") + "}    ";
  const TempDir dir;
  write_bytes(dir.file("m"), container(header, "abc" + float_bytes({2.5F})));
  const auto file = SafetensorsFile::open(dir.file("m"));
  REQUIRE(file.ok());
  REQUIRE(file->entries().size() == 3);
  CHECK(file->entries()[0].name == "u");
  CHECK(file->entries()[1].name == "e");
  CHECK(file->entries()[2].name == "f");
  CHECK(file->read_f32(file->entries()[2]).value() == std::vector<float>{2.5F});
  CHECK(file->read_f32(file->entries()[0]).error().message() == "tensor u: dtype U8: must be F32");
  CHECK(parse_safetensors_header("{}", 0).value().empty());
}

TEST_CASE("safetensors: a false header length is refused") {
  const std::string why = ", so it is cut short or no safetensors file";
  CHECK(open_error("") == "has 0 bytes: a safetensors file has at least 8");
  CHECK(open_error("1234567") == "has 7 bytes: a safetensors file has at least 8");
  CHECK(open_error(little_endian(1ULL << 60, 8) + "{}") ==
        "header length 1152921504606846976: the file holds only 2 bytes after it" + why);
  CHECK(open_error(little_endian(~0ULL, 8) + "{}") ==
        "header length 18446744073709551615: the file holds only 2 bytes after it" + why);
  CHECK(open_error(little_endian(3, 8) + "{}") ==
        "header length 3: the file holds only 2 bytes after it" + why);
  CHECK(open_error(container("", "")) == "header: must start with {");
  CHECK(open_error(container(" {}", "")) == "header: must start with {");

  const TempDir dir;
  const std::string path = dir.file("huge");
  write_bytes(path, little_endian(100'000'001, 8));
  std::filesystem::resize_file(path, 200'000'000);
  CHECK(SafetensorsFile::open(path).error().message() ==
        path + ": header length 100000001: must be at most 100000000");
}

TEST_CASE("safetensors: a header that is not a flat JSON object is refused") {
  CHECK(header_error("{", 0) == "header: JSON is not valid at byte 2");
  CHECK(header_error("{\"a\":\xff}", 0) == "header: JSON is not valid at byte 6");
  CHECK(header_error("{} {}", 0) == "header: JSON is not valid at byte 4");
  const std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
  CHECK(header_error(deep, 0) == "header: JSON nested 100001 deep: must be at most 3");
  CHECK(header_error(R"({"a":1e999})", 0) == "header: JSON holds a number that is too large");
  const std::string twice =
      R"({"a":)" + entry("F32", "[1]", "[0,4]") + R"(,"a":)" + entry("F32", "[1]", "[4,8]") + "}";
  CHECK(header_error(twice, 8) == "header: a: is given twice");
  CHECK(header_error(R"({"__metadata__":[]})", 0) == "__metadata__: must be an object of strings");
  CHECK(header_error(R"({"__metadata__":{"n":1}})", 0) == "__metadata__: n must be a string");
}

TEST_CASE("safetensors: an entry with missing, unknown or mistyped fields is refused by name") {
  CHECK(header_error(R"({"a":3})", 0) == "tensor a: must be an object");
  CHECK(header_error(R"({"a":{}})", 0) == "tensor a: dtype is missing");
  CHECK(header_error(R"({"a":{"dtype":"F32"}})", 0) == "tensor a: shape is missing");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[]}})", 0) ==
        "tensor a: data_offsets is missing");
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}})", 4) ==
        "tensor a: field x is unknown");
  CHECK(header_error(R"({"a":{"dtype":1,"shape":[],"data_offsets":[0,4]}})", 4) ==
        "tensor a: dtype must be a string");
  CHECK(header_error(R"({"a":)" + entry("float", "[1]", "[0,4]") + "}", 4) ==
        "tensor a: dtype float is unknown");
  CHECK(header_error(one("1", "[0,4]"), 4) == "tensor a: shape must be an array");
  for (const char* dim : {"-1", "1.0", "\"1\"", "null", "9223372036854775808", "1e3"}) {
    const std::string sentence = header_error(one(std::string("[") + dim + "]", "[0,4]"), 4);
    CHECK(sentence.starts_with("tensor a: shape has the dimension "));
    CHECK(sentence.ends_with(": must be an integer from 0 to 2^63 - 1"));
  }
  for (const char* offsets : {"[0]", "[0,4,8]", "4", "[-1,4]", "[0,4.0]", "{}"}) {
    CHECK(header_error(one("[1]", offsets), 4) ==
          "tensor a: data_offsets must be two integers, [begin, end]");
  }
}

TEST_CASE("safetensors: offsets and sizes that are false are refused by name") {
  CHECK(header_error(one("[1]", "[4,0]"), 4) ==
        "tensor a: data_offsets [4, 0]: begin must not be after end");
  CHECK(header_error(one("[1]", "[0,8]"), 4) ==
        "tensor a: data_offsets [0, 8]: the file holds only 4 bytes of data");
  CHECK(header_error(one("[1]", "[18446744073709551612,18446744073709551615]"), 4) ==
        "tensor a: data_offsets [18446744073709551612, 18446744073709551615]: the file holds only "
        "4 bytes of data");
  CHECK(header_error(one("[2,3]", "[0,20]"), 20) ==
        "tensor a: shape [2, 3] of F32 takes 24 bytes, data_offsets [0, 20] give 20");
  CHECK(header_error(one("[4294967296,4294967296]", "[0,4]"), 4) ==
        "tensor a: the product of its shape passes 2^63 bits");
  CHECK(header_error(one("[0,4294967296,4294967296]", "[0,0]"), 0) ==
        "tensor a: the product of its shape passes 2^63 bits");

  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":)" + entry("F32", "[2]", first) + R"(,"b":)" + entry("F32", "[2]", second) + "}";
  };
  CHECK(header_error(two("[0,8]", "[8,16]"), 16) == "no error");
  CHECK(header_error(two("[0,8]", "[4,12]"), 12) ==
        "tensor b: data_offsets [4, 12] overlap those of tensor a");
  CHECK(header_error(two("[0,8]", "[0,8]"), 8) ==
        "tensor b: data_offsets [0, 8] overlap those of tensor a");
  CHECK(header_error(two("[0,8]", "[12,20]"), 20) ==
        "tensor b: data_offsets [12, 20] leave the bytes 8 to 12 to no tensor");
  CHECK(header_error(two("[0,8]", "[8,16]"), 20) ==
        "the bytes 16 to 20 of the data belong to no tensor");
  CHECK(open_error(container(one("[2]", "[0,8]"), "1234567")) ==
        "tensor a: data_offsets [0, 8]: the file holds only 7 bytes of data");
}

TEST_CASE(
    "safetensors: every truncation is an error, damage is an error or a file, never a crash") {
  const TempDir dir;
  const std::string path = dir.file("m");
  const std::string header = R"({"__metadata__":{"format":"pt"},"a":)" +
                             entry("F32", "[2,1]", "[0,8]") + R"(,"b":)" +
                             entry("F32", "[1]", "[8,12]") + "}";
  const std::string good = container(header, float_bytes({1.0F, 2.0F, 3.0F}));
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_bytes(path, good.substr(0, length));
    CHECK_FALSE(SafetensorsFile::open(path).ok());
  }
  test::Random random(4);
  for (int round = 0; round < 200; ++round) {
    std::string bad = good;
    const auto at = static_cast<std::size_t>(random.integer(0, static_cast<int>(good.size()) - 1));
    bad[at] = static_cast<char>(random.integer(0, 255));
    write_bytes(path, bad);
    const auto file = SafetensorsFile::open(path);
    if (!file.ok()) continue;
    for (const auto& found : file->entries()) {
      if (found.dtype == "F32") CHECK(file->read_f32(found).ok());
    }
  }
  for (int round = 0; round < 5000; ++round) {
    std::string bad = header;
    bad[static_cast<std::size_t>(random.integer(0, static_cast<int>(bad.size()) - 1))] =
        static_cast<char>(random.integer(0, 255));
    const auto entries = parse_safetensors_header(bad, 12);
    if (!entries.ok()) continue;
    for (const auto& found : *entries) CHECK((found.begin <= found.end && found.end <= 12));
  }
}

TEST_CASE("safetensors: a writer that cannot succeed leaves nothing") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {1};
  const std::vector<float> data = {1.0F};
  const auto write = [&](std::vector<SafetensorsTensor> tensors) {
    return write_safetensors(dir.file("m"), tensors).error().message();
  };
  CHECK(write({{"a", shape, data}, {"a", shape, data}}) ==
        "tensor a: this name is reserved or given twice");
  CHECK(write({{"__metadata__", shape, data}}) ==
        "tensor __metadata__: this name is reserved or given twice");
  CHECK(write({{"a", shape, {}}}) == "tensor a: shape [1] does not have 0 elements");
  CHECK(write({{"\xff", shape, data}}) ==
        dir.file("m") + ": cannot be written: a tensor's name is not UTF-8");
  CHECK(dir.entries() == 0);
}

}  // namespace
}  // namespace deepcpu
