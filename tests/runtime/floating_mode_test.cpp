// SPDX-License-Identifier: Apache-2.0
/// The floating-point mode of a run: results below 2^-126 are 0 on every thread that takes part,
/// whatever mode the caller has, and the caller's mode comes back.
#include <xmmintrin.h>

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/call_shim.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

constexpr unsigned kStatus = 0x3fU;  // flags of what has happened
constexpr unsigned kTowardsZero = 0x6000U;

/// The calling thread's mode while it lives.
class Mode {
 public:
  explicit Mode(unsigned mode) : saved_(_mm_getcsr()) { _mm_setcsr(mode); }
  ~Mode() { _mm_setcsr(saved_); }
  Mode(const Mode&) = delete;
  Mode& operator=(const Mode&) = delete;

 private:
  unsigned saved_;
};

struct Form {
  const char* problem;
  int threads;
  Parallel parallel;
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {{"rnn:i5h40t9,act=relu", 1, Parallel::none},
                                        {"rnn:i5h40t9,act=relu", 2, Parallel::none},
                                        {"rnn:i5h40b3t9,act=relu", 3, Parallel::none},
                                        {"rnn:i5h40t9,act=relu", 2, Parallel::hoist},
                                        {"rnn:i5h20bit9,act=relu", 2, Parallel::directions},
                                        {"rnn:i5h40l2t9,act=relu", 2, Parallel::wavefront}};
  return all;
}

std::string text_of(const Form& f, Isa isa) {
  return std::string(f.problem) + " on " + std::to_string(f.threads) + " threads, parallel " +
         std::to_string(static_cast<int>(f.parallel)) + ", " + std::string(to_string(isa));
}

/// A sample with biases of zero, and x so small that no product with a weight is a normal number.
struct Tiny {
  Sample sample;
  std::vector<float> zeros;

  explicit Tiny(const std::string& problem) : sample(Sample::make(problem)), zeros(64, 0.0F) {
    for (float& v : sample.x) v = std::copysign(std::ldexp(1.0F, -126), v);
    Weights weights;
    for (const auto& [name, tensor] : sample.weights.tensors()) {
      const bool bias = name.starts_with("bias");
      const auto data =
          bias ? std::span<const float>(zeros).first(tensor.data.size()) : tensor.data;
      REQUIRE(weights.add(name, tensor.shape, data).ok());
    }
    random = std::move(sample.weights);
    sample.weights = std::move(weights);
  }

  Weights random;  ///< owns what the sample's weights view
};

TEST_CASE("numbers below 2^-126 become 0 on every thread that takes part") {
  for (const Form& f : forms()) {
    const Tiny tiny(f.problem);
    const std::vector<float> zeros(tiny.sample.y_size(), 0.0F);
    for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
      if (isa > host_isa()) continue;
      INFO(text_of(f, isa));
      const Model model = compile_for(tiny.sample, isa, f.threads, f.parallel);
      const Mode mode(kDefaultMxcsr);
      const volatile float x = tiny.sample.x.front();
      REQUIRE(x * 0.1F != 0.0F);  // in the caller's mode
      CHECK(bit_difference(run_once(model, tiny.sample), zeros).empty());
    }
  }
}

TEST_CASE("the caller's floating-point mode changes no bit and comes back") {
  for (const Form& f : forms()) {
    const Sample s = Sample::make(f.problem);
    for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
      if (isa > host_isa()) continue;
      INFO(text_of(f, isa));
      const Model model = compile_for(s, isa, f.threads, f.parallel);
      const std::vector<float> expected = run_once(model, s);
      for (const unsigned csr : {kDefaultMxcsr, kDefaultMxcsr | kTowardsZero, kKernelMxcsr}) {
        std::vector<float> y;
        unsigned after = 0;
        {
          const Mode mode(csr);
          y = run_once(model, s);
          after = _mm_getcsr();
        }
        CHECK((after & ~kStatus) == csr);
        CHECK(bit_difference(y, expected).empty());
      }
    }
  }
}

}  // namespace
