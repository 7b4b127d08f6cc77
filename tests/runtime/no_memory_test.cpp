// SPDX-License-Identifier: Apache-2.0
/// When memory runs out, every public call that can fail gives an error, throws nothing, and leaves
/// its objects as they were. Each call is made again and again, and another allocation fails each
/// time, until none is left to fail.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/machine/machine_model.hpp"
#include "src/runtime/kernel_cache.hpp"
#include "src/tune/wisdom_store.hpp"
#include "tests/catch.hpp"
#include "tests/runtime/allocation_failure.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/sample.hpp"
#include "tests/support/wisdom_entries.hpp"
#include "tests/unit/io_support.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

enum class Failing : std::uint8_t { one, one_and_all_later };

/// Runs call(prepare()) with failing allocations. Each time it must give what it gives with enough
/// memory (it may do without some allocations), or an error of kind memory; `unchanged` looks at
/// the objects after an error. Long calls skip allocations: each 64 that are behind skip one.
template <class Prepare, class Call, class Unchanged>
void starve(Failing failing, const Prepare& prepare, const Call& call, const Unchanged& unchanged) {
  const auto text = [](const auto& result) {
    return result.ok() ? std::string() : result.error().message();
  };
  const std::string expected = text(call(prepare()));
  int failed = 0;
  for (std::int64_t n = 0;; n += 1 + n / 64) {
    INFO("allocation " << n);
    auto prepared = prepare();
    std::optional<decltype(call(std::move(prepared)))> result;
    bool hit = false;
    bool threw = false;
    {
      const AllocationFailure failure(n, failing == Failing::one_and_all_later);
      try {
        result.emplace(call(std::move(prepared)));
      } catch (...) {
        threw = true;
      }
      hit = failure.hit();
    }
    REQUIRE(!threw);
    if (result->ok() || result->error().kind() != ErrorKind::memory) {
      REQUIRE(text(*result) == expected);
    } else {
      ++failed;
      REQUIRE(result->error().message().starts_with("memory: "));
      REQUIRE(unchanged());
    }
    if (!hit) break;
  }
  CHECK(failed > 0);
}

template <class Prepare, class Call, class Unchanged>
void starve(const Prepare& prepare, const Call& call, const Unchanged& unchanged) {
  starve(Failing::one, prepare, call, unchanged);
  starve(Failing::one_and_all_later, prepare, call, unchanged);
}

template <class Call>
void starve(const Call& call) {
  starve([] { return 0; }, [&](int) { return call(); }, [] { return true; });
}

/// A cell that uses every kind of builder call, under a name too long to be kept without memory.
Result<Cell> build_cell(std::string name) {
  CellBuilder b(std::move(name));
  const Value x = b.input("x");
  const Value further = b.input("a", Dim::one);
  const Value h = b.state("h");
  const Value c = b.later("c");
  const Value f = b.sigmoid(b.bias("b_f") + b.matmul("w_f", x) + b.matmul("u_f", h));
  const Value n = b.named("n", b.tanh(b.bias("b_n", {"b", 0, 2}) + b.matmul("u_n", f * c)));
  const Value next = h + f * (n - further * b.clip(h, -1.0F, 1.0F)) + b.bias("b_2", {"b", 1, 2});
  b.define(c, b.max(h, b.constant(0.5F)));
  b.next(h, next);
  b.output(next);
  return b.build();
}

Cell cell_named(const std::string& name) { return build_cell(name).value(); }

TEST_CASE("without memory the builder of cells says so", "[malloc]") {
  const auto name = [] { return std::string("a_cell_with_quite_a_long_name"); };
  const auto always = [] { return true; };
  starve(
      name, [](std::string given) { return build_cell(std::move(given)); }, always);
  // A mistake needs memory for its sentence; either is reported.
  starve(
      name,
      [](std::string given) {
        CellBuilder b(std::move(given));
        const Value x = b.input("x");
        b.define(x, x);
        b.next(x, x);
        b.output(b.clip(x, 2.0F, 1.0F));
        return b.build();
      },
      always);
}

TEST_CASE("without memory problem strings, specs and schedules are errors", "[malloc]") {
  starve([] { return ModelSpec::parse("lstm:i40h25/26l2b3,peephole=1,clip=2.5"); });
  starve([] { return ModelSpec::parse("a_cell_nobody_has_registered:i4h8"); });
  starve([] { return ModelSpec::parse("gru:i4h8,reset=sometimes"); });
  const Cell cell = cell_named("made");
  starve(
      [&] {
        return std::pair(cell, std::vector<std::int64_t>{8, 8});
      },
      [](auto given) {
        return ModelSpec::make(std::move(given.first),
                               {.input = 4, .hidden = std::move(given.second), .batch = 2});
      },
      [] { return true; });
  ModelSpec wrong = ModelSpec::parse("lstm:i4h8l2").value();
  wrong.hidden[1] = 0;
  starve([&] { return wrong.validate(); });
  starve([] { return parse_isa("an instruction set of the future"); });
  // The JSON parser's destructors allocate: with nothing left at all they would end the program.
  const std::string json =
      schedule_for(ModelSpec::parse("lstm:i4h8l2").value(), Isa::avx2, 2).to_json();
  starve(
      Failing::one, [] { return 0; }, [&](int) { return Schedule::from_json(json); },
      [] { return true; });
  CHECK(host_isa() >= Isa::interpreter);
}

