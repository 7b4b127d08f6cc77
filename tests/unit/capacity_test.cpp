// SPDX-License-Identifier: Apache-2.0
/// Capacities from rates: of made-up caches whose size is known, and of tables measured elsewhere.
#include "src/machine/capacity.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "src/machine/thread_probe.hpp"
#include "tests/catch.hpp"

namespace deepcpu {
namespace {

constexpr double kKiB = 1024.0;

/// Rate of a stream of which a part comes at `inner` and the rest at `outer`.
double mixed(double part, double inner, double outer) {
  return 1.0 / (part / inner + (1.0 - part) / outer);
}

/// Forward through a cache of `size`: served whole up to 3/4 of it, not at all from 3/2 on.
std::vector<StreamRate> forward_curve(double size, double inner, double outer, double noise) {
  std::vector<StreamRate> curve;
  double sign = 1.0;
  for (double bytes = size / 4; bytes < size * 5; bytes *= std::pow(2.0, 0.25)) {
    const double part = std::min(1.0, std::max(0.0, (1.5 - bytes / size) / 0.75));
    curve.push_back({bytes, mixed(part, inner, outer) * (1.0 + sign * noise)});
    sign = -sign;
  }
  return curve;
}

TEST_CASE("capacity: the served part from the rate") {
  CHECK(served_part(100.0, 100.0, 10.0) == Approx(1.0));
  CHECK(served_part(10.0, 100.0, 10.0) == Approx(0.0));
  CHECK(served_part(mixed(0.3, 100.0, 10.0), 100.0, 10.0) == Approx(0.3));
  CHECK(served_part(120.0, 100.0, 10.0) == 1.0);
  CHECK(served_part(9.0, 100.0, 10.0) == 0.0);
  CHECK(served_part(0.0, 100.0, 10.0) == 0.0);
  CHECK(served_part(50.0, 10.0, 10.0) == 0.0);
}

TEST_CASE("capacity: forward edge of caches whose size is known") {
  for (const double size : {32 * kKiB, 1024 * kKiB, 32768 * kKiB}) {
    for (const double noise : {0.0, 0.02, 0.05}) {
      const auto found = forward_capacity(forward_curve(size, 200.0, 30.0, noise), 200.0, 30.0);
      REQUIRE(found.has_value());
      INFO(size << " " << noise);
      CHECK(*found == Approx(1.125 * size).epsilon(0.08));  // the served part is one half there
    }
  }
}

TEST_CASE("capacity: a single wrong point does not move the edge") {
  std::vector<StreamRate> curve = forward_curve(1024 * kKiB, 200.0, 30.0, 0.0);
  const double before = forward_capacity(curve, 200.0, 30.0).value();
  curve[2].rate = 30.0;                  // disturbed while it surely fitted
  curve[curve.size() - 3].rate = 110.0;  // and lucky beyond
  CHECK(forward_capacity(curve, 200.0, 30.0).value() == Approx(before).epsilon(0.05));
}

TEST_CASE("capacity: no answer where rates do not tell") {
  const auto curve = forward_curve(1024 * kKiB, 118.0, 99.0, 0.0);
  CHECK(!forward_capacity(curve, 118.0, 99.0));                       // gap of 19 %
  CHECK(!alternating_capacity({{2048 * kKiB, 105.0}}, 118.0, 99.0));  // the same
  CHECK(!forward_capacity({}, 200.0, 30.0));                          // nothing was read
  CHECK(!alternating_capacity({}, 200.0, 30.0));
  CHECK(!forward_capacity({{1e3, 200.0}, {2e3, 190.0}}, 200.0, 30.0));  // the edge is beyond
  CHECK(!forward_capacity({{1e6, 31.0}, {2e6, 30.0}}, 200.0, 30.0));    // or before
}

/// GB/s of one core of a Granite Rapids with 48 KiB and 2 MiB, from sizes in KiB.
TEST_CASE("capacity: a machine with a large gap, measured elsewhere") {
  const auto curve = [](std::vector<StreamRate> kib) {
    for (StreamRate& s : kib) s.bytes *= kKiB;
    return kib;
  };
  const double l2 = forward_capacity(curve({{1024, 177},
                                            {1536, 137},
                                            {2048, 74},
                                            {2560, 44},
                                            {3072, 34},
                                            {4096, 30},
                                            {6144, 29},
                                            {8192, 29}}),
                                     177, 29)
                        .value();
  CHECK(l2 > 1.9 * 1024 * kKiB);
  CHECK(l2 < 2.6 * 1024 * kKiB);
  const double alternating =
      alternating_capacity(curve({{3072, 68}, {4096, 49}, {6144, 40}}), 177, 29).value();
  CHECK(alternating == Approx(2048 * kKiB).epsilon(0.05));
}

TEST_CASE("capacity: a single wrong stream does not move the alternating capacity") {
  const double size = 1000.0;
  std::vector<StreamRate> streams;
  for (const double bytes : {1250.0, 1500.0, 1750.0, 2000.0}) {
    streams.push_back({bytes, mixed(size / bytes, 200.0, 30.0)});
  }
  CHECK(alternating_capacity(streams, 200.0, 30.0).value() == Approx(size));
  streams[1].rate = 30.0;
  CHECK(alternating_capacity(streams, 200.0, 30.0).value() == Approx(size));
}

TEST_CASE("capacity: what is read lies on both sides of the edge") {
  const CapacityPlan l1 = private_plan(32 << 10, 512 << 10);
  CHECK(l1.inner < 32 << 10);
  CHECK(l1.forward.front() > l1.inner);
  CHECK(l1.forward.front() < 32 << 10);
  CHECK(l1.forward.back() > 64 << 10);
  CHECK(l1.alternating.front() > 32 << 10);
  CHECK(l1.group == 2 << 10);
  const CapacityPlan coarse = coarse_plan(4 << 20, 256 << 20);
  CHECK(coarse.forward.front() == 8 << 20);
  CHECK(coarse.forward.back() == 128 << 20);
  CHECK(coarse_plan(4 << 20, 4 << 20).forward.empty());
  const CapacityPlan fine = fine_plan(4 << 20, 100 << 20, 256 << 20);
  CHECK(fine.forward.back() < 256 << 20);
  CHECK(std::is_sorted(fine.forward.begin(), fine.forward.end()));
}

TEST_CASE("capacity: places in a buffer are whole pages within it") {
  for (int place = 0; place < 3 * kPlaces; ++place) {
    const std::size_t at = place_offset(1 << 20, 300000, place);
    CHECK(at % 4096 == 0);
    CHECK(at + 300000 <= 1 << 20);
  }
  CHECK(place_offset(1 << 20, 1 << 20, 5) == 0);
  CHECK(place_offset(1 << 20, 1 << 21, 5) == 0);
  CHECK(place_offset(1 << 20, 4096, 0) != place_offset(1 << 20, 4096, 1));
}

}  // namespace
}  // namespace deepcpu
