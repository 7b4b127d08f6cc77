// SPDX-License-Identifier: Apache-2.0
/// The rules of a Schedule by itself, and the names of the instruction sets.
#include "deepcpu/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "src/guard_memory.hpp"
#include "src/io/quote.hpp"
#include "src/schedule/check.hpp"
#include "src/schedule/names.hpp"

namespace deepcpu {
namespace {

/// Largest model, in layers.
constexpr std::size_t kMostLayers = 1024;

/// A decision that a schedule can express and no code is emitted for. The whole list.
struct NotEmitted {
  std::string_view field;
  /// The value as the schedule spells it, or nothing if the schedule decides otherwise.
  std::string (*refused)(const Schedule&);
};

template <auto member, auto value>
std::string if_equal(const Schedule& schedule) {
  return schedule.*member == value ? std::string(word(value)) : std::string();
}

template <auto member>
std::string if_divided(const Schedule& schedule) {
  return schedule.*member > 1 ? std::to_string(schedule.*member) : std::string();
}

template <auto member, auto value>
std::string if_any_layer(const Schedule& schedule) {
  const bool any = std::any_of(schedule.layers.begin(), schedule.layers.end(),
                               [](const LayerSchedule& l) { return l.*member == value; });
  return any ? std::string(word(value)) : std::string();
}

constexpr std::array kNotEmitted = {
    NotEmitted{"order", if_equal<&Schedule::order, Order::free>},
    NotEmitted{"parallel", if_equal<&Schedule::parallel, Parallel::gates>},
    NotEmitted{"start", if_equal<&Schedule::start, Start::own>},
    NotEmitted{"split_k", if_divided<&Schedule::split_k>},
    NotEmitted{"phases", if_any_layer<&LayerSchedule::phases, Phases::separate>},
};

/// Whole numbers of a layer and their ranges. A register tile keeps one pointer per row in a
/// general register, of which six are free.
struct LayerRange {
  std::string_view field;
  int LayerSchedule::*value;
  int low;
  int high;
};
constexpr std::array kLayerRanges = {
    LayerRange{"hoist_block", &LayerSchedule::hoist_block, 0, 1 << 20},
    LayerRange{"tile_rows", &LayerSchedule::tile_rows, 1, 6},
    LayerRange{"hoist_rows", &LayerSchedule::hoist_rows, 1, 6},
    LayerRange{"group", &LayerSchedule::group, 1, 1 << 20},
    LayerRange{"fetch_lines", &LayerSchedule::fetch_lines, 0, 16},
};

Status check_range(std::string_view field, int value, int low, int high) {
  if (value >= low && value <= high) return {};
  return Error(fmt::format("{}={}: must be between {} and {}", field, value, low, high));
}

template <class E>
Status check_word(std::string_view field, E value) {
  if (word(value) != "?") return {};
  return Error(fmt::format("{}={}: is not a legal value", field, static_cast<int>(value)));
}

Status check_layer(const LayerSchedule& layer, std::size_t index) {
  const std::string prefix = fmt::format("layers[{}].", index);
  for (const auto& range : kLayerRanges) {
    auto status =
        check_range(prefix + std::string(range.field), layer.*range.value, range.low, range.high);
    if (!status) return status;
  }
  if (auto status = check_word(prefix + "panel", layer.panel); !status) return status;
  if (auto status = check_word(prefix + "sweep", layer.sweep); !status) return status;
  if (auto status = check_word(prefix + "weights", layer.weights); !status) return status;
  return check_word(prefix + "phases", layer.phases);
}

}  // namespace

std::string_view to_string(Isa isa) noexcept { return word(isa); }

Result<Isa> parse_isa(std::string_view text) {
  for (const auto& row : kWords<Isa>) {
    if (row.text == text) return row.value;
  }
  return guard_memory("say what is wrong with the ISA", [&]() -> Result<Isa> {
    return Error(fmt::format("isa={}: must be one of interpreter, avx2, avx512", quote(text)));
  });
}

int lanes(Isa isa) noexcept { return isa == Isa::avx2 ? 8 : 16; }

Status check_schedule(const Schedule& schedule) {
  if (auto status = check_word("isa", schedule.isa); !status) return status;
  if (auto status = check_range("threads", schedule.threads, 1, 1024); !status) return status;
  if (auto status = check_word("parallel", schedule.parallel); !status) return status;
  if (auto status = check_word("exchange", schedule.exchange); !status) return status;
  if (auto status = check_word("order", schedule.order); !status) return status;
  if (auto status = check_word("start", schedule.start); !status) return status;
  for (const auto& [field, parts] :
       {std::pair{"split_rows", schedule.split_rows}, std::pair{"split_k", schedule.split_k}}) {
    if (auto status = check_range(field, parts, 1, schedule.threads); !status) return status;
  }
  if (schedule.layers.empty() || schedule.layers.size() > kMostLayers) {
    return Error(fmt::format("layers: has {} entries: must have between 1 and {}",
                             schedule.layers.size(), kMostLayers));
  }
  for (std::size_t i = 0; i < schedule.layers.size(); ++i) {
    if (auto status = check_layer(schedule.layers[i], i); !status) return status;
  }
  for (const auto& row : kNotEmitted) {
    const std::string value = row.refused(schedule);
    if (!value.empty()) return Error(fmt::format("{}={}: is not emitted yet", row.field, value));
  }
  return {};
}

Status check_schedule(const Schedule& schedule, std::size_t layers) {
  if (auto status = check_schedule(schedule); !status) return status;
  if (schedule.layers.size() != layers) {
    return Error(fmt::format("layers: has {} entries: must have {}, one per layer of the model",
                             schedule.layers.size(), layers));
  }
  for (std::size_t i = 0; i < layers; ++i) {
    if (schedule.layers[i].weights == Residency::registers && schedule.threads > 1) {
      return Error(fmt::format("layers[{}].weights=registers: needs threads=1", i));
    }
  }
  return {};
}

}  // namespace deepcpu
