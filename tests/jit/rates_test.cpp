// SPDX-License-Identifier: Apache-2.0
/// The emitted rate loops: what they read, in which order, and what they add up.
#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/schedule.hpp"
#include "jit/inspect/listing.hpp"
#include "jit/rate_kernels.hpp"
#include "src/machine/machine.hpp"
#include "tests/catch.hpp"
#include "tests/support/guarded_buffer.hpp"

namespace deepcpu::jit {
namespace {

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa <= machine().isa) all.push_back(isa);
  }
  return all;
}

struct Sums {
  alignas(64) float lane[16];
};

/// Runs a loop with factors 1 and gives its sums.
Sums run(RateKind kind, Isa isa, RateArgs args) {
  const RateKernel kernel = RateKernel::make(kind, isa).value();
  Sums sums{};
  args.a = 1.0F;
  args.b = 1.0F;
  args.sums = sums.lane;
  kernel.run(args);
  return sums;
}

/// Blocks of which block i holds the number 16^i everywhere: how often each was read can be told
/// from a sum, in base 16 (a lane gets 32 vectors a block, so the sums are divided by 32).
test::GuardedBuffer numbered_blocks(Isa isa, std::size_t blocks, test::Against against) {
  const std::size_t bytes = rate_block_bytes(isa);
  test::GuardedBuffer buffer(blocks * bytes, against, 64);
  float number = 1.0F;
  for (std::size_t b = 0; b < blocks; ++b, number *= 16.0F) {
    for (std::size_t i = 0; i < bytes / sizeof(float); ++i) {
      buffer.floats()[b * bytes / sizeof(float) + i] = number;
    }
  }
  return buffer;
}

TEST_CASE("register FMAs: every lane gets passes x groups x blocks x 32 products") {
  for (const Isa isa : isas()) {
    INFO(to_string(isa));
    RateArgs args{};
    args.groups = 3;
    args.blocks = 2;
    args.passes = 5;
    const Sums sums = run(RateKind::fma_registers, isa, args);
    for (int i = 0; i < lanes(isa); ++i) CHECK(sums.lane[i] == 2.0F * 3.0F * 5.0F * 32.0F);
    if (isa == Isa::avx2) CHECK(sums.lane[8] == 0.0F);
  }
}

/// Reads four numbered blocks three times and checks that each was read three times.
void check_walk(Isa isa, std::size_t per_group, bool backward, bool alternate,
                test::Against against) {
  constexpr std::size_t kBlocks = 4;
  INFO(to_string(isa) << " blocks per group=" << per_group << " backward=" << backward
                      << " alternate=" << alternate);
  const auto buffer = numbered_blocks(isa, kBlocks, against);
  const std::size_t block = rate_block_bytes(isa);
  RateArgs args{};
  args.first = buffer.data() + (backward ? (kBlocks - per_group) * block : 0);
  args.stride = static_cast<std::int64_t>(per_group * block) * (backward ? -1 : 1);
  args.groups = kBlocks / per_group;
  args.blocks = per_group;
  args.passes = 3;
  args.alternate = alternate ? 1 : 0;
  const Sums sums = run(RateKind::fma_memory, isa, args);
  for (int i = 0; i < lanes(isa); ++i) CHECK(sums.lane[i] == 32.0F * 0x3333);
  CHECK(buffer.intact());
}

TEST_CASE("memory FMAs read every block once a pass, forward, backward and alternating") {
  for (const Isa isa : isas()) {
    for (const std::size_t per_group : {1U, 2U, 4U}) {
      for (const auto against : {test::Against::start, test::Against::end}) {
        check_walk(isa, per_group, false, false, against);
        check_walk(isa, per_group, false, true, against);
        check_walk(isa, per_group, true, false, against);
        check_walk(isa, per_group, true, true, against);
      }
    }
  }
}

TEST_CASE("mixed FMAs read every block once, and their further products the first lines") {
  for (const Isa isa : isas()) {
    const auto buffer = numbered_blocks(isa, 3, test::Against::end);
    RateArgs args{};
    args.first = buffer.data();
    args.stride = static_cast<std::int64_t>(rate_block_bytes(isa));
    args.groups = 3;
    args.blocks = 1;
    args.passes = 2;
    INFO(to_string(isa));
    const Sums sums = run(RateKind::fma_mixed, isa, args);
    // The first block holds ones: each further product adds 1, as many as there are vectors.
    for (int i = 0; i < lanes(isa); ++i) CHECK(sums.lane[i] == 2.0F * 32.0F * (0x111 + 3));
    CHECK(buffer.intact());
  }
}

