// SPDX-License-Identifier: Apache-2.0
#include "src/model/weights.hpp"

#include <cmath>

#include "src/io/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/unit/io_support.hpp"

namespace deepcpu {
namespace {

using test::little_endian;
using test::TempDir;
using test::write_bytes;
using Shape = std::vector<std::int64_t>;

std::string status_of(const Status& status) {
  return status.ok() ? "ok" : status.error().message();
}

ModelSpec spec_of(const char* problem) { return ModelSpec::parse(problem).value(); }

/// Every required tensor as one line `name [shape]`.
std::vector<std::string> listing(const ModelSpec& spec) {
  std::vector<std::string> lines;
  for (const auto& tensor : required_tensors(spec)) {
    std::string line = tensor.name + " [";
    for (const auto dim : tensor.shape) line += std::to_string(dim) + ",";
    line.back() = ']';
    lines.push_back(line);
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

TEST_CASE("weights: the tensors of built-in cells have PyTorch's names and shapes") {
  CHECK(listing(spec_of("lstm:i5h8l2")) ==
        std::vector<std::string>{"bias_hh_l0 [32]", "bias_hh_l1 [32]", "bias_ih_l0 [32]",
                                 "bias_ih_l1 [32]", "weight_hh_l0 [32,8]", "weight_hh_l1 [32,8]",
                                 "weight_ih_l0 [32,5]", "weight_ih_l1 [32,8]"});
  CHECK(listing(spec_of("gru:i5h8")) ==
        std::vector<std::string>{"bias_hh_l0 [24]", "bias_ih_l0 [24]", "weight_hh_l0 [24,8]",
                                 "weight_ih_l0 [24,5]"});
  CHECK(listing(spec_of("lstm:i5h8p3")) ==
        std::vector<std::string>{"bias_hh_l0 [32]", "bias_ih_l0 [32]", "weight_hh_l0 [32,3]",
                                 "weight_hr_l0 [3,8]", "weight_ih_l0 [32,5]"});
  CHECK(listing(spec_of("rnn:i5h8/16bi")) ==
        std::vector<std::string>{
            "bias_hh_l0 [8]", "bias_hh_l0_reverse [8]", "bias_hh_l1 [16]",
            "bias_hh_l1_reverse [16]", "bias_ih_l0 [8]", "bias_ih_l0_reverse [8]",
            "bias_ih_l1 [16]", "bias_ih_l1_reverse [16]", "weight_hh_l0 [8,8]",
            "weight_hh_l0_reverse [8,8]", "weight_hh_l1 [16,16]", "weight_hh_l1_reverse [16,16]",
            "weight_ih_l0 [8,5]", "weight_ih_l0_reverse [8,5]", "weight_ih_l1 [16,16]",
            "weight_ih_l1_reverse [16,16]"});
  // A model that only runs in reverse has the plain names.
  CHECK(listing(spec_of("gru:i5h8rev")) == listing(spec_of("gru:i5h8")));
}

TEST_CASE("weights: a user's cell names its own tensors") {
  CellBuilder b("own");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value sum = b.matmul("first", x, TensorBlock{"both", 0, 2}) * h +
                    b.matmul("second", x, TensorBlock{"both", 1, 2}) + b.bias("offset") * h +
                    b.matmul("recurrent", h);
  b.next(h, sum);
  b.output(sum);
  const auto spec = ModelSpec::make(b.build().value(), {.input = 3, .hidden = {4}}).value();
  CHECK(listing(spec) ==
        std::vector<std::string>{"both_l0 [8,3]", "offset_l0 [4]", "recurrent_l0 [4,4]"});
  const auto required = required_tensors(
      ModelSpec::make(spec.cell,
                      {.input = 3, .hidden = {4, 4}, .direction = Direction::bidirectional})
          .value());
  REQUIRE(required.size() == 12);
  CHECK(required.back().layer == 1);
  CHECK(required.back().direction == 1);
}

TEST_CASE("weights: add checks name, shape and size") {
  const std::vector<float> six(6);
  Weights weights;
  CHECK(weights.add("a", {2, 3}, six).ok());
  CHECK(weights.tensors().at("a").shape == Shape{2, 3});
  CHECK(weights.tensors().at("a").data.data() == six.data());
  CHECK(status_of(weights.add("a", {6}, six)) == "tensor a: is given twice");
  CHECK(status_of(weights.add("", {6}, six)) == "tensor name: must not be empty");
  CHECK(status_of(weights.add("b", {2, 2}, six)) ==
        "tensor b: shape [2, 2] does not have 6 elements");
  CHECK(status_of(weights.add("b", {0}, {})) ==
        "tensor b: has shape [0], dimensions must be positive");
  CHECK(status_of(weights.add("b", {-2, -3}, six)) ==
        "tensor b: has shape [-2, -3], dimensions must be positive");
  CHECK(status_of(weights.add("b", {INT64_MAX, INT64_MAX, 6}, six))
            .ends_with("does not have 6 elements"));
  CHECK(weights.add("scalar", {}, std::span(six).first(1)).ok());
}

TEST_CASE("weights: missing, surplus and wrongly shaped tensors are named with what is expected") {
  const auto spec = spec_of("rnn:i2h3");
  const std::vector<float> data(100);
  const auto take = [&](std::size_t n) { return std::span(data).first(n); };
  Weights weights;
  REQUIRE(weights.add("weight_ih_l0", {3, 2}, take(6)).ok());
  REQUIRE(weights.add("weight_hh_l0", {3, 3}, take(9)).ok());
  REQUIRE(weights.add("bias_ih_l0", {3}, take(3)).ok());
  CHECK(status_of(check_weights(spec, weights)) ==
        "tensor bias_hh_l0: is missing, must have shape [3]");
  REQUIRE(weights.add("bias_hh_l0", {3}, take(3)).ok());
  CHECK(check_weights(spec, weights).ok());
  REQUIRE(weights.add("weight_ih_l1", {3, 3}, take(9)).ok());
  CHECK(status_of(check_weights(spec, weights)) ==
        "tensor weight_ih_l1: is not a tensor of rnn:i2h3b1t100");

  Weights transposed;
  REQUIRE(transposed.add("weight_ih_l0", {2, 3}, take(6)).ok());
  REQUIRE(transposed.add("weight_hh_l0", {3, 3, 1}, take(9)).ok());
  REQUIRE(transposed.add("bias_ih_l0", {3}, take(3)).ok());
  REQUIRE(transposed.add("bias_hh_l0", {3}, take(3)).ok());
  const std::string sentence = status_of(check_weights(spec, transposed));
  CHECK(sentence.find("tensor weight_ih_l0: has shape [2, 3], must have [3, 2]") !=
        std::string::npos);
  CHECK(sentence.find("tensor weight_hh_l0: has shape [3, 3, 1], must have [3, 3]") !=
        std::string::npos);
  CHECK(status_of(check_weights(spec_of("lstm:i2h3l8"), Weights())).ends_with("; and 22 more"));
}

TEST_CASE("weights: random ones fit their spec, are uniform and depend on the seed") {
  for (const char* problem :
       {"lstm:i5h8/16bi", "gru:i64h256", "lstm:i4h8p2l3", "rnn:i1h1", "lstm:i3h4,peephole=1"}) {
    const auto spec = spec_of(problem);
    const auto weights = Weights::random(spec, 1);
    REQUIRE(weights.ok());
    CHECK(status_of(check_weights(spec, *weights)) == "ok");
  }
  const auto weights = Weights::random(spec_of("gru:i64h256/64"), 42).value();
  for (const auto& [name, tensor] : weights.tensors()) {
    const double bound = name.ends_with("_l0") ? 1.0 / 16 : 1.0 / 8;
    double sum = 0;
    double largest = 0;
    for (const float v : tensor.data) {
      sum += static_cast<double>(v);
      largest = std::max(largest, std::fabs(static_cast<double>(v)));
    }
    const auto count = static_cast<double>(tensor.data.size());
    INFO(name);
    CHECK(largest <= bound);
    CHECK(largest > 0.9 * bound);
    // Six standard deviations of the mean of uniform numbers.
    CHECK(std::fabs(sum / count) < 6 * bound / std::sqrt(3 * count));
  }
  const auto first = [](std::uint64_t seed, const char* problem, const char* name) {
    return Weights::random(spec_of(problem), seed).value().tensors().at(name).data[0];
  };
  CHECK(first(1, "rnn:i5h8", "weight_ih_l0") != first(2, "rnn:i5h8", "weight_ih_l0"));
  CHECK(first(1, "rnn:i5h8", "weight_ih_l0") != first(1, "rnn:i5h8", "weight_hh_l0"));
  CHECK(first(1, "rnn:i5h8", "weight_ih_l0") == first(1, "rnn:i5h8bil2", "weight_ih_l0"));
}

TEST_CASE("weights: random ones are the same on every machine") {
  const auto weights = Weights::random(spec_of("rnn:i2h4"), 7).value();
  const auto data = weights.tensors().at("weight_ih_l0").data;
  const std::vector<float> expected = {-0x1.6594ac0000000p-2F, 0x1.89f4500000000p-2F,
                                       -0x1.c6eba80000000p-2F, -0x1.2bbfd00000000p-4F};
  CHECK(std::vector<float>(data.begin(), data.begin() + 4) == expected);
}

TEST_CASE("weights: an invalid spec has no random weights") {
  auto spec = spec_of("rnn:i2h4");
  spec.hidden[0] = 0;
  CHECK(Weights::random(spec, 1).error().message() == "hidden=0: must be between 1 and 1048576");
}

TEST_CASE("weights: a safetensors file keeps every bit, and copies keep the numbers alive") {
  const TempDir dir;
  const auto spec = spec_of("lstm:i5h8l2bi");
  const auto weights = Weights::random(spec, 3).value();
  REQUIRE(weights.to_safetensors(dir.file("m.safetensors")).ok());
  Weights copy;
  {
    auto read = Weights::from_safetensors(dir.file("m.safetensors"));
    REQUIRE(read.ok());
    copy = *read;
  }
  CHECK(check_weights(spec, copy).ok());
  REQUIRE(copy.tensors().size() == weights.tensors().size());
  for (const auto& [name, tensor] : weights.tensors()) {
    const auto& other = copy.tensors().at(name);
    CHECK(other.shape == tensor.shape);
    CHECK(std::equal(tensor.data.begin(), tensor.data.end(), other.data.begin(), other.data.end()));
  }
  CHECK(dir.entries() == 1);
}

TEST_CASE("weights: a prefix picks one module of a whole model's file") {
  const TempDir dir;
  const auto spec = spec_of("lstm:i5h8");
  const auto wanted = Weights::random(spec, 3).value();
  Weights all;
  for (const auto& [name, tensor] : wanted.tensors()) {
    for (const char* prefix : {"a.", "b.", ""}) {
      REQUIRE(all.add(prefix + name, tensor.shape, tensor.data).ok());
    }
  }
  REQUIRE(all.to_safetensors(dir.file("m")).ok());
  const auto read = Weights::from_safetensors(dir.file("m"), "b.");
  REQUIRE(read.ok());
  CHECK(check_weights(spec, *read).ok());
  CHECK(Weights::from_safetensors(dir.file("m")).value().tensors().size() == 12);
  CHECK(Weights::from_safetensors(dir.file("m"), "c.").error().message() ==
        dir.file("m") + ": no tensor's name begins with c.");
  // A whole name is no prefix.
  CHECK_FALSE(Weights::from_safetensors(dir.file("m"), "a.bias_hh_l0").ok());
}

TEST_CASE("weights: tensors of another type are not read, and named when they are needed") {
  const TempDir dir;
  const std::string header =
      R"({"weight_ih_l0":{"dtype":"F16","shape":[3,2],"data_offsets":[0,12]},)"
      R"("bias_ih_l0":{"dtype":"F32","shape":[3],"data_offsets":[12,24]},)"
      R"("step":{"dtype":"I64","shape":[],"data_offsets":[24,32]}})";
  write_bytes(dir.file("m"), little_endian(header.size(), 8) + header + std::string(32, '\0'));
  const auto weights = Weights::from_safetensors(dir.file("m"));
  REQUIRE(weights.ok());
  CHECK(weights->tensors().size() == 1);
  CHECK(weights->skipped().at("weight_ih_l0") == "F16");
  CHECK(weights->skipped().at("step") == "I64");
  const std::string sentence = status_of(check_weights(spec_of("rnn:i2h3"), *weights));
  CHECK(sentence.find("tensor weight_ih_l0: has dtype F16, must be F32") != std::string::npos);
  CHECK(sentence.find("tensor weight_hh_l0: is missing, must have shape [3, 3]") !=
        std::string::npos);
  CHECK(sentence.find("tensor step: is not a tensor of rnn:i2h3b1t100") != std::string::npos);
}

TEST_CASE("weights: a file that is broken or absent is an error that names it") {
  const TempDir dir;
  CHECK(Weights::from_safetensors(dir.file("none")).error().message() ==
        dir.file("none") + ": cannot be read: No such file or directory");
  write_bytes(dir.file("short"), "abc");
  CHECK(Weights::from_safetensors(dir.file("short")).error().message() ==
        dir.file("short") + ": has 3 bytes: a safetensors file has at least 8");
  const std::string empty = R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})";
  write_bytes(dir.file("empty"), little_endian(empty.size(), 8) + empty);
  CHECK(Weights::from_safetensors(dir.file("empty")).error().message() ==
        dir.file("empty") + ": tensor a: has shape [0], dimensions must be positive");
  CHECK(status_of(Weights().to_safetensors(dir.file("none/m"))) ==
        dir.file("none/m") + ": cannot be written: No such file or directory");
}

}  // namespace
}  // namespace deepcpu
