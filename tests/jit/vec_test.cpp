// SPDX-License-Identifier: Apache-2.0
#include "jit/vec.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "jit/code_memory.hpp"
#include "tests/catch.hpp"
#include "tests/jit/element_kernel.hpp"
#include "tests/support/guarded_buffer.hpp"

namespace deepcpu::jit::testing {
namespace {

using test::Against;
using test::GuardedBuffer;

/// Emits body(v), then the pool, and calls it with rdi = in, rsi = out.
template <class Vmm, class Body>
void run(const void* in, void* out, Body body) {
  Xbyak::CodeGenerator code(4096);
  ConstantPool pool(VecCode<Vmm>::kIsa);
  VecCode<Vmm> v(code, pool);
  body(v);
  code.vzeroupper();
  code.ret();
  pool.place(code);
  code.ready();
  const auto* first = reinterpret_cast<const std::byte*>(code.getCode());
  const auto memory = CodeMemory::make({first, code.getSize()}).value();
  using Function = void (*)(const void*, void*);
  reinterpret_cast<Function>(reinterpret_cast<std::uintptr_t>(memory.data()))(in, out);
}

/// Calls check.operator()<Vmm>() for every instruction set of this CPU.
template <class Check>
void on_each_isa(Check check) {
  for (const Isa isa : runnable_isas()) {
    INFO("isa " << static_cast<int>(isa));
    if (isa == Isa::avx2) check.template operator()<Xbyak::Ymm>();
    if (isa == Isa::avx512) check.template operator()<Xbyak::Zmm>();
  }
}

template <class Vmm>
void check_tail(int lanes) {
  using namespace Xbyak::util;
  const auto count = static_cast<std::size_t>(lanes);
  for (const Against against : {Against::start, Against::end}) {
    const GuardedBuffer in(4 * count, against);
    const GuardedBuffer out(4 * count, against);
    std::iota(in.floats().begin(), in.floats().end(), 1.0F);
    std::vector<float> whole(VecCode<Vmm>::kLanes, -1.0F);
    run<Vmm>(in.data(), out.data(), [&](VecCode<Vmm>& v) {
      v.set_tail_mask(k1, lanes, eax);
      v.load_tail(Vmm(3), ptr[rdi], lanes, k1);
      v.store_tail(ptr[rsi], Vmm(3), lanes, k1, Vmm(4));
      v.code().mov(rax, reinterpret_cast<std::uintptr_t>(whole.data()));
      v.store(ptr[rax], Vmm(3));
    });
    for (std::size_t i = 0; i < whole.size(); ++i) {
      REQUIRE(whole[i] == (i < count ? static_cast<float>(i + 1) : 0.0F));
      if (i < count) REQUIRE(out.floats()[i] == static_cast<float>(i + 1));
    }
    REQUIRE(out.intact());
  }
}

/// Registers below and from 16 on; the destination is none of the others, the low or the high one,
/// and both of these are one.
template <class Vmm>
void check_align(int lane) {
  using namespace Xbyak::util;
  constexpr int kLast = VecCode<Vmm>::kRegisters - 1;
  constexpr int kLanes = VecCode<Vmm>::kLanes;
  std::vector<float> in(2 * kLanes);
  std::iota(in.begin(), in.end(), 1.0F);
  struct Registers {
    int to, low, high;
  };
  for (const auto& [to, low, high] : {Registers{1, 2, 3},
                                      {2, 2, 3},
                                      {3, 2, 3},
                                      {kLast, 4, kLast},
                                      {0, kLast, kLast},
                                      {5, 5, 5}}) {
    std::vector<float> out(kLanes, -1.0F);
    run<Vmm>(in.data(), out.data(), [&, low = low, high = high, to = to](VecCode<Vmm>& code) {
      code.load(Vmm(low), ptr[rdi]);
      if (high != low) code.load(Vmm(high), ptr[rdi + VecCode<Vmm>::kBytes]);
      code.align(Vmm(to), Vmm(low), Vmm(high), lane);
      code.store(ptr[rsi], Vmm(to));
    });
    for (int i = 0; i < kLanes; ++i) {
      const int from = high == low ? (lane + i) % kLanes : lane + i;
      REQUIRE(out[static_cast<std::size_t>(i)] == in[static_cast<std::size_t>(from)]);
    }
  }
}

}  // namespace

TEST_CASE("a vector is cut out of two") {
  on_each_isa([]<class Vmm>() {
    const int step = VecCode<Vmm>::kLanes == 16 ? 1 : 4;
    for (int lane = 0; lane < VecCode<Vmm>::kLanes; lane += step) check_align<Vmm>(lane);
  });
}

TEST_CASE("one of four numbers reaches every lane, and no fifth is read") {
  using namespace Xbyak::util;
  if (host_isa() < Isa::avx2) return;
  constexpr std::size_t kLanes = VecCode<Xbyak::Ymm>::kLanes;
  for (const Against against : {Against::start, Against::end}) {
    const GuardedBuffer in(4 * sizeof(float), against);
    std::iota(in.floats().begin(), in.floats().end(), 1.0F);
    std::vector<float> out(4 * kLanes, -1.0F);
    run<Xbyak::Ymm>(in.data(), out.data(), [](VecCode<Xbyak::Ymm>& v) {
      v.load_four(ymm14, ptr[rdi]);
      for (int i = 0; i < 4; ++i) {
        v.pick(ymm15, ymm14, i);
        v.store(ptr[rsi], ymm15);
        v.code().add(rsi, VecCode<Xbyak::Ymm>::kBytes);
      }
    });
    for (std::size_t i = 0; i < out.size(); ++i) {
      REQUIRE(out[i] == static_cast<float>(i / kLanes + 1));
    }
  }
}

TEST_CASE("tails touch their own lanes only") {
  on_each_isa([]<class Vmm>() {
    for (int lanes = 1; lanes < VecCode<Vmm>::kLanes; ++lanes) check_tail<Vmm>(lanes);
  });
}

TEST_CASE("constants reach every lane, in float and integer instructions") {
  using namespace Xbyak::util;
  on_each_isa([]<class Vmm>() {
    constexpr std::size_t kLanes = VecCode<Vmm>::kLanes;
    std::vector<std::uint32_t> out(4 * kLanes);
    run<Vmm>(nullptr, out.data(), [&](VecCode<Vmm>& v) {
      const Vmm a(VecCode<Vmm>::kRegisters - 1);
      v.load_constant(a, 1.5F);
      v.store(ptr[rsi], a);
      v.code().vpaddd(a, a, v.u32(7));
      v.store(ptr[rsi + VecCode<Vmm>::kBytes], a);
      v.load_constant(a, 1.5F);
      v.code().vmulps(a, a, v.f32(2.0F));
      v.store(ptr[rsi + 2 * VecCode<Vmm>::kBytes], a);
      v.load_constant(a, 0.0F);
      v.store(ptr[rsi + 3 * VecCode<Vmm>::kBytes], a);
    });
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(1.5F);
    const std::uint32_t want[] = {bits, bits + 7, std::bit_cast<std::uint32_t>(3.0F), 0};
    for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == want[i / kLanes]);
  });
}

