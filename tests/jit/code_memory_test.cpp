// SPDX-License-Identifier: Apache-2.0
/// Executable memory, published code and what tools see of it.
#include "jit/code_memory.hpp"

#include <elf.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "jit/code_blob.hpp"
#include "jit/inspect/elf_image.hpp"
#include "jit/inspect/gdb_jit.hpp"
#include "jit/inspect/listing.hpp"
#include "jit/inspect/perf_map.hpp"
#include "tests/catch.hpp"

namespace deepcpu::jit {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

/// push rbp; mov rbp, rsp; mov eax, 42; nop; jmp 0x9; pop rbp; ret; 8 bytes of constants.
std::vector<std::byte> sample_code() {
  return bytes({0x55, 0x48, 0x89, 0xe5, 0xb8, 42,   0,    0,    0,    0x90, 0xeb, 0xfd,
                0x5d, 0xc3, 0xcc, 0xcc, 0x00, 0x00, 0x80, 0x3f, 0x78, 0x56, 0x34, 0x12});
}

CodeBlob sample_blob() {
  CodeBlob blob;
  blob.symbol = "deepcpu.sample.i2.h3.avx2.0123";
  blob.isa = Isa::avx2;
  blob.memory = CodeMemory::make(sample_code()).value();
  blob.labels = {{"timestep", 9}, {"constants", 16}, {"entry", 0}};
  blob.notes = {{9, 10, "c = f*c + i*g"}, {4, 9, "the answer"}};
  blob.data_begin = 16;
  return blob;
}

/// The permissions of the mapping that holds an address, as /proc/self/maps writes them.
std::string permissions(const void* address) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  while (std::getline(maps, line)) {
    std::istringstream in(line);
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    char dash = 0;
    std::string flags;
    in >> std::hex >> begin >> dash >> end >> flags;
    if (begin <= at && at < end) return flags;
  }
  return "unmapped";
}

/// Sets an environment variable for one test.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

std::string perf_map_path() { return "/tmp/perf-" + std::to_string(getpid()) + ".map"; }

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Makes every later mprotect with PROT_EXEC of this process fail with EPERM, as a hardened
/// service does.
bool refuse_executable_memory() {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof rules / sizeof rules[0], rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_CASE("code memory runs what was copied in and cannot be written") {
  const CodeMemory memory = CodeMemory::make(sample_code()).value();
  CHECK(memory.size() == sample_code().size());
  CHECK(reinterpret_cast<std::uintptr_t>(memory.data()) % CodeMemory::kAlignment == 0);
  CHECK(permissions(memory.data()) == "r-xp");

  const auto code = bytes({0xb8, 42, 0, 0, 0, 0xc3});  // mov eax, 42; ret
  const CodeMemory small = CodeMemory::make(code).value();
  const auto call = reinterpret_cast<int (*)()>(reinterpret_cast<std::uintptr_t>(small.data()));
  CHECK(call() == 42);
}

TEST_CASE("code memory has pages of its own, unmapped when it goes") {
  const void* first = nullptr;
  {
    CodeMemory a = CodeMemory::make(bytes({0xc3})).value();
    const CodeMemory b = CodeMemory::make(bytes({0xc3})).value();
    first = a.data();
    const auto page = [](const CodeMemory& m) {
      return reinterpret_cast<std::uintptr_t>(m.data()) / 4096;
    };
    CHECK(page(a) != page(b));

    CodeMemory moved = std::move(a);
    CHECK(moved.data() == first);
    CHECK(a.data() == nullptr);  // NOLINT(bugprone-use-after-move): the state left behind
    moved = CodeMemory();
    CHECK(permissions(first) != "r-xp");
  }
}

TEST_CASE("code memory of more than a page keeps every byte") {
  std::vector<std::byte> code(3 * 4096 + 17);
  for (std::size_t i = 0; i < code.size(); ++i) code[i] = static_cast<std::byte>(i * 7);
  const CodeMemory memory = CodeMemory::make(code).value();
  CHECK(std::memcmp(memory.data(), code.data(), code.size()) == 0);
  CHECK(permissions(memory.data() + code.size() - 1) == "r-xp");
}

TEST_CASE("code memory that cannot be had is an error with a sentence") {
  CHECK(CodeMemory::make({}).error().message() == "code size=0: must be at least 1 byte");
  inject_code_memory_fault(CodeMemoryFault::map);
  CHECK(CodeMemory::make(sample_code()).error().message() ==
        "executable memory: the system refused to map 4096 bytes (Cannot allocate memory)");
  inject_code_memory_fault(CodeMemoryFault::protect);
  CHECK(CodeMemory::make(sample_code()).error().message() ==
        "executable memory: the system refused to make executable 4096 bytes (Permission denied)");
  inject_code_memory_fault(CodeMemoryFault::none);
  CHECK(CodeMemory::make(sample_code()).ok());
}

TEST_CASE("a seccomp filter against executable memory gives an error, not a crash") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!refuse_executable_memory()) _exit(2);
    const Result<CodeMemory> memory = CodeMemory::make(sample_code());
    const bool right = !memory.ok() && memory.error().message().find("Operation not permitted") !=
                                           std::string::npos;
    _exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("publish sorts labels and notes and gives code that can be called") {
  const auto blob = publish(sample_blob());
  CHECK(blob->size() == sample_code().size());
  CHECK(blob->instruction_bytes() == 16);
  REQUIRE(blob->labels.size() == 3);
  CHECK(blob->labels[0].name == "entry");
  CHECK(blob->labels[1].name == "timestep");
  CHECK(blob->notes[0].text == "the answer");
  CHECK(reinterpret_cast<std::uintptr_t>(blob->entry()) ==
        reinterpret_cast<std::uintptr_t>(blob->memory.data()));
}

