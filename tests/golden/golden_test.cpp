// SPDX-License-Identifier: Apache-2.0
/// Golden vectors of PyTorch (float64) and onnxruntime (float32); how they were made stands in
/// make_golden.py and make_golden_onnx.py. Each case runs on every ISA of the machine.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "deepcpu/deepcpu.hpp"
#include "tests/catch.hpp"
#include "tests/golden/golden_npy.hpp"
#include "tests/oracle/oracle.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace deepcpu;
using test::NpyArray;

/// The cases have at most 9 steps, at most 25 summands of magnitude up to 2 and states of
/// magnitude 1: at most some 20 roundings of half an ulp (6e-8) in each gate, passed on by
/// factors below 1. PyTorch's own float32 is within 4e-7 on them.
constexpr double kPytorchBound = 2e-6;
/// Both sides are float32 here, and onnxruntime's sigmoid and tanh are rational approximations
/// with absolute errors up to 1e-6 each.
constexpr double kOnnxBound = 1e-5;

const std::string kFolder = std::string(DEEPCPU_SOURCE_DIR) + "/tests/golden/";

std::vector<float> to_float(const NpyArray& array) {
  return {array.data.begin(), array.data.end()};
}

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    if (isa <= host_isa()) all.push_back(isa);
  }
  return all;
}

struct Case {
  std::string folder;
  std::string problem;
  double bound = 0.0;

  NpyArray read(const char* name) const {
    return test::read_npy(kFolder + folder + "/" + name + ".npy");
  }
  bool has(const char* name) const {
    return std::ifstream(kFolder + folder + "/" + name + ".npy").good();
  }
  /// Valid steps per row, empty if all rows are whole.
  std::vector<std::int64_t> lengths() const {
    std::vector<std::int64_t> out;
    if (!has("lengths")) return out;
    for (const double v : read("lengths").data) out.push_back(static_cast<std::int64_t>(v));
    return out;
  }
};

std::vector<Case> read_cases(const std::string& group, double bound) {
  std::ifstream file(kFolder + group + "/cases.txt");
  std::vector<Case> cases;
  std::string folder;
  std::string problem;
  while (file >> folder >> problem) cases.push_back({group + "/" + folder, problem, bound});
  return cases;
}

void check(const char* what, const std::vector<float>& actual, const NpyArray& expected,
           double bound) {
  const auto report = test::compare_with_bound(actual, expected.data, bound, bound);
  INFO(what << ": largest error " << report.max_error << " " << report.failure);
  CHECK(report.failure.empty());
}

/// Reads a state of all layers and compares it.
void check_state(const Session& session, const Case& one, const char* state, const char* file) {
  const NpyArray expected = one.read(file);
  std::vector<float> actual(expected.data.size());
  session.get_state(state, actual).value();
  check(file, actual, expected, one.bound);
}

void run_case(const Case& one, Isa isa) {
  INFO(one.folder << " " << one.problem << " " << to_string(isa));
  const ModelSpec spec = ModelSpec::parse(one.problem).value();
  const Weights weights =
      Weights::from_safetensors(kFolder + one.folder + "/weights.safetensors").value();
  CompileOptions options;
  options.isa = isa;
  const Model model = Model::compile(spec, weights, options).value();
  const NpyArray x = one.read("x");
  Session session = model.session(Layout::time_major, x.shape[0]).value();
  session.set_state("h", to_float(one.read("h0"))).value();
  const bool lstm = one.has("c0");
  if (lstm) session.set_state("c", to_float(one.read("c0"))).value();
  const NpyArray expected = one.read("y");
  std::vector<float> y(expected.data.size());
  session.run(to_float(x), y, {}, one.lengths()).value();
  check("y", y, expected, one.bound);
  check_state(session, one, "h", "hn");
  if (lstm) check_state(session, one, "c", "cn");
}

/// The oracle on a case.
void check_oracle(const Case& one) {
  INFO(one.folder << " " << one.problem);
  const ModelSpec spec = ModelSpec::parse(one.problem).value();
  const Weights weights =
      Weights::from_safetensors(kFolder + one.folder + "/weights.safetensors").value();
  const NpyArray x = one.read("x");
  oracle::Input input;
  input.steps = x.shape[0];
  input.x = x.data;
  input.initial["h"] = one.read("h0").data;
  if (one.has("c0")) input.initial["c"] = one.read("c0").data;
  input.lengths = one.lengths();
  const oracle::Output out = oracle::evaluate(spec, weights, input);
  const auto narrowed = [](const std::vector<double>& v) {
    return std::vector<float>(v.begin(), v.end());
  };
  check("y", narrowed(out.y), one.read("y"), one.bound);
  check("hn", narrowed(out.final.at("h")), one.read("hn"), one.bound);
  if (one.has("cn")) check("cn", narrowed(out.final.at("c")), one.read("cn"), one.bound);
}

