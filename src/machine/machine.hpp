// SPDX-License-Identifier: Apache-2.0
/// What the machine is: identity, instruction sets, caches, the processors this process may use.
/// How fast it is stands in rates.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepcpu/schedule.hpp"

namespace deepcpu {

/// One level of data or unified cache, as the CPU or the kernel describes it. What one core gets
/// of a shared level can be far less; that is measured, never read from here.
struct Cache {
  std::uint64_t bytes = 0;      ///< of one instance; 0 = there is none or it is unknown
  std::uint32_t line = 64;      ///< bytes
  std::uint32_t shared_by = 1;  ///< logical processors that share one instance
  bool operator==(const Cache&) const = default;
};

/// A machine: this one (machine()) or one that a file describes (machine_json.hpp).
struct Machine {
  std::string vendor;  ///< as CPUID spells it: GenuineIntel, AuthenticAMD
  std::string model_name;
  std::uint32_t family = 0;
  std::uint32_t model = 0;
  std::uint32_t stepping = 0;
  /// Instruction sets that the CPU has and the operating system saves the registers of, in the
  /// order of a fixed table: avx, avx2, fma, avx512f ...
  std::vector<std::string> features;
  Isa isa = Isa::interpreter;  ///< the best that `features` allow; no environment variable counts
  Cache l1d;
  Cache l2;
  Cache l3;
  std::vector<int> cpus;   ///< logical processors that this process may run on, ascending
  double cpu_quota = 0.0;  ///< processors' worth of time that the cgroup grants; 0 = no limit
  double tsc_hz = 0.0;     ///< rate of the time stamp counter by CPUID; 0 = not stated
  bool hypervisor = false;
  std::vector<std::string> notes;  ///< what could not be found out and what is assumed instead
};

/// This machine, found out at the first call (under a millisecond) and the same ever after, also
/// when the process's affinity changes later: affinity() of system.hpp follows that. Thread-safe.
const Machine& machine();

/// For tests: while it lives, machine() is `machine`, which outlives it. One at a time, made and
/// ended while no other thread uses the library.
class PretendMachine {
 public:
  explicit PretendMachine(const Machine& machine);
  ~PretendMachine();
  PretendMachine(const PretendMachine&) = delete;
  PretendMachine& operator=(const PretendMachine&) = delete;
};

/// Format version of machine_key and of machine descriptions.
inline constexpr int kMachineFormat = 1;

/// Under which calibrations and schedules are kept: `v1:vendor:family:model:stepping:isa set:
/// l1d=bytes:l2=bytes`. Clock, quota and number of processors do not take part.
std::string machine_key(const Machine& machine);

/// One sentence if the ISA in use needs an explanation, else empty: DEEPCPU_MAX_ISA holds an
/// unknown word (which is ignored), or the CPU lacks AVX2 with FMA. Reads the environment at every
/// call, as host_isa() does.
std::string isa_note();

/// The machine as a few lines of text for people, ending in a newline.
std::string to_text(const Machine& machine);

}  // namespace deepcpu
