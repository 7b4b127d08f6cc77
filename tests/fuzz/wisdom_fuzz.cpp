// SPDX-License-Identifier: Apache-2.0
/// The reader of wisdom files: whatever the bytes are, each entry is legal or has a reason, and
/// what is written for it reads back the same.
#include <cstddef>
#include <cstdint>
#include <string>

#include "src/model/problem.hpp"
#include "src/schedule/check.hpp"
#include "src/tune/wisdom_check.hpp"
#include "src/tune/wisdom_json.hpp"
#include "tests/fuzz/targets.hpp"

namespace deepcpu::fuzz {
namespace {

void check_legal(const WisdomItem& item) {
  const WisdomEntry& e = *item.entry;
  require(check_schedule(e.schedule).ok(), "a schedule that is taken is legal");
  require(e.schedule.threads <= e.key.threads, "no more threads than allowed");
  require(item.id == e.key.id(), "the id is that of the key");
  const auto again = parse_wisdom(wisdom_text({to_item(e)}));
  require(again.ok() && again->size() == 1, "what is written is a file");
  const WisdomItem& back = again->front();
  require(back.entry.has_value() && back.id == item.id, "what is written is taken");
  require(back.entry->schedule == e.schedule, "the schedule reads back the same");
  require(back.text == to_item(*back.entry).text, "what is written is canonical");
  if (!item.lowered) return;
  // A class of batches is legal as a whole.
  const auto shape = parse_shape(e.key.problem);
  require(shape.ok(), "the problem reads back");
  auto cell = resolve_cell(shape->cell, shape->spec.options, shape->spec.projection != 0);
  require(cell.ok(), "the cell is known");
  ModelSpec spec = shape->spec;
  spec.cell = cell->cell;
  spec.batch = e.key.batch.high;
  require(check_lowering(spec, e.schedule).ok(), "lowering accepts the largest batch too");
}

}  // namespace

void wisdom(std::string_view bytes) {
  const auto items = parse_wisdom(bytes);
  if (!items.ok()) {
    require(!items.error().message().empty(), "an error has a sentence");
    return;
  }
  for (const WisdomItem& item : *items) {
    require(item.entry.has_value() == item.refused.empty(), "taken, or refused with a reason");
    if (item.entry) check_legal(item);
  }
  const auto again = parse_wisdom(wisdom_text(*items));
  require(again.ok() && again->size() == items->size(), "a file rewritten has its entries");
  for (std::size_t i = 0; i < items->size(); ++i) {
    require((*again)[i].text == (*items)[i].text, "an entry keeps its bytes");
    require((*again)[i].refused == (*items)[i].refused, "an entry keeps its verdict");
  }
}

}  // namespace deepcpu::fuzz

#ifdef DEEPCPU_FUZZER
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  deepcpu::fuzz::wisdom({reinterpret_cast<const char*>(data), size});
  return 0;
}
#endif