TEST_CASE("the oracle agrees with the golden vectors") {
  const auto pytorch = read_cases("pytorch", kPytorchBound);
  const auto onnx = read_cases("onnx", kOnnxBound);
  REQUIRE(pytorch.size() == 10);
  REQUIRE(onnx.size() == 11);
  for (const Case& one : pytorch) check_oracle(one);
  for (const Case& one : onnx) check_oracle(one);
}

TEST_CASE("models agree with PyTorch's float64") {
  const auto cases = read_cases("pytorch", kPytorchBound);
  REQUIRE(cases.size() == 10);
  for (const Case& one : cases) {
    for (const Isa isa : isas()) run_case(one, isa);
  }
}

TEST_CASE("models agree with onnxruntime") {
  const auto cases = read_cases("onnx", kOnnxBound);
  REQUIRE(cases.size() == 11);
  for (const Case& one : cases) {
    for (const Isa isa : isas()) run_case(one, isa);
  }
}

/// The larger problems of float32_error.txt: weights and x follow from these seeds.
constexpr std::uint64_t kErrorSeed = 20180711;

struct ErrorProblem {
  ModelSpec spec;
  Weights weights;
  std::vector<float> x;
};

ErrorProblem error_problem(const std::string& problem) {
  ErrorProblem out{ModelSpec::parse(problem).value(), {}, {}};
  out.weights = Weights::random(out.spec, kErrorSeed).value();
  test::Random random(kErrorSeed);
  out.x = test::random_floats(random, static_cast<std::size_t>(out.spec.steps * out.spec.input));
  return out;
}

struct Figures {
  double largest = 0.0;
  double mean_square = 0.0;
};

Figures error_of(const std::vector<float>& y, const std::vector<double>& exact) {
  Figures out;
  double squares = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double error = std::abs(static_cast<double>(y[i]) - exact[i]);
    out.largest = std::max(out.largest, error);
    squares += error * error;
  }
  out.mean_square = std::sqrt(squares / static_cast<double>(y.size()));
  return out;
}

void check_error(const std::string& problem, const Figures& pytorch) {
  const ErrorProblem p = error_problem(problem);
  oracle::Input input;
  input.steps = p.spec.steps;
  input.x.assign(p.x.begin(), p.x.end());
  const oracle::Output exact = oracle::evaluate(p.spec, p.weights, input);
  for (const Isa isa : isas()) {
    CompileOptions options;
    options.isa = isa;
    const Model model = Model::compile(p.spec, p.weights, options).value();
    Session session = model.session().value();
    std::vector<float> y(exact.y.size());
    session.run(p.x, y).value();
    const Figures ours = error_of(y, exact.y);
    INFO(problem << " " << to_string(isa) << ": largest error " << ours.largest << ", PyTorch "
                 << pytorch.largest << "; root mean square " << ours.mean_square << ", PyTorch "
                 << pytorch.mean_square);
    CHECK(ours.largest <= 2.0 * pytorch.largest);
    CHECK(ours.mean_square <= 2.0 * pytorch.mean_square);
  }
}

TEST_CASE("the error against float64 at T=100, H=256 is at most twice that of PyTorch's float32") {
  std::ifstream file(kFolder + "pytorch/float32_error.txt");
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string problem;
    Figures pytorch;
    words >> problem >> pytorch.largest >> pytorch.mean_square;
    check_error(problem, pytorch);
    ++count;
  }
  CHECK(count == 3);
}

/// Not a check: writes the weights and x of DEEPCPU_PROBLEM to the file DEEPCPU_EXPORT, for
/// make_golden.py.
TEST_CASE("export a problem for make_golden.py", "[.export]") {
  const char* path = std::getenv("DEEPCPU_EXPORT");
  const char* problem = std::getenv("DEEPCPU_PROBLEM");
  REQUIRE(path != nullptr);
  REQUIRE(problem != nullptr);
  ErrorProblem p = error_problem(problem);
  p.weights.add("x", {p.spec.steps, p.spec.input}, p.x).value();
  p.weights.to_safetensors(path).value();
}

}  // namespace