TEST_CASE("without memory no cell is registered, and it can be later", "[malloc]") {
  static int number = 0;
  std::string name;
  starve(
      [&] {
        name = "starved_cell_number_" + std::to_string(number++);
        return cell_named(name);
      },
      [](const Cell& cell) { return register_cell(cell); },
      [&] { return !ModelSpec::parse(name + ":i4h8").ok(); });
  CHECK(ModelSpec::parse(name + ":i4h8").ok());
}

TEST_CASE("without memory weights stay as they were", "[malloc]") {
  const std::vector<float> numbers(24, 0.5F);
  Weights weights;
  REQUIRE(weights.add("first_of_the_tensors", {4, 6}, numbers).ok());
  struct Arguments {
    std::string name;
    std::vector<std::int64_t> shape;
  };
  const auto arguments = [&] {
    weights = Weights();
    REQUIRE(weights.add("first_of_the_tensors", {4, 6}, numbers).ok());
    return Arguments{"a_tensor_with_a_long_name", {12, 2}};
  };
  const auto unchanged = [&] { return weights.tensors().size() == 1; };
  starve(
      arguments,
      [&](Arguments a) { return weights.add(std::move(a.name), std::move(a.shape), numbers); },
      unchanged);
  starve(
      arguments,
      [&](Arguments a) {
        return weights.add_gates(std::move(a.name), "iofc", std::move(a.shape), numbers);
      },
      unchanged);
  starve(
      arguments, [&](Arguments a) { return weights.add(std::move(a.name), {}, numbers); },
      unchanged);
  const ModelSpec spec = ModelSpec::parse("gru:i3h4").value();
  starve([&] { return Weights::random(spec, 1); });
}

TEST_CASE("without memory weight files are whole or absent, and closed", "[malloc]") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("deepcpu-no-memory-" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  const auto entries = [](const std::filesystem::path& of) {
    return std::distance(std::filesystem::directory_iterator(of), {});
  };
  const ModelSpec spec = ModelSpec::parse("gru:i3h4").value();
  const Weights weights = Weights::random(spec, 1).value();
  const std::string path = (folder / "weights.safetensors").string();
  const auto open_files = entries("/proc/self/fd");
  const auto no_file = [&] {
    std::filesystem::remove(path);
    return 0;
  };
  starve(
      Failing::one, no_file, [&](int) { return weights.to_safetensors(path); },
      [&] { return entries(folder) == 0; });
  REQUIRE(weights.to_safetensors(path).ok());
  starve(
      Failing::one, [] { return 0; }, [&](int) { return Weights::from_safetensors(path); },
      [&] { return entries("/proc/self/fd") == open_files; });
  std::filesystem::remove_all(folder);
}

TEST_CASE("without memory a model is not compiled, and it can be later", "[malloc]") {
  for (const Isa isa : {Isa::interpreter, host_isa()}) {
    for (const char* problem : {"rnn:i3h8t3", "gru:i3h20l2b2t3,reset=before"}) {
      const Sample s = Sample::make(problem);
      CompileOptions options;
      options.isa = isa;
      const auto forget = [] {
        clear_kernels();
        return 0;
      };
      starve(
          forget, [&](int) { return Model::compile(s.spec, s.weights, options); },
          [] { return true; });
      const Model model = Model::compile(s.spec, s.weights, options).value();
      CHECK((isa == Isa::interpreter) == (model.code_bytes() == 0));
      CHECK(model.notes().empty());
    }
  }
}

TEST_CASE("without memory there is no machine model, and there can be one later",
          "[malloc][fork]") {
  // In a process of its own, since the model is made once.
  const auto body = [] {
    (void)machine();
    for (const bool persist : {true, false}) {
      for (std::int64_t n = 0; n < 3; ++n) {
        const AllocationFailure failure(n, persist);
        try {
          (void)machine_model();
        } catch (const std::bad_alloc&) {
        } catch (...) {
          return 2;
        }
      }
    }
    return machine_model().key == machine_key(machine()) ? 0 : 3;
  };
  const Ending ending = run_forked(body);
  CHECK(ending.signal == 0);
  CHECK(ending.status == 0);
}

TEST_CASE("without memory no session is made, and it can be later", "[malloc]") {
  const Sample s = Sample::make("lstm:i5h20l2bib3t6");
  for (const int threads : {1, 2}) {
    const Model model = compile_for(s, host_isa(), threads);
    const std::vector<float> expected = run_once(model, s);
    starve([&] { return model.session(Layout::batch_major, 6); });
    CHECK(bit_difference(run_once(model, s), expected).empty());
  }
}

