// SPDX-License-Identifier: Apache-2.0
/// The words of the enumerations of a Schedule, as its JSON spells them.
#pragma once

#include <array>
#include <string_view>

#include "deepcpu/schedule.hpp"

namespace deepcpu {

template <class E>
struct Word {
  E value;
  std::string_view text;
};

template <class E>
inline constexpr std::array<Word<E>, 0> kWords{};

template <>
inline constexpr std::array kWords<Isa> = {
    Word<Isa>{Isa::interpreter, "interpreter"},
    Word<Isa>{Isa::avx2, "avx2"},
    Word<Isa>{Isa::avx512, "avx512"},
};
template <>
inline constexpr std::array kWords<Sweep> = {
    Word<Sweep>{Sweep::forward, "forward"},
    Word<Sweep>{Sweep::alternating, "alternating"},
};
template <>
inline constexpr std::array kWords<Residency> = {
    Word<Residency>{Residency::streamed, "streamed"},
    Word<Residency>{Residency::registers, "registers"},
};
template <>
inline constexpr std::array kWords<Panel> = {
    Word<Panel>{Panel::narrow, "narrow"},
    Word<Panel>{Panel::wide, "wide"},
};
template <>
inline constexpr std::array kWords<Parallel> = {
    Word<Parallel>{Parallel::none, "none"},
    Word<Parallel>{Parallel::directions, "directions"},
    Word<Parallel>{Parallel::wavefront, "wavefront"},
    Word<Parallel>{Parallel::gates, "gates"},
    Word<Parallel>{Parallel::hoist, "hoist"},
};
template <>
inline constexpr std::array kWords<Exchange> = {
    Word<Exchange>{Exchange::flag, "flag"},
    Word<Exchange>{Exchange::data, "data"},
};
template <>
inline constexpr std::array kWords<Order> = {
    Word<Order>{Order::exact, "exact"},
    Word<Order>{Order::free, "free"},
};
template <>
inline constexpr std::array kWords<Start> = {
    Word<Start>{Start::zero, "zero"},
    Word<Start>{Start::own, "own"},
};
template <>
inline constexpr std::array kWords<Phases> = {
    Word<Phases>{Phases::levels, "levels"},
    Word<Phases>{Phases::separate, "separate"},
};

/// The word of a value; "?" for a value that the enumeration does not have.
template <class E>
constexpr std::string_view word(E value) noexcept {
  for (const auto& row : kWords<E>) {
    if (row.value == value) return row.text;
  }
  return "?";
}

}  // namespace deepcpu
