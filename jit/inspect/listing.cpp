// SPDX-License-Identifier: Apache-2.0
#include "jit/inspect/listing.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

extern char** environ;

namespace deepcpu::jit::inspect {
namespace {

struct Line {
  std::size_t offset = 0;
  std::string text;
};

/// A file that holds the code while objdump reads it.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::span<const std::byte> bytes) {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
    path_ = (error ? std::filesystem::path("/tmp") : folder) / "deepcpu-XXXXXX";
    const int file = mkostemp(path_.data(), O_CLOEXEC);
    if (file < 0) {
      path_.clear();
      return;
    }
    ok_ = write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    close(file);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  bool ok() const { return ok_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool ok_ = false;
};

std::string read_all(int file) {
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t n = read(file, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

/// Standard output of a program; empty when it could not be run. No shell takes part.
std::string output_of(const std::vector<std::string>& command) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string text = failed == 0 ? read_all(ends[0]) : std::string();
  close(ends[0]);
  if (failed == 0) {
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  return text;
}

/// Reads objdump's lines `  1f:\tvmovups zmm0,...`; others are headings.
std::vector<Line> parse_objdump(std::string_view text) {
  std::vector<Line> lines;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::string row(text.substr(0, newline));
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    char* end = nullptr;
    const unsigned long long offset = std::strtoull(row.c_str(), &end, 16);
    if (end == row.c_str() || end[0] != ':' || end[1] != '\t') continue;
    std::string instruction(end + 2);
    instruction.erase(instruction.find_last_not_of(" \t") + 1);
    lines.push_back({static_cast<std::size_t>(offset), std::move(instruction)});
  }
  return lines;
}

std::vector<Line> disassemble(const CodeBlob& blob, const std::string& objdump) {
  const TemporaryFile file(blob.code().first(blob.instruction_bytes()));
  if (!file.ok()) return {};
  return parse_objdump(output_of({objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel",
                                  "-w", "--no-show-raw-insn", file.path()}));
}

/// Appends the label's name to a jump whose target is one: `jne 0x2a` becomes `jne 0x2a <loop>`.
void name_target(std::string& instruction, const std::multimap<std::size_t, std::string>& labels) {
  if (instruction.empty() || (instruction[0] != 'j' && instruction.rfind("call", 0) != 0)) return;
  const std::size_t operand = instruction.rfind(" 0x");
  if (operand == std::string::npos) return;
  const auto target =
      static_cast<std::size_t>(std::strtoull(instruction.c_str() + operand + 1, nullptr, 16));
  const auto found = labels.find(target);
  if (found != labels.end()) instruction += " <" + found->second + ">";
}

/// Merges labels and notes, in order of their offsets, into lines of text.
class Merger {
 public:
  explicit Merger(const CodeBlob& blob) : blob_(blob) {}

  void line(std::size_t offset, std::string_view text) {
    marks(offset);
    fmt::format_to(std::back_inserter(out_), "{:8x}:  {}\n", offset, text);
  }
  void sentence(std::string_view text) { fmt::format_to(std::back_inserter(out_), "; {}\n", text); }
  std::string finish() {
    marks(SIZE_MAX);
    return std::move(out_);
  }
  /// The next offset after `offset` at which a label or note stands, at most `limit`.
  std::size_t next_mark(std::size_t offset, std::size_t limit) const {
    for (const CodeLabel& l : blob_.labels) {
      if (l.offset > offset && l.offset < limit) limit = l.offset;
    }
    for (const CodeNote& n : blob_.notes) {
      if (n.begin > offset && n.begin < limit) limit = n.begin;
    }
    return limit;
  }

 private:
  void marks(std::size_t offset) {
    for (; label_ < blob_.labels.size() && blob_.labels[label_].offset <= offset; ++label_) {
      fmt::format_to(std::back_inserter(out_), "{}:\n", blob_.labels[label_].name);
    }
    for (; note_ < blob_.notes.size() && blob_.notes[note_].begin <= offset; ++note_) {
      const CodeNote& n = blob_.notes[note_];
      fmt::format_to(std::back_inserter(out_), "          ; {} [{:x}, {:x})\n", n.text, n.begin,
                     n.end);
    }
  }

  const CodeBlob& blob_;
  std::string out_;
  std::size_t label_ = 0;
  std::size_t note_ = 0;
};

/// Rows of up to 16 bytes that stop at every label and note.
void append_hex(Merger& out, const CodeBlob& blob, std::size_t begin, std::size_t end) {
  while (begin < end) {
    const std::size_t stop = out.next_mark(begin, begin + 16 < end ? begin + 16 : end);
    std::string row = ".byte";
    for (std::size_t i = begin; i < stop; ++i) {
      fmt::format_to(std::back_inserter(row), " {:02x}", std::to_integer<int>(blob.code()[i]));
    }
    out.line(begin, row);
    begin = stop;
  }
}

/// Constants as 32-bit words where they are aligned, else as bytes.
void append_data(Merger& out, const CodeBlob& blob, std::size_t begin, std::size_t end) {
  while (begin < end) {
    const std::size_t stop = out.next_mark(begin, begin + 16 < end ? begin + 16 : end);
    if (begin % 4 != 0 || stop % 4 != 0) {
      append_hex(out, blob, begin, stop);
    } else {
      std::string row = ".long";
      for (std::size_t i = begin; i < stop; i += 4) {
        std::uint32_t word = 0;
        std::memcpy(&word, blob.code().data() + i, sizeof word);
        fmt::format_to(std::back_inserter(row), " 0x{:08x}", word);
      }
      out.line(begin, row);
    }
    begin = stop;
  }
}

}  // namespace

std::string listing(const CodeBlob& blob, const std::string& objdump) {
  Merger out(blob);
  out.sentence(fmt::format("{}  isa={}  {} bytes", blob.symbol, to_string(blob.isa), blob.size()));
  std::vector<Line> lines = disassemble(blob, objdump);
  if (lines.empty() && blob.instruction_bytes() > 0) {
    out.sentence(
        fmt::format("{} (GNU binutils) could not be run, so the code is shown as bytes", objdump));
    append_hex(out, blob, 0, blob.instruction_bytes());
  }
  std::multimap<std::size_t, std::string> labels;
  for (const CodeLabel& label : blob.labels) labels.emplace(label.offset, label.name);
  for (Line& line : lines) {
    name_target(line.text, labels);
    out.line(line.offset, line.text);
  }
  append_data(out, blob, blob.instruction_bytes(), blob.size());
  return out.finish();
}

}  // namespace deepcpu::jit::inspect
