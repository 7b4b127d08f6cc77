// SPDX-License-Identifier: Apache-2.0
#include "src/io/npy.hpp"

#include <sys/stat.h>

#include <limits>

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

std::string npy_file(const std::string& header, const std::string& data, int major = 1) {
  return std::string("\x93NUMPY") + static_cast<char>(major) + '\0' +
         little_endian(header.size(), major == 1 ? 2 : 4) + header + data;
}

std::string error_of(const std::string& bytes) {
  const TempDir dir;
  const std::string path = dir.file("x.npy");
  write_bytes(path, bytes);
  const auto array = read_npy(path);
  if (array.ok()) return "no error";
  CHECK(array.error().message().starts_with(path + ": "));
  return array.error().message().substr(path.size() + 2);
}

const std::string kF4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";

TEST_CASE("npy: arrays of any rank come back as they were written") {
  const TempDir dir;
  test::Random random(1);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(random.integer(0, 6)));
    std::size_t count = 1;
    for (auto& dim : shape) {
      dim = random.integer(0, 4);
      count *= static_cast<std::size_t>(dim);
    }
    const auto data = test::random_floats(random, count);
    const std::string path = dir.file("x.npy");
    REQUIRE(write_npy(path, shape, data).ok());
    const auto back = read_npy_f32(path, shape.size());
    REQUIRE(back.ok());
    CHECK(back->shape == shape);
    CHECK(back->data == data);
    CHECK((read_bytes(path).size() - data.size() * 4) % 64 == 0);
  }
  CHECK(dir.entries() == 1);
}

TEST_CASE("npy: the bytes are those that numpy 2.4 writes") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {2};
  REQUIRE(write_npy(dir.file("x.npy"), shape, std::vector<float>{1.0F, -2.0F}).ok());
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  header.resize(117, ' ');
  CHECK(read_bytes(dir.file("x.npy")) == npy_file(header + "\n", float_bytes({1.0F, -2.0F})));
}

TEST_CASE("npy: NaN and infinity keep their bits") {
  const TempDir dir;
  const std::vector<float> data = {std::numeric_limits<float>::quiet_NaN(),
                                   -std::numeric_limits<float>::infinity(), -0.0F, 1e-45F};
  const std::vector<std::int64_t> shape = {4};
  REQUIRE(write_npy(dir.file("x.npy"), shape, data).ok());
  const auto back = read_npy_f32(dir.file("x.npy"), 1);
  REQUIRE(back.ok());
  CHECK(std::memcmp(back->data.data(), data.data(), 16) == 0);
}

TEST_CASE("npy: versions 1, 2 and 3, both integer types and rank 0 are read") {
  const TempDir dir;
  const std::string path = dir.file("x.npy");
  for (const int major : {1, 2, 3}) {
    write_bytes(path, npy_file(kF4, float_bytes({1.5F, 2.5F}), major));
    const auto array = read_npy_f32(path, 2);
    REQUIRE(array.ok());
    CHECK(array->shape == std::vector<std::int64_t>{2, 1});
    CHECK(array->data == std::vector<float>{1.5F, 2.5F});
  }
  write_bytes(path, npy_file("{\"shape\":(2,),\"descr\":\"<i4\",\"fortran_order\":False}",
                             little_endian(7, 4) + little_endian(~0ULL, 4)));
  CHECK(read_npy_integers(path).value() == std::vector<std::int64_t>{7, -1});
  write_bytes(path, npy_file("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}",
                             little_endian(1ULL << 40, 8)));
  CHECK(read_npy_integers(path).value() == std::vector<std::int64_t>{std::int64_t{1} << 40});
  write_bytes(
      path, npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", float_bytes({3.0F})));
  CHECK(read_npy_f32(path, 0).value().data == std::vector<float>{3.0F});
}

TEST_CASE("npy: another type, order or rank is refused by name") {
  const auto header = [](const std::string& descr, const std::string& order) {
    return npy_file("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': (1,)}",
                    "12345678");
  };
  const std::string rule =
      ": must be '<f4', '<i4' or '<i8' (float32, int32 or int64, little-endian)";
  CHECK(error_of(header("'<f8'", "False")) == "descr=<f8" + rule);
  CHECK(error_of(header("'>f4'", "False")) == "descr=>f4" + rule);
  CHECK(error_of(header("'<f2'", "False")) == "descr=<f2" + rule);
  CHECK(error_of(header("'|O'", "False")) == "descr=|O" + rule);
  CHECK(error_of(header("[('a', '<f4')]", "False")) == "descr: must be a string such as '<f4'");
  CHECK(error_of(header("'<f4'", "True")) == "fortran_order=True: must be False (C order)");
  CHECK(error_of(header("'<f4'", "1")) == "fortran_order: must be True or False");

  const TempDir dir;
  const std::string path = dir.file("x.npy");
  write_bytes(path, npy_file(kF4, float_bytes({1.5F, 2.5F})));
  CHECK(read_npy_f32(path, 3).error().message() == path + ": shape (2, 1): must have 3 dimensions");
  CHECK(read_npy_integers(path).error().message() ==
        path + ": shape (2, 1): must have 1 dimension");
  write_bytes(path, npy_file("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}",
                             little_endian(5, 8)));
  CHECK(read_npy_f32(path, 1).error().message() == path + ": type int64: must be float32");
  write_bytes(path, header("'<f8'", "False"));
  CHECK(read_npy_f32(path, 1).error().message() ==
        path + ": descr=<f8: must be '<f4' (float32, little-endian)");
  CHECK(read_npy_integers(path).error().message() ==
        path + ": descr=<f8: must be '<i4' or '<i8' (int32 or int64, little-endian)");
  write_bytes(path, npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "1234"));
  CHECK(read_npy_integers(path).error().message() ==
        path + ": type float32: must be int32 or int64");
}

