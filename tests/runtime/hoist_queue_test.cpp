// SPDX-License-Identifier: Apache-2.0
/// HoistQueue: every step is taken once, nobody writes a slot that is still read, and the time loop
/// never waits for a piece that nobody has.
#include "src/runtime/hoist_queue.hpp"

#include <atomic>
#include <thread>
#include <vector>

#include "tests/catch.hpp"

namespace deepcpu {
namespace {

TEST_CASE("hoist queue: pieces of a block cover its steps, and the last block may be short") {
  HoistQueue queue;
  queue.begin(11, 4, 3, 1);  // blocks of 4, 4 and 3 steps, pieces of 3
  std::vector<std::int64_t> first;
  std::vector<std::int64_t> steps;
  for (std::int64_t block = 0; block < 3; ++block) {
    while (const auto piece = queue.take_of(block)) {
      CHECK(piece->block == block);
      first.push_back(piece->first);
      steps.push_back(piece->steps);
      queue.finish(*piece);
    }
    queue.wait_for_block(block);
    queue.release(block);
  }
  CHECK(first == std::vector<std::int64_t>{0, 3, 4, 7, 8, 11});
  CHECK(steps == std::vector<std::int64_t>{3, 1, 3, 1, 3, 0});
  CHECK_FALSE(queue.take().has_value());
  queue.begin(0, 4, 3, 1);
  CHECK_FALSE(queue.take().has_value());
}

TEST_CASE("hoist queue: a piece has some steps and one part of the panels") {
  HoistQueue queue;
  queue.begin(5, 3, 2, 2);  // blocks of 3 and 2 steps, pieces of 2 steps and half of the panels
  std::vector<std::int64_t> seen;
  for (std::int64_t block = 0; block < 2; ++block) {
    CHECK_FALSE(queue.finished(block));
    while (const auto piece = queue.take_of(block)) {
      seen.insert(seen.end(), {piece->first, piece->steps, piece->part});
      CHECK_FALSE(queue.finished(block));
      queue.finish(*piece);
    }
    CHECK(queue.finished(block));
    queue.release(block);
  }
  CHECK(seen == std::vector<std::int64_t>{0, 2, 0, 0, 2, 1, 2, 1, 0, 2, 1, 1,    // block 0
                                          3, 2, 0, 3, 2, 1, 5, 0, 0, 5, 0, 1});  // block 1
}

TEST_CASE("hoist queue: who works ahead stops before the slot that is read") {
  HoistQueue queue;
  queue.begin(100, 2, 2, 1);
  for (std::int64_t block = 0; block < HoistQueue::kSlots; ++block) {
    CHECK(queue.take().value().block == block);
  }
  std::atomic<bool> taken{false};
  std::thread helper([&] {
    CHECK(queue.take().value().block == HoistQueue::kSlots);
    taken = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK_FALSE(taken);  // block 0 has not been released
  queue.release(0);
  helper.join();
  CHECK(taken);
}

TEST_CASE("hoist queue: two helpers and a loop, run after run") {
  HoistQueue queue;
  constexpr std::int64_t kSteps = 97;
  constexpr std::int64_t kBlock = 5;
  constexpr std::int64_t kMostParts = 3;
  for (int run = 0; run < 60; ++run) {
    const std::int64_t parts = 1 + run % kMostParts;
    queue.begin(kSteps, kBlock, 1 + run % kBlock, parts);
    // What a slot holds, as hoisted sums, of each part of the panels: the step written last.
    std::vector<std::int64_t> slots(HoistQueue::kSlots * kBlock * kMostParts, -1);
    const auto slot_of = [&](std::int64_t block, std::int64_t step, std::int64_t part) {
      return (HoistQueue::slot(block) * kBlock + static_cast<std::size_t>(step % kBlock)) *
                 kMostParts +
             static_cast<std::size_t>(part);
    };
    std::atomic<int> wrong{0};
    const auto write = [&](const HoistQueue::Piece& p) {
      for (std::int64_t s = p.first; s < p.first + p.steps; ++s) {
        slots[slot_of(p.block, s, p.part)] = s;
      }
      queue.finish(p);
    };
    const auto help = [&] {
      while (const auto piece = queue.take()) write(*piece);
    };
    std::thread one(help);
    std::thread two(help);
    for (std::int64_t block = 0; block * kBlock < kSteps; ++block) {
      while (!queue.finished(block)) {
        auto piece = queue.take_of(block);
        if (!piece) piece = queue.take_of(block + 1);
        if (!piece) break;
        write(*piece);
      }
      queue.wait_for_block(block);
      for (std::int64_t s = block * kBlock; s < std::min(kSteps, (block + 1) * kBlock); ++s) {
        for (std::int64_t part = 0; part < parts; ++part) {
          if (slots[slot_of(block, s, part)] != s) ++wrong;
        }
      }
      queue.release(block);
    }
    one.join();
    two.join();
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace deepcpu
