// SPDX-License-Identifier: Apache-2.0
#include "src/machine/machine.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>

#include "deepcpu/model.hpp"
#include "src/machine/cpuid.hpp"
#include "src/machine/rates.hpp"
#include "src/machine/system.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

constexpr std::uint32_t operator""_bit(unsigned long long position) { return 1U << position; }

std::uint32_t four(const char* text) {
  std::uint32_t word = 0;
  std::memcpy(&word, text, sizeof word);
  return word;
}

/// A CPU that exists only here: its CPUID table and what its operating system saves.
struct FakeCpu {
  std::map<std::pair<std::uint32_t, std::uint32_t>, CpuidWords> leaves;
  std::uint64_t saved = 0;

  Machine read() const {
    CpuQueries queries;
    queries.cpuid = [this](std::uint32_t leaf, std::uint32_t subleaf) {
      const auto found = leaves.find({leaf, subleaf});
      return found == leaves.end() ? CpuidWords{} : found->second;
    };
    queries.xcr0 = [this] {
      REQUIRE((leaves.at({1, 0}).ecx & 27_bit) != 0);  // else the instruction would fault
      return saved;
    };
    Machine out;
    read_cpu(queries, out);
    return out;
  }
};

/// An Intel CPU, family 6 model 173 stepping 1, with AVX-512, 48 KiB and 2 MiB of private cache.
FakeCpu intel() {
  FakeCpu cpu;
  cpu.saved = 0xe7;
  auto& l = cpu.leaves;
  l[{0, 0}] = {0x16, four("Genu"), four("ntel"), four("ineI")};
  l[{1, 0}] = {0x000a06d1, 0, 12_bit | 27_bit | 28_bit | 29_bit, 0};
  l[{4, 0}] = {1U | (1U << 5), (11U << 22) | 63U, 63, 0};                 // data, 12 ways x 64 sets
  l[{4, 1}] = {2U | (1U << 5), (15U << 22) | 63U, 63, 0};                 // instructions
  l[{4, 2}] = {3U | (2U << 5) | (1U << 14), (15U << 22) | 63U, 2047, 0};  // 2 MiB for 2 threads
  l[{4, 3}] = {3U | (3U << 5) | (127U << 14), (15U << 22) | 63U, 0x3ffff, 0};
  l[{7, 0}] = {1, 5_bit | 16_bit | 17_bit | 30_bit | 31_bit, 11_bit, 22_bit | 24_bit};
  l[{7, 1}] = {5_bit, 0, 0, 0};
  l[{0x15, 0}] = {2, 200, 25000000, 0};
  l[{0x80000000, 0}] = {0x80000004, 0, 0, 0};
  l[{0x80000002, 0}] = {four("  In"), four("tel "), four("Test"), four(" CPU")};
  return cpu;
}

FakeCpu amd() {
  FakeCpu cpu;
  cpu.saved = 0x7;
  auto& l = cpu.leaves;
  l[{0, 0}] = {0x10, four("Auth"), four("cAMD"), four("enti")};
  l[{1, 0}] = {0x00a20f12, 0, 12_bit | 27_bit | 28_bit, 0};
  l[{7, 0}] = {0, 5_bit, 0, 0};
  l[{0x80000000, 0}] = {0x8000001d, 0, 0, 0};
  l[{0x8000001d, 0}] = {1U | (1U << 5) | (1U << 14), (7U << 22) | 63U, 63, 0};
  l[{0x8000001d, 1}] = {3U | (2U << 5) | (1U << 14), (7U << 22) | 63U, 1023, 0};
  return cpu;
}

/// A folder that stands for the root of a file system; removed afterwards.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (std::filesystem::temp_directory_path() / "deepcpu-root-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& file, const std::string& text) const {
    const std::filesystem::path where = path_ + file;
    std::filesystem::create_directories(where.parent_path());
    std::ofstream(where) << text;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class MaxIsa {
 public:
  explicit MaxIsa(const char* value) {
    const char* old = std::getenv("DEEPCPU_MAX_ISA");
    if (old != nullptr) old_ = old;
    had_ = old != nullptr;
    if (value == nullptr) {
      unsetenv("DEEPCPU_MAX_ISA");
    } else {
      setenv("DEEPCPU_MAX_ISA", value, 1);
    }
  }
  MaxIsa(const MaxIsa&) = delete;
  MaxIsa& operator=(const MaxIsa&) = delete;
  ~MaxIsa() {
    if (had_) {
      setenv("DEEPCPU_MAX_ISA", old_.c_str(), 1);
    } else {
      unsetenv("DEEPCPU_MAX_ISA");
    }
  }

 private:
  std::string old_;
  bool had_ = false;
};

