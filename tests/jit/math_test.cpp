// SPDX-License-Identifier: Apache-2.0
#include "jit/math.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/jit/element_kernel.hpp"

namespace deepcpu::jit::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

double sigmoid_f64(double x) { return 1.0 / (1.0 + std::exp(-x)); }

struct Function {
  const char* name;
  Op op;
  double (*exact)(double);
  double bound;  ///< ulp
};

const Function kFunctions[] = {
    {"exp", Op::exp, [](double x) { return std::exp(x); }, 1.5},
    {"sigmoid", Op::sigmoid, sigmoid_f64, 3.0},
    {"tanh", Op::tanh, [](double x) { return std::tanh(x); }, 3.0},
};

/// Numbers of a kind that matters to some operation, with both signs and their neighbours.
std::vector<float> edges() {
  std::vector<float> all;
  for (const float x : {0.0F,      0x1p-149F,
                        0x1p-127F, 0x1p-126F,
                        0x1p-25F,  0x1p-24F,
                        0x1p-23F,  0.1F,
                        0.173287F, 0.346574F,
                        0.5F,      0.693147F,
                        1.0F,      2.0F,
                        2.5F,      3.0F,
                        9.0F,      9.02F,
                        17.33F,    87.0F,
                        87.33654F, 87.5F,
                        88.0F,     88.37626F,
                        88.72283F, 89.0F,
                        104.0F,    0x1p22F,
                        0x1p23F,   0x1p24F,
                        0x1p31F,   0x1p64F,
                        0x1p100F,  std::numeric_limits<float>::max(),
                        kInfinity}) {
    for (const float near : {std::nextafter(x, 0.0F), x, std::nextafter(x, kInfinity)}) {
      all.push_back(near);
      all.push_back(-near);
    }
  }
  for (const std::uint32_t nan : {0x7FC00000U, 0xFFC00000U, 0x7F800001U, 0xFFBFFFFFU}) {
    all.push_back(std::bit_cast<float>(nan));
  }
  return all;
}

void pad(std::vector<float>& values) {
  while (values.size() % 16 != 0) values.push_back(0.0F);
}

/// 2^20 bit patterns spread over all 2^32, 2^18 numbers between -100 and 100, and the edges.
std::vector<float> samples() {
  std::vector<float> all = edges();
  for (std::uint32_t i = 0; i < (1U << 20U); ++i) {
    all.push_back(std::bit_cast<float>((i << 12U) + (i * 2654435761U >> 20U)));
  }
  for (std::uint32_t i = 0; i < (1U << 18U); ++i) {
    all.push_back(static_cast<float>(i) * (200.0F / static_cast<float>(1U << 18U)) - 100.0F);
  }
  pad(all);
  return all;
}

struct Worst {
  double error = 0.0;
  float at = 0.0F;
  void see(double e, float x) {
    if (e > error) *this = {e, x};
  }
};

/// Inputs for one operation: b is a shuffled a, and at the front every edge meets every edge.
struct Inputs {
  std::vector<float> a, b;
};

Inputs binary_inputs() {
  Inputs in;
  const std::vector<float> some = edges();
  for (const float x : some) {
    for (const float y : some) {
      in.a.push_back(x);
      in.b.push_back(y);
    }
  }
  const std::vector<float> all = samples();
  for (std::size_t i = 0; i < all.size(); ++i) {
    in.a.push_back(all[i]);
    in.b.push_back(all[(i * 48271U + 11U) % all.size()]);
  }
  pad(in.a);
  pad(in.b);
  return in;
}

/// Index of the first element on which code and interpreter differ, or -1.
std::ptrdiff_t first_difference(Isa isa, const ElementOp& info, float p, float q, Target target,
                                const Inputs& in) {
  std::vector<float> out(in.a.size());
  const ElementKernel kernel(isa, info.op, p, q, target);
  const FlushDenormals flush;
  kernel(in.a, in.b, out);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!same(out[i], eval(info.op, in.a[i], in.b[i], p, q))) return static_cast<std::ptrdiff_t>(i);
  }
  return -1;
}

void note_missing_isas() {
  const auto isas = runnable_isas();
  if (isas.size() < 2) WARN("this CPU runs " << isas.size() << " of the 2 instruction sets");
}

/// Compares one function over the bit patterns first .. first + count - 1 (a multiple of 16).
struct Sweep {
  const Function& function;
  std::vector<ElementKernel> kernels;
  Worst worst;
  std::uint64_t differing = 0;
  std::vector<float> x, want, got;

