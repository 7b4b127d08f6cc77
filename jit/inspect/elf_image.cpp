// SPDX-License-Identifier: Apache-2.0
#include "jit/inspect/elf_image.hpp"

#include <elf.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace deepcpu::jit::inspect {
namespace {

using Bytes = std::vector<std::byte>;

template <class T>
void append(Bytes& out, const T& value) {
  const auto* raw = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), raw, raw + sizeof value);
}

void append_bytes(Bytes& out, std::initializer_list<int> values) {
  for (int value : values) out.push_back(static_cast<std::byte>(value));
}

/// Zero-terminated names, found by their offset.
struct StringTable {
  Bytes bytes{std::byte{0}};
  Elf64_Word add(std::string_view text) {
    const auto offset = static_cast<Elf64_Word>(bytes.size());
    for (char c : text) bytes.push_back(static_cast<std::byte>(c));
    bytes.push_back(std::byte{0});
    return offset;
  }
};

// Call frame instructions and register numbers of DWARF 5, section 7.24, and the x86-64 psABI.
constexpr int kDefCfa = 0x0c;
constexpr int kDefCfaOffset = 0x0e;
constexpr int kDefCfaRegister = 0x0d;
constexpr int kAdvance = 0x40;  // | code bytes
constexpr int kOffset = 0x80;   // | register; its slot below the CFA follows, in units of 8
constexpr int kNop = 0;
constexpr int kRbp = 6;
constexpr int kRsp = 7;
constexpr int kReturnAddress = 16;
constexpr int kMinusEight = 0x78;  // -8 as SLEB128

constexpr int kPushRbpBytes = 1;
constexpr int kMovRbpRspBytes = 3;

/// Appends a CIE or FDE: its length, padded so that the next one is 8-byte aligned, and its body.
void append_entry(Bytes& out, Bytes body) {
  while ((body.size() + sizeof(std::uint32_t)) % 8 != 0) append_bytes(body, {kNop});
  append(out, static_cast<std::uint32_t>(body.size()));
  out.insert(out.end(), body.begin(), body.end());
}

/// One CIE with the state at entry (CFA = rsp + 8) and one FDE that follows `push rbp;
/// mov rbp, rsp`: from there on CFA = rbp + 16.
Bytes eh_frame(const CodeBlob& blob) {
  Bytes cie;
  append(cie, std::uint32_t{0});                              // marks a CIE
  append_bytes(cie, {1, 0, 1, kMinusEight, kReturnAddress});  // version, "", alignments, RA
  append_bytes(cie, {kDefCfa, kRsp, 8, kOffset | kReturnAddress, 1});

  Bytes out;
  append_entry(out, cie);
  Bytes fde;
  // Distance from this field back to the CIE: the CIE itself and the FDE's own length field.
  append(fde, static_cast<std::uint32_t>(out.size() + sizeof(std::uint32_t)));
  append(fde, static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(blob.memory.data())));
  append(fde, static_cast<std::uint64_t>(blob.size()));
  append_bytes(fde, {kAdvance | kPushRbpBytes, kDefCfaOffset, 16, kOffset | kRbp, 2});
  append_bytes(fde, {kAdvance | kMovRbpRspBytes, kDefCfaRegister, kRbp});
  append_entry(out, fde);
  append(out, std::uint32_t{0});  // end of the section
  return out;
}

enum SectionIndex : std::uint16_t {
  kNull,
  kText,
  kEhFrame,
  kSymtab,
  kStrtab,
  kShstrtab,
  kSections
};

Elf64_Sym symbol(Elf64_Word name, unsigned char binding, unsigned char type, std::size_t offset,
                 std::size_t size) {
  Elf64_Sym s{};
  s.st_name = name;
  s.st_info = static_cast<unsigned char>((binding << 4) | type);
  s.st_shndx = kText;
  s.st_value = offset;
  s.st_size = size;
  return s;
}

