// SPDX-License-Identifier: Apache-2.0
/// Where no executable memory can be had, the interpreter serves and says so.
#include <algorithm>
#include <string>
#include <vector>

#include "jit/code_memory.hpp"
#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

/// While it lives, no executable memory can be had.
class NoCodeMemory {
 public:
  explicit NoCodeMemory(jit::CodeMemoryFault fault) { jit::inject_code_memory_fault(fault); }
  ~NoCodeMemory() { jit::inject_code_memory_fault(jit::CodeMemoryFault::none); }
  NoCodeMemory(const NoCodeMemory&) = delete;
  NoCodeMemory& operator=(const NoCodeMemory&) = delete;
};

bool says_interpreter_serves(const Model& model) {
  return std::any_of(model.notes().begin(), model.notes().end(), [](const std::string& note) {
    return note.find("the interpreter serves instead") != std::string::npos;
  });
}

TEST_CASE("without executable memory the interpreter serves, says so, and gives the same bits") {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > host_isa()) continue;
    for (const int threads : {1, 2}) {
      const Sample s = Sample::make("lstm:i5h20l2b3t9");
      clear_kernels();
      const std::vector<float> expected = run_once(compile_for(s, isa, threads), s);
      clear_kernels();
      const KernelCounters before = kernel_counters();
      {
        const NoCodeMemory none(jit::CodeMemoryFault::protect);
        const Model model = compile_for(s, isa, threads);
        CHECK(model.code_bytes() == 0);
        INFO((model.notes().empty() ? "no note" : model.notes().front()));
        CHECK(says_interpreter_serves(model));
        CHECK(bit_difference(run_once(model, s), expected).empty());
      }
      const KernelCounters after = kernel_counters();
      CHECK(after.failures > before.failures);
      CHECK(after.compiles == before.compiles);
      CHECK(after.size == 0);  // a failure is not kept

      const Model again = compile_for(s, isa, threads);
      CHECK(again.code_bytes() > 0);
      CHECK(again.notes().empty());
      CHECK(bit_difference(run_once(again, s), expected).empty());
    }
  }
}

TEST_CASE("a lack of memory for code, which may pass, is an error and keeps nothing") {
  if (host_isa() == Isa::interpreter) return;
  const Sample s = Sample::make("gru:i5h20b3t9");
  clear_kernels();
  {
    const NoCodeMemory none(jit::CodeMemoryFault::map);
    const auto model = Model::compile(s.spec, s.weights);
    REQUIRE(!model.ok());
    CHECK(model.error().kind() == ErrorKind::memory);
    CHECK(model.error().message().starts_with("executable memory: the system refused to map "));
    CHECK(kernel_counters().size == 0);
  }
  CHECK(Model::compile(s.spec, s.weights).value().code_bytes() > 0);
}

TEST_CASE("the default schedule survives a system that forbids executable memory") {
  const Sample s = Sample::make("gru:i5h20b3t9");
  const std::vector<float> expected = run_once(Model::compile(s.spec, s.weights).value(), s);
  clear_kernels();
  const NoCodeMemory none(jit::CodeMemoryFault::protect);
  const Model model = Model::compile(s.spec, s.weights).value();
  if (host_isa() != Isa::interpreter) CHECK(says_interpreter_serves(model));
  CHECK(bit_difference(run_once(model, s), expected).empty());
}

}  // namespace
