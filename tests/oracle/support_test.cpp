// SPDX-License-Identifier: Apache-2.0
/// Checks of the checkers: guard pages, the call shim, comparisons, random cells.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <string>

#include "deepcpu/model.hpp"
#include "tests/catch.hpp"
#include "tests/support/call_shim.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/guarded_buffer.hpp"
#include "tests/support/random_cells.hpp"

// Small functions that break one rule each. `retq $8` pops too much.
asm(R"(
.text
deepcpu_keeps: vzeroupper
  retq
deepcpu_spoils_rbx: movq $1, %rbx
  retq
deepcpu_spoils_r15: xorl %r15d, %r15d
  retq
deepcpu_sets_direction: std
  retq
deepcpu_sets_mxcsr: pushq $0x1f80
  ldmxcsr (%rsp)
  popq %rax
  retq
deepcpu_moves_stack: retq $8
deepcpu_writes_frame: movq $7, 8(%rsp)
  retq
deepcpu_leaves_uppers: retq
deepcpu_reads_vectors: movd %xmm5, %eax
  movl %eax, (%rdi)
  movd %xmm15, %eax
  movl %eax, 4(%rdi)
  retq
.globl deepcpu_keeps, deepcpu_spoils_rbx, deepcpu_spoils_r15, deepcpu_sets_direction
.globl deepcpu_sets_mxcsr, deepcpu_moves_stack, deepcpu_writes_frame, deepcpu_leaves_uppers
.globl deepcpu_reads_vectors
)");
extern "C" {
void deepcpu_keeps(const deepcpu::jit::KernelArgs*);
void deepcpu_spoils_rbx(const deepcpu::jit::KernelArgs*);
void deepcpu_spoils_r15(const deepcpu::jit::KernelArgs*);
void deepcpu_sets_direction(const deepcpu::jit::KernelArgs*);
void deepcpu_sets_mxcsr(const deepcpu::jit::KernelArgs*);
void deepcpu_moves_stack(const deepcpu::jit::KernelArgs*);
void deepcpu_writes_frame(const deepcpu::jit::KernelArgs*);
void deepcpu_leaves_uppers(const deepcpu::jit::KernelArgs*);
void deepcpu_reads_vectors(const deepcpu::jit::KernelArgs*);
}

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// True if `touch` dies of a memory fault. Runs in a child process.
template <class Touch>
bool faults(const Touch& touch) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS}) {
      ::signal(signal, [](int) { ::_exit(77); });
    }
    touch();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

void write_byte(volatile unsigned char* at) { *at = 1; }

TEST_CASE("a guarded buffer faults on the first byte past either end") {
  const GuardedBuffer end(100);
  unsigned char* last = end.data() + 99;
  CHECK_FALSE(faults([&] { write_byte(last); }));
  CHECK(faults([&] { write_byte(last + 1); }));
  const GuardedBuffer start(100, Against::start);
  CHECK_FALSE(faults([&] { write_byte(start.data()); }));
  CHECK(faults([&] { write_byte(start.data() - 1); }));
}

TEST_CASE("a guarded buffer is aligned as asked, sees stray writes and begins as NaN") {
  GuardedBuffer buffer(36, Against::end, 64, 4);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 4);
  for (const float v : buffer.floats()) CHECK(std::isnan(v));
  CHECK(buffer.floats().size() == 9);
  CHECK(buffer.intact());
  buffer.data()[-1] = 0;
  CHECK_FALSE(buffer.intact());
  const GuardedBuffer empty(0);
  CHECK(empty.intact());
  const GuardedBuffer constant(16);
  constant.make_read_only();
  CHECK(faults([&] { write_byte(constant.data()); }));
}

TEST_CASE("the call shim sees every broken rule") {
  jit::KernelArgs args{};
  CHECK(checked_call(deepcpu_keeps, &args).empty());
  CallOptions no_uppers;
  no_uppers.check_uppers = false;
  const auto broken = [&](KernelEntry entry) { return checked_call(entry, &args, no_uppers); };
  CHECK(broken(deepcpu_spoils_rbx) == "rbx changed");
  CHECK(broken(deepcpu_spoils_r15) == "r15 changed");
  CHECK(broken(deepcpu_sets_direction) == "direction flag set");
  CHECK(broken(deepcpu_sets_mxcsr) == "MXCSR changed");
  CHECK(broken(deepcpu_moves_stack) == "rsp changed");
  CHECK(broken(deepcpu_writes_frame) == "the caller's stack frame was written");
  CHECK(checked_call(deepcpu_leaves_uppers, &args) == "upper vector halves dirty");
}

TEST_CASE("vector registers hold NaN when the kernel starts") {
  std::uint32_t seen[2] = {};
  CallOptions options;
  options.check_uppers = false;
  CHECK(checked_call(deepcpu_reads_vectors, reinterpret_cast<const jit::KernelArgs*>(seen), options)
            .empty());
  CHECK(seen[0] == kSignallingNan);
  CHECK(seen[1] == kSignallingNan);
}

TEST_CASE("comparisons tell bits apart and respect bounds") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(bits_equal(1.0F, 1.0F));
  CHECK_FALSE(bits_equal(0.0F, -0.0F));
  CHECK(bits_equal(nan, -nan));
  CHECK_FALSE(bits_equal(nan, 1.0F));
  const std::vector<float> a = {1.0F, 2.0F, nan};
  const std::vector<float> b = {1.0F, 2.0000002F, nan};
  CHECK(bit_difference(a, a).empty());
  CHECK(bit_difference(a, b).starts_with("1 of 3 elements differ, the first at [1]"));
  const std::vector<double> exact = {1.0, 2.00001, std::nan("")};
  CHECK(compare_with_bound(a, exact, 2e-5, 0.0).failure.empty());
  CHECK_FALSE(compare_with_bound(a, exact, 5e-6, 0.0).failure.empty());
  const std::vector<double> number = {1.0, 2.0, 3.0};
  CHECK_FALSE(compare_with_bound(a, number, 1.0, 0.0).failure.empty());
  CHECK(ulp_error(1.0F, 1.0 + 0x1p-24) == 0.5);
  CHECK(ulp_error(1.0F, 1.0) == 0.0);
}

TEST_CASE("random cells are legal, always the same, and hold every operation") {
  std::vector<int> seen(static_cast<std::size_t>(Op::clip) + 1);
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const Cell cell = random_cell(seed);
    CHECK(cell.to_text() == random_cell(seed).to_text());
    for (const Node& node : cell.nodes()) ++seen[static_cast<std::size_t>(node.op)];
  }
  for (const int count : seen) CHECK(count > 0);
}

TEST_CASE("random problems parse, and print as what was parsed") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string problem = random_problem(seed);
    INFO(problem);
    const auto spec = parse_problem(problem);
    REQUIRE(spec.ok());
    const auto again = parse_problem(problem_of(*spec));
    REQUIRE(again.ok());
    CHECK(problem_of(*again) == problem_of(*spec));
  }
  CHECK_FALSE(parse_problem("random.x:i3h4").ok());
  CHECK_FALSE(parse_problem("random.5").ok());
}

}  // namespace