  explicit Sweep(const Function& f) : function(f) {
    for (const Isa isa : runnable_isas()) kernels.emplace_back(isa, f.op, 0.0F, 0.0F, Target::own);
  }

  void run(std::uint32_t first, std::uint32_t count) {
    x.resize(count);
    want.resize(count);
    got.resize(count);
    for (std::uint32_t i = 0; i < count; ++i) x[i] = std::bit_cast<float>(first + i);
    for (std::uint32_t i = 0; i < count; ++i) {
      want[i] = eval(function.op, x[i], 0.0F, 0.0F, 0.0F);
      worst.see(ulp_error(want[i], function.exact(static_cast<double>(x[i]))), x[i]);
    }
    for (const ElementKernel& kernel : kernels) {
      kernel(x, x, got);
      for (std::uint32_t i = 0; i < count; ++i) differing += same(got[i], want[i]) ? 0U : 1U;
    }
  }
};

}  // namespace

TEST_CASE("emitted element-wise operations equal the interpreter bit for bit") {
  note_missing_isas();
  const Inputs in = binary_inputs();
  for (const Isa isa : runnable_isas()) {
    for (const ElementOp& info : element_ops()) {
      for (const Target target : {Target::own, Target::a, Target::b}) {
        for (const auto& [p, q] : {std::pair{0.2F, 0.5F}, std::pair{-1.5F, 2.0F}}) {
          if (info.numbers == 0 && p < 0.0F) continue;
          const std::ptrdiff_t i = first_difference(isa, info, p, q, target, in);
          const auto at = static_cast<std::size_t>(std::max<std::ptrdiff_t>(i, 0));
          INFO(info.name << " isa " << static_cast<int>(isa) << " target "
                         << static_cast<int>(target) << " p " << p << " q " << q << " a "
                         << in.a[at] << " b " << in.b[at]);
          CHECK(i == -1);
        }
      }
    }
  }
}

TEST_CASE("exp, sigmoid and tanh keep their bounds on a sample") {
  const std::vector<float> inputs = samples();
  for (const Function& f : kFunctions) {
    Worst worst;
    const FlushDenormals flush;
    for (const float x : inputs) {
      worst.see(ulp_error(eval(f.op, x, 0.0F, 0.0F, 0.0F), f.exact(static_cast<double>(x))), x);
    }
    INFO(f.name << ": " << worst.error << " ulp at " << worst.at);
    CHECK(worst.error <= f.bound);
    CHECK(worst.error > 0.0);
  }
}

TEST_CASE("tanh keeps relative accuracy near zero, and the sign of zero") {
  const FlushDenormals flush;
  for (float x = 0x1p-126F; x < 0x1p-13F; x *= 1.37F) {
    INFO(x);
    // The next term, x^3 / 3, is below a quarter of an ulp.
    REQUIRE(ulp_error(tanh_f32(x), x) <= 1.0);
    REQUIRE(tanh_f32(-x) < 0.0F);
  }
  CHECK(same(tanh_f32(-0.0F), -0.0F));
  CHECK(same(tanh_f32(0.0F), 0.0F));
}

TEST_CASE("limits of exp, sigmoid and tanh") {
  const FlushDenormals flush;
  CHECK(exp_f32(-kInfinity) == 0.0F);
  CHECK(exp_f32(kInfinity) == kInfinity);
  CHECK(exp_f32(0.0F) == 1.0F);
  CHECK(std::isfinite(exp_f32(0x1.62e42ep6F)));  // e^x = 3.40280e38
  CHECK(exp_f32(0x1.62e430p6F) == kInfinity);    // the next float: past the largest one
  CHECK(exp_f32(-0x1.5d589ep6F) >= 0x1p-126F);   // the last result that is not below 2^-126
  CHECK(exp_f32(-0x1.5d58a0p6F) == 0.0F);
  CHECK(sigmoid_f32(-kInfinity) == 0.0F);
  CHECK(sigmoid_f32(kInfinity) == 1.0F);
  CHECK(sigmoid_f32(0.0F) == 0.5F);
  CHECK(sigmoid_f32(-87.0F) > 0.0F);
  CHECK(tanh_f32(-kInfinity) == -1.0F);
  CHECK(tanh_f32(kInfinity) == 1.0F);
}

TEST_CASE("sigmoid and tanh never leave their range") {
  const FlushDenormals flush;
  for (const float x : samples()) {
    if (std::isnan(x)) continue;
    REQUIRE((sigmoid_f32(x) >= 0.0F && sigmoid_f32(x) <= 1.0F));
    REQUIRE(std::fabs(tanh_f32(x)) <= 1.0F);
  }
}

