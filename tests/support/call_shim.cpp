// SPDX-License-Identifier: Apache-2.0
#include "tests/support/call_shim.hpp"

#include <cstddef>

namespace deepcpu::test {
namespace {

/// What the assembly below saw after the call. Offsets are used there; see the static_asserts.
struct CallRecord {
  std::uint64_t saved[6] = {};        ///< 0: rbx rbp r12 r13 r14 r15 after the call
  std::uint64_t stack_before = 0;     ///< 48
  std::uint64_t stack_after = 0;      ///< 56
  std::uint64_t flags_after = 0;      ///< 64
  std::uint64_t canary[2] = {};       ///< 72: the caller's frame next to the return address
  std::uint32_t mxcsr_set = 0;        ///< 88: loaded before the call
  std::uint32_t mxcsr_after = 0;      ///< 92
  std::uint32_t mxcsr_saved = 0;      ///< 96: restored at the end
  std::uint16_t x87_before = 0;       ///< 100
  std::uint16_t x87_after = 0;        ///< 102
  std::uint32_t level = 0;            ///< 104: 0 SSE, 1 AVX, 2 AVX-512
  std::uint32_t padding = 0;          ///< 108
  unsigned char uppers[16][16] = {};  ///< 112: upper halves of ymm0-15 after the call
};
static_assert(offsetof(CallRecord, canary) == 72 && offsetof(CallRecord, mxcsr_set) == 88);
static_assert(offsetof(CallRecord, x87_before) == 100 && offsetof(CallRecord, level) == 104);
static_assert(offsetof(CallRecord, uppers) == 112);

constexpr std::uint64_t kSentinel = 0x5e17e15e00000000U;  // + 0..5, as in the assembly
constexpr std::uint64_t kCanary = 0x0ddc0ffee0ddf00dU;

}  // namespace
}  // namespace deepcpu::test

// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
/// Where the assembly finds its record after the call, when no register can be trusted.
__thread void* deepcpu_shim_record;
void deepcpu_shim_call(deepcpu::test::KernelEntry entry, const deepcpu::jit::KernelArgs* args,
                       deepcpu::test::CallRecord* record);
}
// NOLINTEND(bugprone-reserved-identifier)

// rdi entry, rsi args, rdx record. The record's address goes to thread-local memory, because the
// kernel may have spoilt every register; from it rsp is restored too.
asm(R"(
.text
.p2align 4
.type deepcpu_shim_call, @function
.globl deepcpu_shim_call
deepcpu_shim_call:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  subq $24, %rsp
  movq deepcpu_shim_record@gottpoff(%rip), %rax
  movq %rdx, %fs:(%rax)
  stmxcsr 96(%rdx)
  fnstcw 100(%rdx)
  movabsq $0x0ddc0ffee0ddf00d, %rax
  movq %rax, (%rsp)
  movq %rax, 8(%rsp)
  movq %rsp, 48(%rdx)

  movl $0x7fa0dead, %eax
  movl 104(%rdx), %ecx
  cmpl $1, %ecx
  ja 2f
  je 1f
  movd %eax, %xmm0
  pshufd $0, %xmm0, %xmm0
.irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movdqa %xmm0, %xmm\n
.endr
  jmp 3f
1:
  vmovd %eax, %xmm0
  vpshufd $0, %xmm0, %xmm0
  vinsertf128 $1, %xmm0, %ymm0, %ymm0
.irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vmovaps %ymm0, %ymm\n
.endr
  jmp 3f
2:
  vpbroadcastd %eax, %zmm0
.irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  vmovaps %zmm0, %zmm\n
.endr
  movl $0xa5a5a5a5, %eax
.irp n, 1,2,3,4,5,6,7
  kmovw %eax, %k\n
.endr
3:
  ldmxcsr 88(%rdx)
  movq %rdi, %rax
  movq %rsi, %rdi
  movabsq $0x5e17e15e00000000, %rbx
  leaq 1(%rbx), %rbp
  leaq 2(%rbx), %r12
  leaq 3(%rbx), %r13
  leaq 4(%rbx), %r14
  leaq 5(%rbx), %r15
  leaq 6(%rbx), %rsi
  movq %rsi, %rdx
  movq %rsi, %rcx
  movq %rsi, %r8
  movq %rsi, %r9
  movq %rsi, %r10
  movq %rsi, %r11
  callq *%rax

  movq deepcpu_shim_record@gottpoff(%rip), %rax
  movq %fs:(%rax), %rax
  movq %rsp, 56(%rax)
  movq 48(%rax), %rsp
  pushfq
  popq 64(%rax)
  cld
  movq %rbx, 0(%rax)
  movq %rbp, 8(%rax)
  movq %r12, 16(%rax)
  movq %r13, 24(%rax)
  movq %r14, 32(%rax)
  movq %r15, 40(%rax)
  stmxcsr 92(%rax)
  fnstcw 102(%rax)
  ldmxcsr 96(%rax)
  fldcw 100(%rax)
  movq (%rsp), %rcx
  movq %rcx, 72(%rax)
  movq 8(%rsp), %rcx
  movq %rcx, 80(%rax)
  cmpl $0, 104(%rax)
  je 4f
.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vextractf128 $1, %ymm\n, 112+16*\n(%rax)
.endr
  vzeroupper
4:
  addq $24, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  retq
.size deepcpu_shim_call, .-deepcpu_shim_call
)");

namespace deepcpu::test {
namespace {

std::uint32_t vector_level() {
  if (__builtin_cpu_supports("avx512f")) return 2;
  return __builtin_cpu_supports("avx") ? 1 : 0;
}

void add(std::string& out, const std::string& what) {
  if (!out.empty()) out += ", ";
  out += what;
}

bool uppers_clean(const CallRecord& record) {
  for (const auto& half : record.uppers) {
    for (const unsigned char byte : half) {
      if (byte != 0) return false;
    }
  }
  return true;
}

void check_registers(const CallRecord& record, std::string& out) {
  static const char* const names[6] = {"rbx", "rbp", "r12", "r13", "r14", "r15"};
  for (std::size_t i = 0; i < 6; ++i) {
    if (record.saved[i] != kSentinel + i) add(out, std::string(names[i]) + " changed");
  }
  if (record.stack_after != record.stack_before) add(out, "rsp changed");
  if (record.canary[0] != kCanary || record.canary[1] != kCanary) {
    add(out, "the caller's stack frame was written");
  }
}

}  // namespace

std::string checked_call(KernelEntry entry, const jit::KernelArgs* args,
                         const CallOptions& options) {
  constexpr std::uint32_t kStatusFlags = 0x3f;  // sticky exception flags: free to change
  constexpr std::uint64_t kDirectionFlag = 1U << 10U;
  CallRecord record;
  record.mxcsr_set = options.mxcsr;
  record.level = vector_level();
  deepcpu_shim_call(entry, args, &record);
  std::string out;
  check_registers(record, out);
  if (((record.mxcsr_after ^ record.mxcsr_set) & ~kStatusFlags) != 0) add(out, "MXCSR changed");
  if (record.x87_after != record.x87_before) add(out, "x87 control word changed");
  if ((record.flags_after & kDirectionFlag) != 0) add(out, "direction flag set");
  if (options.check_uppers && record.level > 0 && !uppers_clean(record)) {
    add(out, "upper vector halves dirty");
  }
  return out;
}

}  // namespace deepcpu::test