TEST_CASE("machine: an Intel CPU's CPUID") {
  const Machine m = intel().read();
  CHECK(m.vendor == "GenuineIntel");
  CHECK(m.model_name == "Intel Test CPU");
  CHECK(m.family == 6);
  CHECK(m.model == 173);
  CHECK(m.stepping == 1);
  CHECK(m.isa == Isa::avx512);
  CHECK(m.l1d == Cache{48 << 10, 64, 1});
  CHECK(m.l2 == Cache{2 << 20, 64, 2});
  CHECK(m.l3 == Cache{256 << 20, 64, 128});
  CHECK(m.tsc_hz == 2.5e9);
  CHECK(!m.hypervisor);
  // AMX is there, but its tiles are not saved.
  CHECK(std::count(m.features.begin(), m.features.end(), "amx_tile") == 0);
  CHECK(machine_key(m) ==
        "v1:GenuineIntel:6:173:1:avx+avx2+fma+f16c+avx512f+avx512bw+avx512dq+avx512vl+avx512_vnni+"
        "avx512_bf16:l1d=49152:l2=2097152");
}

TEST_CASE("machine: an AMD CPU's CPUID") {
  const Machine m = amd().read();
  CHECK(m.vendor == "AuthenticAMD");
  CHECK(m.family == 25);
  CHECK(m.model == 0x21);
  CHECK(m.stepping == 2);
  CHECK(m.isa == Isa::avx2);
  CHECK(m.l1d == Cache{32 << 10, 64, 2});
  CHECK(m.l2 == Cache{512 << 10, 64, 2});
  CHECK(m.l3.bytes == 0);
  CHECK(m.tsc_hz == 0.0);
}

TEST_CASE("machine: an ISA counts only if the operating system saves its registers") {
  FakeCpu cpu = intel();
  cpu.saved = 0x7;  // no zmm
  CHECK(cpu.read().isa == Isa::avx2);
  cpu.saved = 0x67;  // masks and lower halves, but not zmm16-31
  CHECK(cpu.read().isa == Isa::avx2);
  cpu.saved = 0x3;  // no ymm
  CHECK(cpu.read().isa == Isa::interpreter);
  cpu.saved = 0xe7;
  cpu.leaves[{1, 0}].ecx &= ~27_bit;  // no OSXSAVE: XGETBV must not be executed
  CHECK(cpu.read().isa == Isa::interpreter);
  CHECK(cpu.read().features.empty());
  cpu = intel();
  cpu.saved = 0x600e7;
  const auto features = cpu.read().features;
  CHECK(std::count(features.begin(), features.end(), "amx_tile") == 1);
}

TEST_CASE("machine: each bit that an ISA needs is needed") {
  for (const int position : {16, 17, 30, 31}) {
    FakeCpu cpu = intel();
    cpu.leaves[{7, 0}].ebx &= ~(1U << position);
    INFO(position);
    CHECK(cpu.read().isa == Isa::avx2);
  }
  FakeCpu no_fma = intel();
  no_fma.leaves[{1, 0}].ecx &= ~12_bit;
  CHECK(no_fma.read().isa == Isa::interpreter);
  FakeCpu old = intel();
  old.leaves[{0, 0}].eax = 4;  // no leaf 7: what it would answer is not its own
  CHECK(old.read().isa == Isa::interpreter);
}

TEST_CASE("machine: this one") {
  const Machine& m = machine();
  CHECK(&m == &machine());
  CHECK(!m.vendor.empty());
  CHECK(m.l1d.bytes >= 8 << 10);
  CHECK(m.l2.bytes >= m.l1d.bytes);
  CHECK(!m.cpus.empty());
  CHECK(std::is_sorted(m.cpus.begin(), m.cpus.end()));
  CHECK(m.cpu_quota >= 0.0);
  __builtin_cpu_init();
  CHECK((m.isa >= Isa::avx2) ==
        (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0));
  CHECK((m.isa == Isa::avx512) ==
        (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0));
  CHECK(to_text(m).find(machine_key(m)) != std::string::npos);
}

TEST_CASE("DEEPCPU_MAX_ISA caps the host's ISA") {
  const Isa raw = machine().isa;
  {
    const MaxIsa none(nullptr);
    CHECK(host_isa() == raw);
  }
  for (const Isa cap : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
    const MaxIsa variable(std::string(to_string(cap)).c_str());
    CHECK(host_isa() == std::min(raw, cap));
    CHECK(machine().isa == raw);
  }
  if (raw != Isa::interpreter) {
    const MaxIsa fine("avx2");
    CHECK(isa_note().empty());
  }
  const MaxIsa unknown("sse4");
  CHECK(host_isa() == raw);
  CHECK(isa_note() ==
        "DEEPCPU_MAX_ISA=sse4: must be interpreter, avx2 or avx512; the variable is ignored");
}