TEST_CASE("every operation passes NaN on, from either operand") {
  const FlushDenormals flush;
  for (const ElementOp& info : element_ops()) {
    INFO(info.name);
    for (const std::uint32_t bits : {0x7FC00000U, 0xFFC00000U, 0x7F800001U}) {
      const auto nan = std::bit_cast<float>(bits);
      CHECK(std::isnan(eval(info.op, nan, 1.0F, 0.2F, 0.5F)));
      if (info.arity == 2) CHECK(std::isnan(eval(info.op, 1.0F, nan, 0.2F, 0.5F)));
    }
  }
}

TEST_CASE("operations give what float64 gives") {
  struct Case {
    Op op;
    double (*exact)(double a, double b);
  };
  // p = 0.25, q = 0.5: powers of two, so that hard_sigmoid is exact but for its rounding.
  const Case cases[] = {
      {Op::add, [](double a, double b) { return a + b; }},
      {Op::sub, [](double a, double b) { return a - b; }},
      {Op::mul, [](double a, double b) { return a * b; }},
      {Op::neg, [](double a, double) { return -a; }},
      {Op::min, [](double a, double b) { return a < b ? a : b; }},
      {Op::max, [](double a, double b) { return a > b ? a : b; }},
      {Op::one_minus, [](double a, double) { return 1.0 - a; }},
      {Op::relu, [](double a, double) { return a > 0.0 ? a : 0.0; }},
      {Op::leaky_relu, [](double a, double) { return a > 0.0 ? a : 0.25 * a; }},
      {Op::hard_sigmoid, [](double a, double) { return std::clamp(0.25 * a + 0.5, 0.0, 1.0); }},
      {Op::softsign, [](double a, double) { return a / (1.0 + std::fabs(a)); }},
      {Op::clip, [](double a, double) { return std::clamp(a, 0.25, 0.5); }},
  };
  const Inputs in = binary_inputs();
  for (const Case& c : cases) {
    // Softsign rounds twice; the others once at most.
    const double bound = c.op == Op::softsign ? 1.5 : 0.5;
    Worst worst;
    const FlushDenormals flush;
    for (std::size_t i = 0; i < in.a.size(); ++i) {
      const float a = in.a[i];
      const float b = in.b[i];
      if (std::isnan(a) || std::isnan(b)) continue;
      // What denormals count as is fixed by the comparison with the emitted code.
      if (std::fpclassify(a) == FP_SUBNORMAL || std::fpclassify(b) == FP_SUBNORMAL) continue;
      worst.see(ulp_error(eval(c.op, a, b, 0.25F, 0.5F), c.exact(a, b)), a);
    }
    INFO(find_element_op(c.op)->name << ": " << worst.error << " ulp at " << worst.at);
    CHECK(worst.error <= bound);
  }
}

TEST_CASE("the table of operations has a row for each and no other") {
  CHECK(element_ops().size() == 15);
  for (const ElementOp& info : element_ops()) CHECK(find_element_op(info.op)->op == info.op);
  for (const Op op : {Op::input, Op::state, Op::parameter, Op::constant, Op::matmul}) {
    CHECK(find_element_op(op) == nullptr);
  }
}

TEST_CASE("the same operation is emitted as the same bytes") {
  for (const ElementOp& info : element_ops()) {
    INFO(info.name);
    CHECK(emit_element_kernel<Xbyak::Ymm>(info.op, 0.2F, 0.5F, Target::own) ==
          emit_element_kernel<Xbyak::Ymm>(info.op, 0.2F, 0.5F, Target::own));
    CHECK(emit_element_kernel<Xbyak::Zmm>(info.op, 0.2F, 0.5F, Target::own) ==
          emit_element_kernel<Xbyak::Zmm>(info.op, 0.2F, 0.5F, Target::own));
  }
}

TEST_CASE("exp, sigmoid and tanh over all 2^32 inputs", "[.slow]") {
  note_missing_isas();
  for (const Function& f : kFunctions) {
    Sweep sweep(f);
    {
      const FlushDenormals flush;
      constexpr std::uint32_t kBlock = 1U << 16U;
      for (std::uint64_t first = 0; first < (1ULL << 32U); first += kBlock) {
        sweep.run(static_cast<std::uint32_t>(first), kBlock);
      }
    }
    std::printf("%s: at most %.4f ulp, at %.9g\n", f.name, sweep.worst.error,
                static_cast<double>(sweep.worst.at));
    CHECK(sweep.worst.error <= f.bound);
    CHECK(sweep.differing == 0);
  }
}

}  // namespace deepcpu::jit::testing