/// Local symbols stand before global ones: the labels, then the symbol of the whole code.
Bytes symtab(const CodeBlob& blob, StringTable& names, Elf64_Word& first_global) {
  Bytes out;
  append(out, Elf64_Sym{});
  for (std::size_t i = 0; i < blob.labels.size(); ++i) {
    const CodeLabel& label = blob.labels[i];
    if (label.offset == 0 || label.offset >= blob.size()) continue;  // offset 0 is the symbol's own
    const std::size_t end = i + 1 < blob.labels.size() ? blob.labels[i + 1].offset : blob.size();
    append(out, symbol(names.add(blob.symbol + "/" + label.name), STB_LOCAL, STT_FUNC, label.offset,
                       end - label.offset));
  }
  first_global = static_cast<Elf64_Word>(out.size() / sizeof(Elf64_Sym));
  append(out, symbol(names.add(blob.symbol), STB_GLOBAL, STT_FUNC, 0, blob.size()));
  return out;
}

Elf64_Ehdr file_header() {
  Elf64_Ehdr h{};
  constexpr std::array<unsigned char, 7> kIdent = {ELFMAG0,    ELFMAG1,     ELFMAG2,   ELFMAG3,
                                                   ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
  std::memcpy(h.e_ident, kIdent.data(), kIdent.size());
  h.e_type = ET_REL;
  h.e_machine = EM_X86_64;
  h.e_version = EV_CURRENT;
  h.e_ehsize = sizeof(Elf64_Ehdr);
  h.e_shentsize = sizeof(Elf64_Shdr);
  h.e_shnum = kSections;
  h.e_shstrndx = kShstrtab;
  return h;
}

void describe(Elf64_Shdr& section, Elf64_Word name, Elf64_Word type, Elf64_Xword flags,
              Elf64_Xword align) {
  section.sh_name = name;
  section.sh_type = type;
  section.sh_flags = flags;
  section.sh_addralign = align;
}

/// To a multiple of 8 bytes.
void pad(Bytes& out) {
  while (out.size() % 8 != 0) out.push_back(std::byte{0});
}

}  // namespace

std::vector<std::byte> elf_image(const CodeBlob& blob) {
  StringTable names;
  StringTable sections;
  Elf64_Word first_global = 0;
  std::array<Elf64_Shdr, kSections> table{};
  std::array<Bytes, kSections> body;
  body[kEhFrame] = eh_frame(blob);
  body[kSymtab] = symtab(blob, names, first_global);
  body[kStrtab] = names.bytes;

  describe(table[kText], sections.add(".text"), SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR,
           CodeMemory::kAlignment);
  table[kText].sh_addr = reinterpret_cast<std::uintptr_t>(blob.memory.data());
  table[kText].sh_size = blob.size();
  describe(table[kEhFrame], sections.add(".eh_frame"), SHT_PROGBITS, SHF_ALLOC, 8);
  describe(table[kSymtab], sections.add(".symtab"), SHT_SYMTAB, 0, 8);
  table[kSymtab].sh_link = kStrtab;
  table[kSymtab].sh_info = first_global;
  table[kSymtab].sh_entsize = sizeof(Elf64_Sym);
  describe(table[kStrtab], sections.add(".strtab"), SHT_STRTAB, 0, 1);
  describe(table[kShstrtab], sections.add(".shstrtab"), SHT_STRTAB, 0, 1);
  body[kShstrtab] = sections.bytes;

  Bytes out(sizeof(Elf64_Ehdr));
  for (std::size_t i = kEhFrame; i < kSections; ++i) {
    pad(out);
    table[i].sh_offset = out.size();
    table[i].sh_size = body[i].size();
    out.insert(out.end(), body[i].begin(), body[i].end());
  }
  pad(out);
  Elf64_Ehdr header = file_header();
  header.e_shoff = out.size();
  std::memcpy(out.data(), &header, sizeof header);
  for (const Elf64_Shdr& section : table) append(out, section);
  return out;
}

}  // namespace deepcpu::jit::inspect
