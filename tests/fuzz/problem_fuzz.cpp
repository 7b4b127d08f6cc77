// SPDX-License-Identifier: Apache-2.0
/// The reader of problem strings: an error with a sentence, or a valid spec whose string reads back
/// as the same spec.
#include <cstddef>
#include <cstdint>
#include <string>

#include "src/model/problem.hpp"
#include "tests/fuzz/targets.hpp"

namespace deepcpu::fuzz {
namespace {

void check_shape(std::string_view bytes) {
  const auto shape = parse_shape(bytes);
  if (!shape.ok()) {
    require(!shape.error().message().empty(), "an error has a sentence");
    require(!ModelSpec::parse(bytes).ok(), "a problem has a shape");
    return;
  }
  const std::string text = shape_text(shape->cell, shape->spec);
  const auto again = parse_shape(text);
  require(again.ok(), "a shape reads back");
  require(shape_text(again->cell, again->spec) == text, "a shape reads back the same");
  require(!again->has_batch && !again->has_steps, "a shape has neither batch nor steps");
}

}  // namespace

void problem(std::string_view bytes) {
  check_shape(bytes);
  const auto spec = ModelSpec::parse(bytes);
  if (!spec.ok()) {
    require(!spec.error().message().empty(), "an error has a sentence");
    return;
  }
  require(spec->validate().ok(), "what is parsed is valid");
  const auto again = ModelSpec::parse(spec->str());
  require(again.ok(), "a canonical problem string is one");
  require(again->str() == spec->str(), "a canonical problem string reads back the same");
  require(again->hidden == spec->hidden && again->options == spec->options, "sizes and options");
  require(again->cell.to_text() == spec->cell.to_text(), "the same cell");
}

}  // namespace deepcpu::fuzz

#ifdef DEEPCPU_FUZZER
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  deepcpu::fuzz::problem({reinterpret_cast<const char*>(data), size});
  return 0;
}
#endif
