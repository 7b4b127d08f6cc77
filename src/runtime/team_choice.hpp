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

  // These figures are chosen; tests/unit/team_choice_test.cpp bounds what they cost.

  /// Before the first trials, and after others, so many runs go the usual way; after twice as many
  /// each time that nothing came of it. So trials are less than a hundredth of the runs, but of the
  /// first hundred.
  static constexpr std::uint32_t kFirst = 32;
  static constexpr std::uint32_t kPeriod = 512;
  static constexpr std::uint32_t kLongest = 4096;
  /// Trials begin early, after at least so many runs, if runs take so many times as long as when
  /// there were trials last.
  static constexpr std::uint32_t kLeast = 64;
  static constexpr double kSlower = 1.25;
  /// Runs the other way, and then as many the usual way to compare them with: the least of each.
  /// The first of either finds caches that hold something else, and does not count.
  static constexpr std::uint32_t kTrials = 3;
  /// The other way is taken from then on if it takes less than this part of the time.
  static constexpr double kBetter = 0.95;

  /// `most_steps`: longer runs go on the team.
  explicit TeamChoice(std::int64_t most_steps = 0) : most_steps_(most_steps) {}

  /// How the next run goes, which has so many steps. One whose rows have lengths of their own
  /// (`ragged`) takes a time that says nothing about others: it goes the usual way. One without
  /// steps goes as the run before it.
  Way next(std::int64_t steps, bool ragged) noexcept;
  /// What that run took, in any unit.
  void took(double time) noexcept;

 private:
  /// Runs whose numbers of steps have as many binary digits.
  struct Class {
    Way way = Way::team;
    double usual = 0.0;            ///< time of a step the usual way, a mean of late runs
    double before = 0.0;           ///< the same after the last trials; 0: none yet
    double least[2] = {0.0, 0.0};  ///< of the trials: the usual way, the other way
    std::uint32_t period = kPeriod;
    std::uint32_t since = 0;   ///< runs since the last trials
    std::uint32_t trials = 0;  ///< left of those under way, first the other way
  };

  Class& current() noexcept;
  static bool due(const Class& c) noexcept;
  static void learn(Class& c, double time) noexcept;
  static void compare(Class& c, double time) noexcept;
  static void conclude(Class& c) noexcept;

  std::array<Class, 65> classes_{};
  std::int64_t most_steps_ = 0;
  std::uint64_t steps_ = 0;  ///< of the run that next() was asked for
  bool counts_ = false;      ///< whether its time is of use
  Way last_ = Way::team;     ///< how it went
};

}  // namespace deepcpu
