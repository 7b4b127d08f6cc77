// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guarded_buffer.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace deepcpu::test {
namespace {

constexpr unsigned char kSlack = 0xc5;

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

}  // namespace

GuardedBuffer::GuardedBuffer(std::size_t bytes, Against against, std::size_t alignment,
                             std::size_t skew)
    : bytes_(bytes) {
  const std::size_t page = page_size();
  const std::size_t inner = round_up(std::max<std::size_t>(bytes + skew + alignment, 1), page);
  mapped_ = inner + 2 * page;
  void* mapping = ::mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<unsigned char*>(mapping);
  unsigned char* first = mapping_ + page;
  if (::mprotect(first, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  std::memset(first, kSlack, inner);
  const std::size_t room = inner - bytes - skew;
  const std::size_t start = against == Against::start ? 0 : room / alignment * alignment;
  data_ = first + start + skew;
  poison(data_, bytes_);
}

GuardedBuffer::~GuardedBuffer() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_);
}

bool GuardedBuffer::intact() const noexcept {
  const std::size_t page = page_size();
  const auto is_slack = [](unsigned char byte) { return byte == kSlack; };
  return std::all_of(mapping_ + page, data_, is_slack) &&
         std::all_of(data_ + bytes_, mapping_ + mapped_ - page, is_slack);
}

void GuardedBuffer::make_read_only() const {
  const std::size_t page = page_size();
  if (::mprotect(mapping_ + page, mapped_ - 2 * page, PROT_READ) != 0) throw std::bad_alloc();
}

}  // namespace deepcpu::test
