// SPDX-License-Identifier: Apache-2.0
#include "jit/inspect/gdb_jit.hpp"

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "jit/inspect/elf_image.hpp"

// The names and layouts of this block are given by gdb. Weak and hidden: a program that links
// another JIT compiler statically keeps one copy, one that loads it keeps them apart (gdb looks in
// every object file).
extern "C" {

struct jit_code_entry {
  jit_code_entry* next_entry;
  jit_code_entry* prev_entry;
  const char* symfile_addr;
  std::uint64_t symfile_size;
};

struct jit_descriptor {
  std::uint32_t version;
  std::uint32_t action_flag;
  jit_code_entry* relevant_entry;
  jit_code_entry* first_entry;
};

extern jit_descriptor __jit_debug_descriptor;
void __jit_debug_register_code();

__attribute__((weak, used, visibility("hidden")))
jit_descriptor __jit_debug_descriptor = {1, 0, nullptr, nullptr};

/// gdb sets a breakpoint here; the empty statement keeps the call from being optimised away.
__attribute__((weak, used, noinline, visibility("hidden"))) void __jit_debug_register_code() {
  __asm__ volatile("" ::: "memory");
}

}  // extern "C"

namespace deepcpu::jit::inspect {
namespace {

enum Action : std::uint32_t { kNothing, kRegister, kUnregister };

/// Guards the descriptor, which gdb reads only while this process stands in the hook. Never
/// destroyed: blobs of static caches may outlive any static of this file.
std::mutex& mutex() {
  static auto* m = new std::mutex;
  return *m;
}

void notify(Action action, jit_code_entry& entry) {
  __jit_debug_descriptor.relevant_entry = &entry;
  __jit_debug_descriptor.action_flag = action;
  __jit_debug_register_code();
  __jit_debug_descriptor.action_flag = kNothing;
  __jit_debug_descriptor.relevant_entry = nullptr;
}

class Registration {
 public:
  explicit Registration(std::vector<std::byte> image) : image_(std::move(image)) {
    entry_.symfile_addr = reinterpret_cast<const char*>(image_.data());
    entry_.symfile_size = image_.size();
    const std::lock_guard lock(mutex());
    entry_.prev_entry = nullptr;
    entry_.next_entry = __jit_debug_descriptor.first_entry;
    if (entry_.next_entry != nullptr) entry_.next_entry->prev_entry = &entry_;
    __jit_debug_descriptor.first_entry = &entry_;
    notify(kRegister, entry_);
  }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration() {
    const std::lock_guard lock(mutex());
    if (entry_.next_entry != nullptr) entry_.next_entry->prev_entry = entry_.prev_entry;
    if (entry_.prev_entry != nullptr) {
      entry_.prev_entry->next_entry = entry_.next_entry;
    } else {
      __jit_debug_descriptor.first_entry = entry_.next_entry;
    }
    notify(kUnregister, entry_);
  }

 private:
  std::vector<std::byte> image_;
  jit_code_entry entry_{};
};

}  // namespace

std::shared_ptr<const void> register_with_gdb(const CodeBlob& blob) {
  return std::make_shared<const Registration>(elf_image(blob));
}

std::size_t gdb_registrations() {
  const std::lock_guard lock(mutex());
  std::size_t count = 0;
  for (const jit_code_entry* e = __jit_debug_descriptor.first_entry; e != nullptr;
       e = e->next_entry) {
    ++count;
  }
  return count;
}

}  // namespace deepcpu::jit::inspect
