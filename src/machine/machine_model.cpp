// SPDX-License-Identifier: Apache-2.0
/// Lookups of a model, and the model from a calibration.
#include "src/machine/machine_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace deepcpu {
namespace {

/// What is shared saturates: between two cores and all of them each has the rate of two, or its
/// part of what all get together. What is private changes with the clock, here in a straight line.
double at(const CoreRates& rates, int active, int cores, bool shared) {
  if (active <= 1) return rates.one;
  const double part = rates.all * cores / active;
  if (active >= cores) return shared ? part : rates.all;
  if (active == 2) return rates.two;
  if (shared) return std::max(rates.all, std::min(rates.two, part));
  return rates.two + (rates.all - rates.two) * (active - 2) / (cores - 2);
}

std::string bytes_text(std::uint64_t bytes) {
  return bytes == LevelModel::kUnlimited ? "-" : fmt::format("{}", bytes >> 10);
}

}  // namespace

MachineModel MachineModel::from(const Calibration& c) {
  MachineModel model;
  model.key = machine_key(c.machine);
  if (c.seconds > 0.0) {
    model.source = ModelSource::calibration;
    model.note = fmt::format("measured in {:.1f} s by version {}", c.seconds, c.version);
  } else {
    model.source = ModelSource::description;
    model.note = "described; nothing was measured";
  }
  model.clock_ghz = c.clock_ghz;
  model.cores = c.cores;
  model.exchange_ns = c.latency_ns;
  model.wake_us = c.wake_us;
  for (const IsaRates& rates : c.isas) {
    IsaModel isa{rates.isa, rates.fma_gflops, rates.overlap, rates.strided, {}};
    for (std::size_t i = 0; i < c.levels.size(); ++i) {
      const LevelCapacity& l = c.levels[i];
      const bool memory = i + 1 == c.levels.size();
      isa.levels.push_back(
          {l.name, rates.read_gbytes_per_s[i], memory ? LevelModel::kUnlimited : l.forward_bytes,
           memory ? LevelModel::kUnlimited : l.alternating_bytes, l.shared_by, l.measured});
    }
    model.isas.push_back(std::move(isa));
  }
  return model;
}

std::string_view to_string(ModelSource source) noexcept {
  constexpr std::string_view kNames[] = {"estimate", "calibration", "description"};
  return kNames[static_cast<std::size_t>(source)];
}

const IsaModel& MachineModel::of(Isa isa) const noexcept {
  const auto above = std::find_if(isas.begin(), isas.end(),
                                  [isa](const IsaModel& entry) { return entry.isa > isa; });
  return above == isas.begin() ? *above : *std::prev(above);
}

double MachineModel::fma_gflops(Isa isa, int active) const noexcept {
  return at(of(isa).fma_gflops, active, cores, false);
}

double MachineModel::fma_seconds(Isa isa, int active) const noexcept {
  return 2e-9 * deepcpu::lanes(isa) / fma_gflops(isa, active);
}

double MachineModel::gbytes_per_s(Isa isa, std::size_t level, int active) const noexcept {
  const LevelModel& l = of(isa).levels[level];
  return at(l.gbytes_per_s, active, cores, l.shared_by > 1);
}

std::uint64_t MachineModel::usable_bytes(Isa isa, std::size_t level, bool alternating,
                                         int active) const noexcept {
  const LevelModel& l = of(isa).levels[level];
  const std::uint64_t bytes = alternating ? l.alternating_bytes : l.forward_bytes;
  if (bytes == LevelModel::kUnlimited) return bytes;
  const auto users = static_cast<std::uint32_t>(std::max(active, 1));
  return bytes / std::max(1U, std::min(users, l.shared_by));
}

std::string to_text(const MachineModel& model) {
  std::string out;
  const auto add = std::back_inserter(out);
  fmt::format_to(add, "model of {}\n  {}: {}\n  {} core{}, {:.2f} GHz", model.key,
                 to_string(model.source), model.note, model.cores, model.cores == 1 ? "" : "s",
                 model.clock_ghz);
  fmt::format_to(add, ", exchange {:.0f} ns one way\n", model.exchange_ns);
  if (model.cores > 1) {
    fmt::format_to(
        add, "  a run on several threads whose helpers are parked takes about {:.0f} us more\n",
        model.wake_us);
  }
  fmt::format_to(add, "\n  {:<20}{:>32}{:>26}{:>10}\n", "per core", "with 1 / 2 / all cores active",
                 "usable KiB forward / alt.", "shared by");
  const auto row = [&](const std::string& name, const CoreRates& r, const std::string& rest) {
    fmt::format_to(add, "  {:<20}{:>14.1f}{:>9.1f}{:>9.1f}{}\n", name, r.one, r.two, r.all, rest);
  };
  for (const IsaModel& isa : model.isas) {
    row(fmt::format("{} FMA GFLOP/s", to_string(isa.isa)), isa.fma_gflops,
        fmt::format("   overlap {:.2f}, strided {:.2f}", isa.overlap, isa.strided));
    for (const LevelModel& l : isa.levels) {
      row(fmt::format("  {} GB/s", l.name), l.gbytes_per_s,
          fmt::format("{:>14}{:>12}{:>10}{}", bytes_text(l.forward_bytes),
                      bytes_text(l.alternating_bytes), l.shared_by,
                      l.measured || l.forward_bytes == LevelModel::kUnlimited ? "" : "  (stated)"));
    }
  }
  return out;
}

}  // namespace deepcpu
