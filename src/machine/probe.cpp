// SPDX-License-Identifier: Apache-2.0
#include "src/machine/probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "src/guard_memory.hpp"

namespace deepcpu {
namespace {

/// Work per second of the best round. `run(passes)` does `passes` times `work`.
double best_rate(double work, Effort effort, const std::function<void(std::uint64_t)>& run) {
  constexpr std::uint64_t kMostPasses = std::uint64_t{1} << 40;
  const auto timed = [&](std::uint64_t passes) {
    const double begin = steady_seconds();
    run(passes);
    return steady_seconds() - begin;
  };
  std::uint64_t passes = 2;  // even, so that an alternating walk ends where it began
  double seconds = timed(passes);
  while (seconds < effort.seconds && passes < kMostPasses) {
    passes *= 2;
    seconds = timed(passes);
  }
  double best = seconds;
  for (int round = 1; round < effort.rounds; ++round) best = std::min(best, timed(passes));
  return best > 0.0 ? work * static_cast<double>(passes) / best : 0.0;
}

}  // namespace

double steady_seconds() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Result<ProbeBuffer> ProbeBuffer::make(std::size_t bytes) {
  if (bytes == 0) return Error("probe buffer bytes=0: must be at least 1");
  return guard_memory("make a probe buffer",
                      [&]() -> Result<ProbeBuffer> { return ProbeBuffer(bytes); });
}

Result<Probe> Probe::make(Isa isa) {
  std::vector<jit::RateKernel> loops;
  for (const jit::RateKind kind : jit::kRateKinds) {
    Result<jit::RateKernel> loop = jit::RateKernel::make(kind, isa);
    if (!loop.ok()) return loop.error();
    loops.push_back(std::move(*loop));
  }
  return Probe(isa, std::move(loops));
}

void Probe::run(jit::RateKind kind, jit::RateArgs args) const noexcept {
  alignas(64) float sums[16];
  args.sums = sums;
  loops_[static_cast<std::size_t>(kind)].run(args);
}

jit::RateArgs Probe::stream(const ProbeBuffer& buffer, std::size_t offset, std::size_t bytes,
                            Walk walk, std::size_t stride) const noexcept {
  const std::size_t block = jit::rate_block_bytes(isa_) * stride;
  const std::size_t room = buffer.bytes() - std::min(offset, buffer.bytes() - block);
  const std::size_t all = std::max<std::size_t>(1, std::min(bytes, room) / block);
  jit::RateArgs args{};
  args.first = buffer.data() + (buffer.bytes() - room);
  args.blocks = walk.alternating ? std::clamp<std::size_t>(walk.group / block, 1, all) : all;
  args.groups = all / args.blocks;
  args.stride = static_cast<std::int64_t>(args.blocks * block);
  args.alternate = walk.alternating ? 1 : 0;
  args.a = 1.0F;
  args.b = 1.0F;
  return args;
}

double Probe::clock_hz(Effort effort) const {
  constexpr std::uint64_t kBlocks = 64;
  return best_rate(static_cast<double>(jit::kRateVectors * kBlocks), effort,
                   [&](std::uint64_t passes) {
                     jit::RateArgs args{};
                     args.groups = 1;
                     args.blocks = kBlocks;
                     args.passes = passes;
                     run(jit::RateKind::add_chain, args);
                   });
}

double Probe::fma_flops(Effort effort) const {
  constexpr std::uint64_t kBlocks = 64;
  const double flops =
      2.0 * static_cast<double>(lanes(isa_)) * static_cast<double>(jit::kRateVectors * kBlocks);
  return best_rate(flops, effort, [&](std::uint64_t passes) {
    jit::RateArgs args{};
    args.groups = 1;
    args.blocks = kBlocks;
    args.passes = passes;
    args.a = 1.0F;
    args.b = 1.0F;
    run(jit::RateKind::fma_registers, args);
  });
}

double Probe::read_rate(jit::RateKind kind, const ProbeBuffer& buffer, std::size_t bytes, Walk walk,
                        Effort effort) const {
  jit::RateArgs args = stream(buffer, 0, bytes, walk);
  const double pass = static_cast<double>(args.groups * args.blocks * jit::rate_block_bytes(isa_));
  return best_rate(pass, effort, [&](std::uint64_t passes) {
    args.passes = passes;
    run(kind, args);
  });
}

double Probe::rate_between(jit::RateKind kind, const ProbeBuffer& buffer, std::size_t offset,
                           std::size_t bytes, double start, double seconds) const {
  jit::RateArgs args = stream(buffer, offset, bytes, {}, jit::rate_stride(kind));
  const auto blocks = static_cast<double>(args.groups * args.blocks);
  const double pass = blocks * (kind == jit::RateKind::fma_registers
                                    ? 2.0 * static_cast<double>(lanes(isa_)) *
                                          static_cast<double>(jit::kRateVectors)
                                    : static_cast<double>(jit::rate_block_bytes(isa_)));
  // Microseconds of work between two looks at the clock, so that looking costs nothing.
  constexpr double kWorkPerLook = 2e6;
  args.passes = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(kWorkPerLook / pass));
  run(kind, args);
  double now = steady_seconds();
  while (now < start) now = steady_seconds();
  const double begin = now;
  double done = 0.0;
  while (now - begin < seconds) {
    run(kind, args);
    done += pass * static_cast<double>(args.passes);
    now = steady_seconds();
  }
  return now > begin ? done / (now - begin) : 0.0;
}

double Probe::stream_rate(const ProbeBuffer& buffer, std::size_t offset, std::size_t bytes,
                          Walk walk, double seconds) const {
  jit::RateArgs args = stream(buffer, offset, bytes, walk);
  const double pass = static_cast<double>(args.groups * args.blocks * jit::rate_block_bytes(isa_));
  args.passes = 2;  // even, so that an alternating walk ends where it began
  double begin = steady_seconds();
  run(jit::RateKind::fma_memory, args);
  const double warm = std::max(steady_seconds() - begin, 1e-9);
  args.passes =
      2 * std::clamp<std::uint64_t>(static_cast<std::uint64_t>(seconds / warm), 1, 1 << 20);
  begin = steady_seconds();
  run(jit::RateKind::fma_memory, args);
  const double took = steady_seconds() - begin;
  return took > 0.0 ? pass * static_cast<double>(args.passes) / took : 0.0;
}

}  // namespace deepcpu
