// SPDX-License-Identifier: Apache-2.0
/// TeamChoice: whether a run takes several threads or one, by what runs have taken.
#pragma once

#include <array>
#include <cstdint>

namespace deepcpu {

/// A cache line travels between two cores in 47 ns or, on the same virtual machine and for minutes
/// at a time, in 240, and helpers that are parked have to be woken; no prediction knows. So runs of
/// like numbers of steps are timed: most go the way that was faster last, and now and then some go
/// the other way, so that a change is seen. Not thread-safe; takes no memory.
class TeamChoice {
 public:
  enum class Way : std::uint8_t { team, alone };

  /// After so many runs a few go the other way, few enough that they are not the slowest hundredth;
  /// after twice as many each time that nothing came of it.
  static constexpr std::uint32_t kPeriod = 512;
  static constexpr std::uint32_t kLongest = 4096;
  /// Before the first of these.
  static constexpr std::uint32_t kFirst = 8;
  /// At once, if runs take so many times as long as when they went the other way last.
  static constexpr double kSlower = 1.25;
  /// The first of them finds caches that hold something else, and does not count.
  static constexpr std::uint32_t kTrials = 3;
  /// The other way is taken from then on if it takes less than this part of the time.
  static constexpr double kBetter = 0.95;

  /// How the next run goes, which has so many steps. One whose rows have lengths of their own
  /// (`ragged`) takes a time that says nothing about others: it goes the usual way.
  Way next(std::int64_t steps, bool ragged) noexcept;
  /// What that run took, in any unit.
  void took(double time) noexcept;

 private:
  /// Runs whose numbers of steps have as many binary digits.
  struct Class {
    Way way = Way::team;
    double usual = 0.0;   ///< time of a step the usual way; 0: no run yet
    double before = 0.0;  ///< the same when there were trials; 0: none yet
    double other = 0.0;   ///< the least of the trials
    std::uint32_t period = kPeriod;
    std::uint32_t left = kFirst;  ///< runs before the next trials
    std::uint32_t trials = 0;     ///< left of those under way
  };

  Class& current() noexcept;
  static void learn(Class& c, double time) noexcept;
  static void compare(Class& c, double time) noexcept;

  std::array<Class, 65> classes_{};
  std::uint64_t steps_ = 0;  ///< of the run that next() was asked for
  bool counts_ = false;      ///< whether its time is of use
};

}  // namespace deepcpu