TEST_CASE("without memory a session's calls leave its state as it was", "[malloc]") {
  const Sample s = Sample::make("lstm:i5h20l2b3t6");
  const Model model = compile_for(s, host_isa(), 1);
  Session session = model.session().value();
  std::vector<float> state(2 * 3 * 20, 0.25F);
  REQUIRE(session.set_state("c", state).ok());
  const std::vector<float> other(state.size(), -1.0F);
  std::vector<float> y(s.y_size());
  const auto unchanged = [&] {
    std::vector<float> now(state.size());
    return session.get_state("c", now).ok() && now == state;
  };
  const auto nothing = [] { return 0; };
  const std::string unknown = "a state that no cell of this project has";
  starve(
      nothing, [&](int) { return session.set_state(unknown, other); }, unchanged);
  starve(
      nothing, [&](int) { return session.get_state(unknown, y); }, unchanged);
  starve(
      nothing, [&](int) { return session.set_state("c", std::span(other).first(7)); }, unchanged);
  starve(
      nothing, [&](int) { return session.run(s.x, std::span(y).first(7)); }, unchanged);
  const std::vector<std::int64_t> lengths = {1, 2, 99};
  starve(
      nothing, [&](int) { return session.run(s.x, y, {}, lengths); }, unchanged);
  // What is right needs little or no memory.
  const AllocationFailure none_at_all(0, true);
  CHECK(session.run(s.x, y).ok());
  session.reset();
}

/// A kernel that is never run.
Result<KernelCache::Kernel> kernel_of(const jit::KernelPlan&) {
  return KernelCache::Kernel(std::make_shared<jit::CodeBlob>());
}

/// One thread compiles, and runs out of memory from the end of its compilation on; another one
/// waits for the kernel. Gives what the waiter got. `hit`: an allocation has failed.
std::string answer_of_waiter(const KernelCache::Compile& compile, std::int64_t nth, bool& hit) {
  KernelCache cache;
  jit::KernelPlan plan;
  plan.name = "a_kernel_with_quite_a_long_name";
  auto compiling = std::async(std::launch::async, [&] {
    std::optional<AllocationFailure> failure;
    const KernelCache::Compile starving = [&](const jit::KernelPlan& p) {
      while (cache.counters().misses < 2) std::this_thread::yield();
      failure.emplace(nth, true);
      return compile(p);
    };
    try {
      (void)cache.get_or_compile(plan, starving);
    } catch (const std::bad_alloc&) {  // on the way back to the caller: nobody waits any more
    }
    hit = failure->hit();
  });
  while (cache.counters().misses < 1) std::this_thread::yield();
  const auto answer = cache.get_or_compile(
      plan, [](const jit::KernelPlan&) -> Result<KernelCache::Kernel> { return Error("twice"); });
  compiling.get();
  CHECK(cache.counters().compiles + cache.counters().failures == 1);
  return answer.ok() ? std::string() : answer.error().message();
}

TEST_CASE("a compilation that runs out of memory wakes those who wait for it", "[malloc]") {
  const auto throws = [](const jit::KernelPlan&) -> Result<KernelCache::Kernel> {
    throw std::runtime_error("a reason that does not fit into a short string");
  };
  const auto fails = [](const jit::KernelPlan&) -> Result<KernelCache::Kernel> {
    return Error("a reason that does not fit into a short string");
  };
  const std::array<KernelCache::Compile, 3> compilations = {kernel_of, throws, fails};
  for (const KernelCache::Compile& compile : compilations) {
    bool hit = true;
    std::vector<std::string> answers;
    for (std::int64_t n = 0; hit; ++n) {
      REQUIRE(n < 100);
      answers.push_back(answer_of_waiter(compile, n, hit));
    }
    for (const std::string& answer : answers) {
      CHECK((answer == answers.back() || answer.starts_with("memory: ")));
    }
    CHECK(answers.size() > 1);
  }
}

TEST_CASE("without memory wisdom is neither loaded, kept nor saved, and files stay", "[malloc]") {
  const TempDir folder;
  const std::string path = folder.file("wisdom-with-quite-a-long-name.json");
  WisdomEntry tuned = wisdom_entry("gru:i8h16l2b3,reset=before", 1, 37);
  const std::string good = wisdom_of({tuned, wisdom_entry("lstm:i8h16")});
  const auto emptied = [&] {
    wisdom::forget();
    write_bytes(path, good);
    return 0;
  };
  starve(
      emptied, [&](int) { return wisdom::load(path); }, [] { return wisdom::size() == 0; });
  starve(
      emptied, [&](int) { return wisdom::add(tuned); }, [] { return wisdom::size() == 0; });
  CHECK(wisdom::size() == 1);
  tuned.measured_us = 1;
  const auto added = [&] {
    emptied();
    return wisdom::add(tuned).ok();
  };
  starve(
      added, [&](bool) { return wisdom::save(path); },
      [&] { return read_bytes(path) == good && folder.entries() == 2; });
  CHECK(read_bytes(path) != good);
  const ModelSpec spec = ModelSpec::parse("gru:i8h16l2b3,reset=before").value();
  const Weights weights = Weights::random(spec, 1).value();
  starve([&] { return Model::compile(spec, weights); });
  CHECK(Model::compile(spec, weights).value().schedule() == tuned.schedule);
  wisdom::forget();
}

}  // namespace