TEST_CASE("the pool stores a constant once") {
  const auto size = [](std::vector<float> constants) {
    Xbyak::CodeGenerator code(4096);
    ConstantPool pool(Isa::avx2);
    VecCode<Xbyak::Ymm> v(code, pool);
    for (const float c : constants) code.vaddps(Xbyak::Ymm(0), Xbyak::Ymm(0), v.f32(c));
    pool.place(code);
    return code.getSize();
  };
  CHECK(size({1.0F}) == 64 + 32);
  CHECK(size({1.0F, 1.0F, 1.0F}) == 64 + 32);
  CHECK(size({1.0F, 2.0F, 1.0F}) == 64 + 64);
  CHECK(size({0.0F, -0.0F}) == 64 + 64);
}

TEST_CASE("round goes to the nearest integer, ties to even; shift_left is an integer shift") {
  using namespace Xbyak::util;
  on_each_isa([]<class Vmm>() {
    constexpr std::size_t kLanes = VecCode<Vmm>::kLanes;
    std::vector<float> in(kLanes);
    for (std::size_t i = 0; i < kLanes; ++i) in[i] = 0.25F * static_cast<float>(i) - 1.0F;
    std::vector<float> out(kLanes);
    std::vector<std::uint32_t> shifted(kLanes);
    run<Vmm>(in.data(), out.data(), [&](VecCode<Vmm>& v) {
      v.load(Vmm(1), ptr[rdi]);
      v.round(Vmm(2), Vmm(1));
      v.store(ptr[rsi], Vmm(2));
    });
    run<Vmm>(in.data(), shifted.data(), [&](VecCode<Vmm>& v) {
      v.load(Vmm(1), ptr[rdi]);
      v.shift_left(Vmm(1), Vmm(1), 3);
      v.store(ptr[rsi], Vmm(1));
    });
    for (std::size_t i = 0; i < kLanes; ++i) {
      REQUIRE(out[i] == std::nearbyint(in[i]));
      REQUIRE(shifted[i] == std::bit_cast<std::uint32_t>(in[i]) << 3U);
    }
  });
}

TEST_CASE("select follows each comparison, with the result in any operand's register") {
  using namespace Xbyak::util;
  const float nan = std::nanf("");
  const float left[] = {1.0F, 2.0F, 3.0F, nan};
  struct Case {
    Compare compare;
    bool taken[4];  ///< for left against 2
  };
  const Case cases[] = {{Compare::less, {true, false, false, false}},
                        {Compare::less_equal, {true, true, false, false}},
                        {Compare::greater_equal, {false, true, true, false}},
                        {Compare::greater, {false, false, true, false}},
                        {Compare::unordered, {false, false, false, true}}};
  on_each_isa([&]<class Vmm>() {
    constexpr std::size_t kLanes = VecCode<Vmm>::kLanes;
    std::vector<float> in(kLanes);
    for (std::size_t i = 0; i < kLanes; ++i) in[i] = left[i % 4];
    for (const Case& c : cases) {
      for (int dst = 1; dst <= 4; ++dst) {  // 1 = a, 2 = yes, 3 = no, 4 = none of them
        std::vector<float> out(kLanes);
        run<Vmm>(in.data(), out.data(), [&](VecCode<Vmm>& v) {
          v.load(Vmm(1), ptr[rdi]);
          v.load_constant(Vmm(2), 10.0F);
          v.load_constant(Vmm(3), 20.0F);
          v.select(Vmm(dst), c.compare, Vmm(1), v.f32(2.0F), Vmm(2), Vmm(3), Vmm(5));
          v.store(ptr[rsi], Vmm(dst));
        });
        for (std::size_t i = 0; i < kLanes; ++i) {
          REQUIRE(out[i] == (c.taken[i % 4] ? 10.0F : 20.0F));
        }
      }
    }
  });
}

}  // namespace deepcpu::jit::testing
