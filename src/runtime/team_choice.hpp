// SPDX-License-Identifier: Apache-2.0
/// TeamChoice: what the threads of a run share, by what runs have taken.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace deepcpu {

/// A cache line travels between two cores in 47 ns or, on the same virtual machine and for minutes
/// at a time, in 240, and helpers that are parked have to be woken; no prediction knows. So runs of
/// like numbers of steps are timed: most go the way that was fastest last, and now and then some go
/// the other ways, so that a change is seen. Not thread-safe; takes no memory.
class TeamChoice {
 public:
  enum class Way : std::uint8_t {
    team,   ///< as the schedule says
    hoist,  ///< the time loop on one thread, hoisted products on all (Parallel::hoist)
    alone,  ///< on one thread
  };

  // These figures are chosen; tests/unit/team_choice_test.cpp bounds what they cost.

  /// Before the first trials, and after others, so many runs go the usual way; after twice as many
  /// each time that nothing came of it. So trials are at most a fiftieth of the runs, but of the
  /// first hundred.
  static constexpr std::uint32_t kFirst = 32;
  static constexpr std::uint32_t kPeriod = 512;
  static constexpr std::uint32_t kLongest = 4096;
  /// Trials begin early, after at least so many runs, if runs take so many times as long as when
  /// there were trials last.
  static constexpr std::uint32_t kLeast = 64;
  static constexpr double kSlower = 1.25;
  /// Runs each other way, and then as many the usual way to compare them with: the least of each.
  /// The first of each finds caches that hold something else, and does not count.
  static constexpr std::uint32_t kTrials = 3;
  /// Another way is taken from then on if it takes less than this part of the time.
  static constexpr double kBetter = 0.95;

  /// Which runs may go other ways than the team's, in steps, and as many as have as many binary
  /// digits.
  struct Range {
    std::int64_t most_alone = 0;   ///< 0 = none
    std::int64_t least_hoist = 0;  ///< 0 = none
  };

  TeamChoice() = default;
  explicit TeamChoice(Range range) : range_(range) {}

  /// How the next run goes, which has so many steps. One whose rows have lengths of their own
  /// (`ragged`) takes a time that says nothing about others: it goes the usual way, or on the team.
  /// One without steps goes as the run before it.
  Way next(std::int64_t steps, bool ragged) noexcept;
  /// What that run took, in any unit.
  void took(double time) noexcept;

 private:
  static constexpr std::size_t kWays = 3;

  /// Runs whose numbers of steps have as many binary digits.
  struct Class {
    Way way = Way::team;
    double usual = 0.0;                 ///< time of a step the usual way, a mean of late runs
    double before = 0.0;                ///< the same after the last trials; 0: none yet
    std::array<double, kWays> least{};  ///< of the trials
    std::array<Way, kWays> tried{};     ///< the ways of the trials under way, the usual one last
    std::size_t ways = 0;               ///< in `tried`; 0: there are no trials under way
    std::uint32_t trial = 0;            ///< number of the next of them
    std::uint32_t period = kPeriod;
    std::uint32_t since = 0;  ///< runs since the last trials
  };

  Class& current() noexcept;
  bool allows(Way way) const noexcept;
  void begin_trials(Class& c) const noexcept;
  static bool due(const Class& c) noexcept;
  static void learn(Class& c, double time) noexcept;
  static void compare(Class& c, double time) noexcept;
  static void conclude(Class& c) noexcept;

  std::array<Class, 65> classes_{};
  Range range_;
  std::uint64_t steps_ = 0;  ///< of the run that next() was asked for
  bool counts_ = false;      ///< whether its time is of use
  Way last_ = Way::team;     ///< how it went
};

}  // namespace deepcpu