TEST_CASE("machine key: one word per field, whatever the CPU calls itself") {
  Machine m;
  m.vendor = "Bad:Vendor \"x\"";
  CHECK(machine_key(m) == "v1:Bad_Vendor__x_:0:0:0:none:l1d=0:l2=0");
  m.cpus = {0, 1, 2};
  m.cpu_quota = 1.5;
  m.tsc_hz = 1e9;
  CHECK(machine_key(m) == "v1:Bad_Vendor__x_:0:0:0:none:l1d=0:l2=0");
}

TEST_CASE("processor lists") {
  CHECK(count_cpu_list("0") == 1);
  CHECK(count_cpu_list("0-3") == 4);
  CHECK(count_cpu_list("0-3,8,10-11") == 7);
  for (const char* bad : {"", "x", "3-1", "1-", "-2", "1,,2", "0-3;"}) {
    INFO(bad);
    CHECK(count_cpu_list(bad) == 0);
  }
}

TEST_CASE("sysfs fills in caches that CPUID does not give and says who shares them") {
  const FakeRoot root;
  const std::string base = "/sys/devices/system/cpu/cpu5/cache/index";
  const auto cache = [&](int i, const char* level, const char* type, const char* size,
                         const char* list) {
    const std::string folder = base + std::to_string(i) + "/";
    root.write(folder + "level", std::string(level) + "\n");
    root.write(folder + "type", std::string(type) + "\n");
    root.write(folder + "size", std::string(size) + "\n");
    root.write(folder + "coherency_line_size", "128\n");
    root.write(folder + "shared_cpu_list", std::string(list) + "\n");
  };
  cache(0, "1", "Data", "32K", "5");
  cache(1, "1", "Instruction", "64K", "5");
  cache(2, "2", "Unified", "1024K", "4-5");
  cache(3, "3", "Unified", "36M", "0-7");
  Machine m;
  m.l2 = {512 << 10, 64, 1};
  read_sysfs_caches(root.path(), 5, m);
  CHECK(m.l1d == Cache{32 << 10, 128, 1});
  CHECK(m.l2 == Cache{512 << 10, 64, 2});
  CHECK(m.l3 == Cache{36 << 20, 128, 8});

  Machine none;
  read_sysfs_caches(root.path() + "/absent", 0, none);
  CHECK(none.l1d.bytes == 0);
}

TEST_CASE("control groups, version 2: the smallest limit on the way to the root") {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "0::/a/b\n");
  CHECK(cgroup_cpu_quota(root.path()) == 0.0);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 0.0);
  root.write("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 1.5);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 1.5);
  root.write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 0.5);
  root.write("/sys/fs/cgroup/cpu.max", "nonsense\n");
  CHECK(cgroup_cpu_quota(root.path()) == 1.5);
}