TEST_CASE("npy: sizes that are false are refused") {
  CHECK(error_of(npy_file(kF4, "1234567")) == "shape (2, 1) takes 8 bytes, the file holds 7");
  CHECK(error_of(npy_file(kF4, "123456789")) == "shape (2, 1) takes 8 bytes, the file holds 9");
  const auto shape = [](const std::string& text) {
    return error_of(
        npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': " + text + "}", ""));
  };
  CHECK(shape("(4611686018427387904, 4)") ==
        "shape (4611686018427387904, 4) takes more than 2^63 bytes, the file holds 0");
  CHECK(shape("(0, 4611686018427387904, 4)") ==
        "shape (0, 4611686018427387904, 4) takes more than 2^63 bytes, the file holds 0");
  CHECK(shape("(1048576, 1048576)") ==
        "shape (1048576, 1048576) takes 4398046511104 bytes, the file holds 0");
  const std::string rule = "shape: must be a tuple of integers from 0 to 2^63 - 1";
  for (const char* bad : {"(-1,)", "(3)", "(3 4)", "(,)", "[3]", "(3L,)", "(9223372036854775808,)",
                          "(1.0,)", "(1,,)", "(", "(1,", "3"}) {
    INFO(bad);
    const std::string sentence = shape(bad);
    CHECK((sentence == rule || sentence == "header: is not a Python dict"));
  }
}

TEST_CASE("npy: a header that is not one is refused") {
  CHECK(error_of("") == "is not an npy file");
  CHECK(error_of("\x93NUMP") == "is not an npy file");
  CHECK(error_of("PK\x03\x04 this is a zip") == "is not an npy file");
  CHECK(error_of(npy_file(kF4, "", 4)) == "format version 4: must be 1, 2 or 3");
  CHECK(error_of(npy_file("", "").substr(0, 9)) == "is truncated inside the header");
  CHECK(error_of(std::string("\x93NUMPY\x02\0", 8) + "abc") == "is truncated inside the header");
  CHECK(error_of(npy_file(kF4, "").substr(0, 40)) ==
        "header length 60: the file holds only 30 bytes after it");
  CHECK(error_of(std::string("\x93NUMPY\x02\0", 8) + "\xff\xff\xff\xff{}") ==
        "header length 4294967295: the file holds only 2 bytes after it");
  CHECK(error_of(npy_file(std::string((1 << 20) + 1, ' '), "", 2)) ==
        "header length 1048577: must be at most 1048576");

  const auto dict = [](const std::string& text) { return error_of(npy_file(text, "")); };
  const std::string not_a_dict = "header: is not a Python dict";
  CHECK(dict("") == not_a_dict);
  CHECK(dict("{") == not_a_dict);
  CHECK(dict("{'descr' '<f4'}") == not_a_dict);
  CHECK(dict("{'descr': '<f4' 'shape': ()}") == not_a_dict);
  CHECK(dict("{'descr': '<f4'} x") == not_a_dict);
  CHECK(dict("{,}") == not_a_dict);
  CHECK(dict("{'descr': '<f4'}") == "header: fortran_order is missing");
  CHECK(dict("{'descr': '<f4', 'fortran_order': False}") == "header: shape is missing");
  CHECK(dict("{'descr': '<f4', 'descr': '<f4'}") == "header: descr is given twice");
  CHECK(dict("{'order': 'C'}") == "header: key order is unknown");
  CHECK(dict("{'descr': __import__('os')}") == "descr: must be a string such as '<f4'");
}

TEST_CASE("npy: every truncation and many damaged bytes give an error or an array, never a crash") {
  const TempDir dir;
  const std::string path = dir.file("x.npy");
  const std::string good = npy_file(kF4, float_bytes({1.5F, 2.5F}));
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_bytes(path, good.substr(0, length));
    CHECK_FALSE(read_npy(path).ok());
  }
  test::Random random(2);
  for (int round = 0; round < 200; ++round) {
    std::string bad = good;
    bad[static_cast<std::size_t>(random.integer(0, static_cast<int>(good.size()) - 1))] =
        static_cast<char>(random.integer(0, 255));
    write_bytes(path, bad);
    const auto array = read_npy(path);
    if (!array.ok()) CHECK_FALSE(array.error().message().empty());
  }
  for (int round = 0; round < 5000; ++round) {
    std::string bad = kF4;
    bad[static_cast<std::size_t>(random.integer(0, static_cast<int>(bad.size()) - 1))] =
        static_cast<char>(random.integer(0, 255));
    const auto header = parse_npy_header(bad);
    if (!header.ok()) CHECK_FALSE(header.error().message().empty());
  }
}

