// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "deepcpu/model.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

std::vector<float> numbers(const Weights& w, const std::string& name) {
  const Tensor& t = w.tensors().at(name);
  return {t.data.begin(), t.data.end()};
}

TEST_CASE("gates of ONNX and Keras come into the order of the built-in cells") {
  Weights w;
  const std::vector<float> lstm = {0, 0, 10, 10, 20, 20, 30, 30};  // i o f c, one unit each
  REQUIRE(w.add_gates("a", "iofc", {4, 2}, lstm).ok());
  CHECK(numbers(w, "a") == std::vector<float>{0, 0, 20, 20, 30, 30, 10, 10});
  CHECK(w.tensors().at("a").shape == std::vector<std::int64_t>{4, 2});
  REQUIRE(w.add_gates("b", "ifco", {4, 2}, lstm).ok());
  CHECK(numbers(w, "b") == lstm);
  const std::vector<float> gru = {1, 2, 3, 4, 5, 6};  // z r h, two units each
  REQUIRE(w.add_gates("c", "zrh", {6}, gru).ok());
  CHECK(numbers(w, "c") == std::vector<float>{3, 4, 1, 2, 5, 6});
  const std::vector<float> peephole = {1, 2, 3};
  REQUIRE(w.add_gates("d", "iof", {3}, peephole).ok());
  CHECK(numbers(w, "d") == std::vector<float>{1, 3, 2});
}

TEST_CASE("a transposed kernel is turned") {
  Weights w;
  // [2 columns, 3 gates x 1 row], z r h
  const std::vector<float> kernel = {1, 2, 3, 11, 12, 13};
  REQUIRE(w.add_gates("k", "zrh", {2, 3}, kernel, true).ok());
  CHECK(numbers(w, "k") == std::vector<float>{2, 12, 1, 11, 3, 13});
  CHECK(w.tensors().at("k").shape == std::vector<std::int64_t>{3, 2});
}

TEST_CASE("gate orders that cannot be are refused") {
  Weights w;
  const std::vector<float> data(12);
  CHECK(w.add_gates("a", "ifgg", {4, 3}, data).error().message() ==
        "gates=ifgg: must hold the letters of one of ifgo, rzn, ifo (c for g, h for n) once "
        "each");
  CHECK(w.add_gates("a", "ifgo", {6, 2}, data).error().message() ==
        "tensor a: 6 rows cannot be divided into 4 gates");
  CHECK(w.add_gates("a", "ifgo", {4, 2}, data).error().message() ==
        "tensor a: 12 numbers given, the shape holds 8");
  CHECK(w.add_gates("a", "ifgo", {4, 0}, {}).error().message() ==
        "tensor a: has shape [4, 0], dimensions must be positive");
  CHECK(w.add_gates("a", "rzn", {3}, data, true).error().message() ==
        "tensor a: has rank 1: must be 2");
}

}  // namespace
}  // namespace deepcpu