TEST_CASE("control groups, version 1") {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "12:cpuset:/x\n4:cpu,cpuacct:/job/7\n1:name=systemd:/y\n");
  const std::string base = "/sys/fs/cgroup/cpu,cpuacct/job";
  root.write(base + "/7/cpu.cfs_quota_us", "-1\n");
  root.write(base + "/7/cpu.cfs_period_us", "100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 0.0);
  root.write(base + "/cpu.cfs_quota_us", "250000\n");
  root.write(base + "/cpu.cfs_period_us", "100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 2.5);
}

TEST_CASE("available memory is the least of the system's and of the control groups'") {
  const FakeRoot root;
  CHECK(available_memory(root.path()) == UINT64_MAX);
  root.write("/proc/meminfo", "MemTotal:  900 kB\nMemFree: 1 kB\nMemAvailable:   800 kB\n");
  CHECK(available_memory(root.path()) == 800 * 1024);
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  root.write("/sys/fs/cgroup/a/b/memory.current", "5000\n");
  CHECK(available_memory(root.path()) == 800 * 1024);
  root.write("/sys/fs/cgroup/a/memory.max", "500000\n");
  root.write("/sys/fs/cgroup/a/memory.current", "200000\n");
  CHECK(available_memory(root.path()) == 300000);
  root.write("/sys/fs/cgroup/a/memory.stat", "anon 50000\ninactive_file 30000\nactive_file 4000\n");
  CHECK(available_memory(root.path()) == 334000);
  root.write("/sys/fs/cgroup/a/memory.current", "900000\n");  // over its limit
  CHECK(available_memory(root.path()) == 1);
}

TEST_CASE("available memory, control groups of version 1") {
  const FakeRoot root;
  root.write("/proc/meminfo", "MemAvailable: 800 kB\n");
  root.write("/proc/self/cgroup", "4:cpu,cpuacct:/x\n7:memory:/job\n");
  const std::string group = "/sys/fs/cgroup/memory/job/";
  root.write(group + "memory.limit_in_bytes", "9223372036854771712\n");  // none
  root.write(group + "memory.usage_in_bytes", "1000\n");
  CHECK(available_memory(root.path()) == 800 * 1024);
  root.write(group + "memory.limit_in_bytes", "6000\n");
  root.write(group + "memory.stat", "total_inactive_file 100\ntotal_active_file 20\n");
  CHECK(available_memory(root.path()) == 5120);
}

TEST_CASE("available memory of this process is some, and no more than 2^50 bytes") {
  CHECK(available_memory("") > std::uint64_t{1} << 20);
  CHECK(available_memory("") < std::uint64_t{1} << 50);
}

TEST_CASE("on a CPU without AVX2 the interpreter serves and the model's notes say so") {
  const MaxIsa unset(nullptr);
  const ModelSpec spec = ModelSpec::parse("lstm:i5h20b2t4").value();
  const Weights weights = Weights::random(spec, 1).value();
  std::vector<float> x(4 * 2 * 5, 0.5F);
  const auto run = [&](const Model& model) {
    std::vector<float> y(4 * 2 * 20);
    model.session().value().run(x, y).value();
    return y;
  };
  const std::vector<float> expected = run(Model::compile(spec, weights).value());
  // Either half of what is needed: the instructions, and the system that saves the registers.
  FakeCpu old_cpu = intel();
  old_cpu.leaves[{7, 0}].ebx &= ~5_bit;
  FakeCpu old_system = intel();
  old_system.saved = 3;
  for (const FakeCpu& cpu : {old_cpu, old_system}) {
    const Machine old = cpu.read();
    const PretendMachine pretend(old);
    CHECK(host_isa() == Isa::interpreter);
    const Model model = Model::compile(spec, weights).value();
    CHECK(model.schedule().isa == Isa::interpreter);
    CHECK(model.code_bytes() == 0);
    const std::vector<std::string> said = {
        "cpu: it has no AVX2 with FMA (or the operating system does not save their registers); "
        "the interpreter runs instead of emitted code"};
    CHECK(model.notes() == said);
    CHECK(run(model) == expected);
  }
  CHECK(Model::compile(spec, weights).value().schedule().isa == host_isa());
}

TEST_CASE("one processor per core, by the lists of siblings") {
  const FakeRoot root;
  const auto siblings = [&](int cpu, const char* list) {
    root.write(
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
        list);
  };
  CHECK(one_per_core(root.path(), {0, 1, 2}) == std::vector<int>{0, 1, 2});
  for (const int cpu : {0, 2}) siblings(cpu, "0,2\n");
  for (const int cpu : {1, 3}) siblings(cpu, "1,3\n");
  CHECK(one_per_core(root.path(), {0, 1, 2, 3}) == std::vector<int>{0, 1});
  CHECK(one_per_core(root.path(), {1, 2, 3}) == std::vector<int>{1, 2});
  CHECK(one_per_core(root.path(), {3}) == std::vector<int>{3});
  CHECK(cores_of(root.path(), {0, 1, 2, 3, 4}) == std::vector<int>{0, 1, 0, 1, 4});
  CHECK(cores_of(root.path(), {2, 0}) == std::vector<int>{2, 2});
}

TEST_CASE("rates are refused where there is nothing to measure") {
  Machine m = machine();
  CHECK(measure_rates(m, Isa::interpreter).error().message() ==
        "isa=interpreter: rates need emitted code");
  m.isa = Isa::avx2;
  CHECK(measure_rates(m, Isa::avx512).error().message() ==
        "isa=avx512: the machine has at most avx2");
}

TEST_CASE("rates of this machine are those of some machine") {
  if (machine().isa == Isa::interpreter) return;  // refused, as the case above shows
  const Rates rates = measure_rates(machine(), machine().isa).value();
  INFO(to_text(rates));
  CHECK(rates.isa == machine().isa);
  // Wide enough for a loaded machine and an emulated one; a wrong unit is off by 1000.
  CHECK(rates.clock_ghz > 0.05);
  CHECK(rates.clock_ghz < 10.0);
  // No core has more than four FMA units, of the width of its ISA.
  const double most = 4.0 * 2.0 * lanes(rates.isa) * 10.0;
  CHECK(rates.fma_gflops > 0.1);
  CHECK(rates.fma_gflops < most);
  CHECK(rates.l1_gbytes_per_s > 0.05);
  CHECK(rates.l1_gbytes_per_s < most * 2.0);
  CHECK(rates.l2_gbytes_per_s > 0.05);
  CHECK(rates.l2_gbytes_per_s < most * 2.0);
}

}  // namespace
}  // namespace deepcpu