TEST_CASE("strided FMAs read every fourth vector of a block four times as long") {
  for (const Isa isa : isas()) {
    const std::size_t bytes = rate_block_bytes(isa);
    test::GuardedBuffer buffer(8 * bytes, test::Against::end, 64);
    for (std::size_t i = 0; i < 8 * bytes / sizeof(float); ++i) {
      const std::size_t vector = i / static_cast<std::size_t>(lanes(isa));
      buffer.floats()[i] = vector % kStrideVectors == 0 ? (vector < 128 ? 1.0F : 64.0F) : -1e6F;
    }
    RateArgs args{};
    args.first = buffer.data();
    args.groups = 1;
    args.blocks = 2;
    args.passes = 3;
    INFO(to_string(isa));
    const Sums sums = run(RateKind::fma_strided, isa, args);
    for (int i = 0; i < lanes(isa); ++i) CHECK(sums.lane[i] == 3.0F * 32.0F * (1.0F + 64.0F));
    CHECK(buffer.intact());
  }
}

TEST_CASE("loads end with the block that the walk ends with") {
  constexpr std::size_t kBlocks = 4;
  for (const Isa isa : isas()) {
    const auto buffer = numbered_blocks(isa, kBlocks, test::Against::end);
    const auto accumulators = isa == Isa::avx512 ? 24.0F : 12.0F;
    RateArgs args{};
    args.first = buffer.data();
    args.stride = static_cast<std::int64_t>(rate_block_bytes(isa));
    args.groups = kBlocks;
    args.blocks = 1;
    args.passes = 2;
    INFO(to_string(isa));
    // The registers hold the last vectors: of the last block, or of the first when walked back.
    CHECK(run(RateKind::load, isa, args).lane[0] == accumulators * 4096.0F);
    args.alternate = 1;
    CHECK(run(RateKind::load, isa, args).lane[0] == accumulators);
  }
}

TEST_CASE("factors are used, and no work is no work") {
  for (const Isa isa : isas()) {
    const auto buffer = numbered_blocks(isa, 1, test::Against::end);
    Sums sums{};
    RateArgs args{};
    args.first = buffer.data();
    args.stride = static_cast<std::int64_t>(rate_block_bytes(isa));
    args.groups = 1;
    args.blocks = 1;
    args.passes = 1;
    args.a = 3.0F;
    args.b = 0.5F;
    args.sums = sums.lane;
    RateKernel::make(RateKind::fma_memory, isa).value().run(args);
    CHECK(sums.lane[0] == 96.0F);
    RateKernel::make(RateKind::fma_registers, isa).value().run(args);
    CHECK(sums.lane[0] == 48.0F);
    args.passes = 0;
    sums.lane[0] = 7.0F;
    RateKernel::make(RateKind::fma_registers, isa).value().run(args);
    CHECK(sums.lane[0] == 7.0F);
  }
}

TEST_CASE("rate loops: same input, same bytes, so many timed instructions per vector") {
  const std::pair<RateKind, std::string> expected[] = {{RateKind::fma_registers, "vfmadd231ps"},
                                                       {RateKind::fma_memory, "vfmadd231ps"},
                                                       {RateKind::load, "vmovaps"},
                                                       {RateKind::fma_mixed, "vfmadd231ps"},
                                                       {RateKind::fma_strided, "vfmadd231ps"},
                                                       {RateKind::add_chain, "add    r11,"}};
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    for (const auto& [kind, instruction] : expected) {
      const std::string text = inspect::listing(RateKernel::make(kind, isa).value().code());
      INFO(text);
      CHECK(text == inspect::listing(RateKernel::make(kind, isa).value().code()));
      std::size_t count = 0;
      for (std::size_t at = text.find(instruction); at != std::string::npos;
           at = text.find(instruction, at + 1)) {
        ++count;
      }
      CHECK(count == (kind == RateKind::fma_mixed ? 2 : 1) * kRateVectors);
    }
  }
}

TEST_CASE("rate loops that cannot be made are errors with a sentence") {
  CHECK(RateKernel::make(RateKind::load, Isa::interpreter).error().message() ==
        "isa=interpreter: rates need emitted code");
  inject_code_memory_fault(CodeMemoryFault::protect);
  const auto refused = RateKernel::make(RateKind::load, Isa::avx2);
  inject_code_memory_fault(CodeMemoryFault::none);
  REQUIRE(!refused.ok());
  CHECK(refused.error().message().find("executable memory") == 0);
}

}  // namespace
}  // namespace deepcpu::jit
