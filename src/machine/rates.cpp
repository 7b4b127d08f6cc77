// SPDX-License-Identifier: Apache-2.0
#include "src/machine/rates.hpp"

#include <fmt/format.h>

#include "src/machine/probe.hpp"

namespace deepcpu {

Result<Rates> measure_rates(const Machine& machine, Isa isa) {
  if (isa > machine.isa) {
    return Error(
        fmt::format("isa={}: the machine has at most {}", to_string(isa), to_string(machine.isa)));
  }
  const Result<Probe> probe = Probe::make(isa);
  if (!probe.ok()) return probe.error();
  // Half a level leaves room for the stack, for what the system keeps there, and for a cache that
  // does not map every page evenly.
  const std::size_t in_l1 = machine.l1d.bytes / 2;
  const std::size_t in_l2 = machine.l2.bytes / 2;
  const Result<ProbeBuffer> buffer = ProbeBuffer::make(in_l1 > in_l2 ? in_l1 : in_l2);
  if (!buffer.ok()) return buffer.error();

  Rates rates;
  rates.isa = isa;
  rates.clock_ghz = probe->clock_hz() * 1e-9;
  rates.fma_gflops = probe->fma_flops() * 1e-9;
  const auto read = [&](std::size_t bytes) {
    return probe->read_rate(jit::RateKind::fma_memory, *buffer, bytes) * 1e-9;
  };
  rates.l1_gbytes_per_s = read(in_l1);
  rates.l2_gbytes_per_s = read(in_l2);
  return rates;
}

std::string to_text(const Rates& rates) {
  return fmt::format(
      "rates of one core, {}\n"
      "  clock              {:8.2f} GHz\n"
      "  FMA, registers     {:8.1f} GFLOP/s\n"
      "  FMA, read from L1  {:8.1f} GB/s\n"
      "  FMA, read from L2  {:8.1f} GB/s\n",
      to_string(rates.isa), rates.clock_ghz, rates.fma_gflops, rates.l1_gbytes_per_s,
      rates.l2_gbytes_per_s);
}

}  // namespace deepcpu
