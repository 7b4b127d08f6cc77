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
  queue.begin(Blocks::even(11, 4), 3, 1);  // blocks of 4, 4 and 3 steps, pieces of 3
  std::vector<std::int64_t> first;
  std::vector<std::int64_t> steps;
  for (std::int64_t block = 0; block < 3; ++block) {
    while (const auto piece = queue.take_for(block)) {
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
  queue.begin(Blocks::even(0, 4), 3, 1);
  CHECK_FALSE(queue.take().has_value());
}

TEST_CASE("hoist queue: a piece has some steps and one part of the panels") {
  HoistQueue queue;
  // Blocks of 3 and 2 steps, pieces of 2 steps and half of the panels.
  queue.begin(Blocks::even(5, 3), 2, 2);
  std::vector<std::int64_t> seen;
  for (std::int64_t block = 0; block < 2; ++block) {
    CHECK_FALSE(queue.finished(block));
    while (const auto piece = queue.take_for(block)) {
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

TEST_CASE("hoist queue: who would wait takes a piece of the next block, but not at the first one") {
  HoistQueue queue;
  queue.begin(Blocks::even(6, 2), 1, 1);    // three blocks of two pieces
  const auto first = queue.take().value();  // a helper is at work on block 0
  const auto own = queue.take_for(0).value();
  CHECK(own.block == 0);
  queue.finish(own);
  CHECK_FALSE(queue.take_for(0).has_value());
  queue.finish(first);
  queue.wait_for_block(0);
  queue.release(0);
  const auto second = queue.take().value();  // and on one piece of block 1
  queue.finish(queue.take_for(1).value());
  const auto next = queue.take_for(1).value();
  CHECK(next.block == 2);
  queue.finish(next);
  queue.finish(second);
  CHECK_FALSE(queue.take_for(1).has_value());  // block 1 is finished
  queue.wait_for_block(1);
  queue.release(1);
  const auto last = queue.take().value();
  CHECK(last.block == 2);
  CHECK_FALSE(queue.take_for(2).has_value());  // nothing is left
  queue.finish(last);
  queue.wait_for_block(2);
}

TEST_CASE("hoist queue: who works ahead stops before the slot that is read") {
  HoistQueue queue;
  queue.begin(Blocks::even(100, 2), 2, 1);
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
    const Blocks blocks = Blocks::even(kSteps, kBlock);
    queue.begin(blocks, 1 + run % kBlock, parts);
    // What a slot holds, as hoisted sums, of each part of the panels: the step written last.
    std::vector<std::int64_t> slots(HoistQueue::kSlots * kBlock * kMostParts, -1);
    const auto slot_of = [&](std::int64_t block, std::int64_t step, std::int64_t part) {
      const std::int64_t in_block = step - blocks.begin(block);
      return (HoistQueue::slot(block) * kBlock + static_cast<std::size_t>(in_block)) * kMostParts +
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
    for (std::int64_t block = 0; block < blocks.count(); ++block) {
      while (const auto piece = queue.take_for(block)) write(*piece);
      queue.wait_for_block(block);
      for (std::int64_t s = blocks.begin(block); s < blocks.begin(block + 1); ++s) {
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