TEST_CASE("without environment variables no tool hears of published code") {
  unlink(perf_map_path().c_str());
  const std::size_t before = inspect::gdb_registrations();
  const auto blob = publish(sample_blob());
  CHECK(inspect::gdb_registrations() == before);
  CHECK(access(perf_map_path().c_str(), F_OK) != 0);
}

TEST_CASE("the perf map has one line per kernel") {
  {
    std::ofstream stale(perf_map_path());
    stale << "dead 10 of-an-earlier-process\n";
  }
  const Environment perf("DEEPCPU_PERF", "map");
  const auto a = publish(sample_blob());
  const auto b = publish(sample_blob());
  std::ostringstream expected;
  for (const auto& blob : {a, b}) {
    expected << std::hex << reinterpret_cast<std::uintptr_t>(blob->memory.data()) << " 18 "
             << blob->symbol << "\n";
  }
  CHECK(read_file(perf_map_path()) == expected.str());
  unlink(perf_map_path().c_str());
}

TEST_CASE("perf map lines by label cover the code without overlap") {
  const auto blob = publish(sample_blob());
  std::istringstream lines(inspect::perf_map_lines(*blob, true));
  std::uintptr_t at = reinterpret_cast<std::uintptr_t>(blob->memory.data());
  std::vector<std::string> names;
  std::uintptr_t start = 0;
  std::uintptr_t size = 0;
  std::string name;
  while (lines >> std::hex >> start >> size >> name) {
    CHECK(start == at);
    at += size;
    names.push_back(name);
  }
  CHECK(at == reinterpret_cast<std::uintptr_t>(blob->memory.data()) + blob->size());
  CHECK(names == std::vector<std::string>{blob->symbol + "/entry", blob->symbol + "/timestep",
                                          blob->symbol + "/constants"});
}

TEST_CASE("gdb knows of code exactly as long as it lives") {
  const Environment gdb("DEEPCPU_GDB", "1");
  const std::size_t before = inspect::gdb_registrations();
  auto a = publish(sample_blob());
  auto b = publish(sample_blob());
  auto c = publish(sample_blob());
  CHECK(inspect::gdb_registrations() == before + 3);
  b.reset();
  CHECK(inspect::gdb_registrations() == before + 2);
  a.reset();
  c.reset();
  CHECK(inspect::gdb_registrations() == before);
}