TEST_CASE("npy: files that cannot be opened or written are errors that name them") {
  const TempDir dir;
  const std::string missing = dir.file("none/x.npy");
  const std::vector<std::int64_t> shape = {1};
  const std::vector<float> data = {1.0F};
  CHECK(read_npy(missing).error().message() ==
        missing + ": cannot be read: No such file or directory");
  CHECK(read_npy(dir.file("")).error().message().ends_with("is not a regular file"));
  CHECK(write_npy(missing, shape, data).error().message() ==
        missing + ": cannot be written: No such file or directory");
  CHECK(write_npy("/dev/null", shape, data).error().message() ==
        "/dev/null: is not a regular file");
  const std::string pipe = dir.file("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(read_npy(pipe).error().message() == pipe + ": is not a regular file");
  const std::vector<std::int64_t> wrong = {2};
  CHECK(write_npy(dir.file("x.npy"), wrong, data).error().message() ==
        dir.file("x.npy") + ": shape (2) does not have 1 elements");
  CHECK(dir.entries() == 1);
}

TEST_CASE("npy: a write replaces a file as a whole and follows a symbolic link") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {1};
  write_bytes(dir.file("x.npy"), "something else");
  std::filesystem::create_symlink("x.npy", dir.file("link"));
  REQUIRE(write_npy(dir.file("link"), shape, std::vector<float>{4.0F}).ok());
  CHECK(std::filesystem::is_symlink(dir.file("link")));
  CHECK(read_npy_f32(dir.file("x.npy"), 1).value().data == std::vector<float>{4.0F});
  CHECK(dir.entries() == 2);
}

TEST_CASE("npy: a write goes to where a link leads that names nothing yet") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {1};
  std::filesystem::create_symlink("middle", dir.file("link"));
  std::filesystem::create_symlink(dir.file("x.npy"), dir.file("middle"));
  REQUIRE(write_npy(dir.file("link"), shape, std::vector<float>{4.0F}).ok());
  CHECK(std::filesystem::is_symlink(dir.file("link")));
  CHECK(std::filesystem::is_symlink(dir.file("middle")));
  CHECK(read_npy_f32(dir.file("x.npy"), 1).value().data == std::vector<float>{4.0F});
  CHECK(dir.entries() == 3);
  std::filesystem::create_symlink("nowhere/x.npy", dir.file("lost"));
  CHECK(write_npy(dir.file("lost"), shape, std::vector<float>{4.0F}).error().message() ==
        dir.file("lost") + ": cannot be written: No such file or directory");
  std::filesystem::create_symlink("round", dir.file("round"));
  CHECK(write_npy(dir.file("round"), shape, std::vector<float>{4.0F}).error().message() ==
        dir.file("round") + ": cannot be written: Too many levels of symbolic links");
}

TEST_CASE("npy: a file that is replaced keeps its permissions") {
  const TempDir dir;
  const std::vector<std::int64_t> shape = {1};
  const std::string path = dir.file("x.npy");
  for (const auto mode : {0600, 0664, 0640}) {
    write_bytes(path, "something else");
    const auto permissions = static_cast<std::filesystem::perms>(mode);
    std::filesystem::permissions(path, permissions);
    REQUIRE(write_npy(path, shape, std::vector<float>{4.0F}).ok());
    CHECK(std::filesystem::status(path).permissions() == permissions);
  }
}

}  // namespace
}  // namespace deepcpu