TEST_CASE("the ELF image names the code's address range and its labels") {
  const auto blob = publish(sample_blob());
  const std::vector<std::byte> image = inspect::elf_image(*blob);
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  REQUIRE(std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0);
  CHECK(header.e_machine == EM_X86_64);
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  REQUIRE(header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr) == image.size());
  std::memcpy(sections.data(), image.data() + header.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  const auto text_at = [&](const Elf64_Shdr& table, Elf64_Word offset) {
    return std::string(reinterpret_cast<const char*>(image.data()) + table.sh_offset + offset);
  };
  std::vector<std::string> symbols;
  for (const Elf64_Shdr& s : sections) {
    const std::string name = text_at(sections[header.e_shstrndx], s.sh_name);
    if (name == ".text") {
      CHECK(s.sh_addr == reinterpret_cast<std::uintptr_t>(blob->memory.data()));
      CHECK(s.sh_size == blob->size());
    }
    if (name != ".symtab") continue;
    std::vector<Elf64_Sym> table(s.sh_size / sizeof(Elf64_Sym));
    std::memcpy(table.data(), image.data() + s.sh_offset, s.sh_size);
    for (const Elf64_Sym& symbol : table) {
      symbols.push_back(text_at(sections[s.sh_link], symbol.st_name) + "@" +
                        std::to_string(symbol.st_value) + "+" + std::to_string(symbol.st_size));
    }
  }
  CHECK(symbols == std::vector<std::string>{"@0+0", blob->symbol + "/timestep@9+7",
                                            blob->symbol + "/constants@16+8",
                                            blob->symbol + "@0+24"});
}

TEST_CASE("the listing merges instructions, labels and notes") {
  const auto blob = publish(sample_blob());
  const std::string text = inspect::listing(*blob);
  INFO(text);
  const std::vector<std::string> in_order = {
      "; deepcpu.sample.i2.h3.avx2.0123  isa=avx2  24 bytes\n",
      "entry:\n",
      "0:  push   rbp\n",
      "1:  mov    rbp,rsp\n",
      "; the answer [4, 9)\n",
      "4:  mov    eax,0x2a\n",
      "timestep:\n",
      "; c = f*c + i*g [9, a)\n",
      "9:  nop\n",
      "a:  jmp    0x9 <timestep>\n",
      "ret\n",
      "constants:\n",
      "10:  .long 0x3f800000 0x12345678\n"};
  std::size_t at = 0;
  for (const std::string& part : in_order) {
    INFO(part);
    const std::size_t found = text.find(part, at);
    REQUIRE(found != std::string::npos);
    at = found + part.size();
  }
  CHECK(at == text.size());
  CHECK(text == inspect::listing(*publish(sample_blob())));  // no address takes part
}

TEST_CASE("without objdump the listing shows bytes and says so") {
  const auto blob = publish(sample_blob());
  CHECK(inspect::listing(*blob, "/nonexistent/objdump") ==
        "; deepcpu.sample.i2.h3.avx2.0123  isa=avx2  24 bytes\n"
        "; /nonexistent/objdump (GNU binutils) could not be run, so the code is shown as bytes\n"
        "entry:\n"
        "       0:  .byte 55 48 89 e5\n"
        "          ; the answer [4, 9)\n"
        "       4:  .byte b8 2a 00 00 00\n"
        "timestep:\n"
        "          ; c = f*c + i*g [9, a)\n"
        "       9:  .byte 90 eb fd 5d c3 cc cc\n"
        "constants:\n"
        "      10:  .long 0x3f800000 0x12345678\n");
}

TEST_CASE("a kernel's symbol follows from its plan") {
  KernelPlan plan;
  plan.name = "lstm.i256.h256";
  plan.isa = Isa::avx512;
  const std::string symbol = kernel_symbol(plan);
  CHECK(symbol.rfind("deepcpu.lstm.i256.h256.avx512.", 0) == 0);
  CHECK(symbol.size() == std::strlen("deepcpu.lstm.i256.h256.avx512.") + 16);
  KernelPlan other = plan;
  other.rows = 2;
  CHECK(kernel_symbol(other) != symbol);
}

}  // namespace
}  // namespace deepcpu::jit
