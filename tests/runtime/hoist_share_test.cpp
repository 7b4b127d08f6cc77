// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/hoist_share.hpp"

#include <atomic>
#include <thread>
#include <vector>

#include "src/compile.hpp"
#include "tests/catch.hpp"

namespace {

using namespace deepcpu;

TEST_CASE("hoist share: own pieces come first, then the last ones of others that are there") {
  HoistShare share(2, 3);
  share.begin(0, 7);
  CHECK(share.take(0, 7) == 0);
  CHECK(share.take(0, 7) == 1);
  CHECK(share.take(0, 7) == 2);
  CHECK_FALSE(share.take(0, 7));  // participant 1 has not begun the block
  share.begin(1, 7);
  CHECK(share.take(0, 7) == 5);
  CHECK(share.take(1, 7) == 3);
  CHECK(share.take(0, 7) == 4);
  CHECK_FALSE(share.take(1, 7));
  CHECK_FALSE(share.take(0, 8));
}

TEST_CASE("hoist share: every piece is taken once in each block, and finished before all go on") {
  constexpr int kParticipants = 3;
  constexpr int kEach = 4;
  constexpr std::uint64_t kBlocks = 3000;
  HoistShare share(kParticipants, kEach);
  std::vector<std::atomic<std::uint64_t>> done(kParticipants * kEach);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < kParticipants; ++p) {
    threads.emplace_back([&, p] {
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        share.begin(p, block);
        while (const auto piece = share.take(p, block)) {
          done[static_cast<std::size_t>(*piece)].fetch_add(1);
        }
        share.finish(p, block);
        for (int i = 0; i < kEach; ++i) {
          const auto own = static_cast<std::size_t>(p * kEach + i);
          if (done[own].load() != block + 1) ++wrong;
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
  for (const auto& d : done) CHECK(d == kBlocks);
}

/// What all participants own, piece by piece, is what they own in all, in the same order.
TEST_CASE("hoist share: pieces hold every panel of their participant once") {
  const char* problems[] = {"lstm:i20h150", "gru:i20h300,reset=before", "rnn:i16h48b2",
                            "lstm:i8h1024"};
  for (const char* problem : problems) {
    for (const Isa isa : {Isa::interpreter, Isa::avx2, Isa::avx512}) {
      if (isa > host_isa()) continue;
      for (const int threads : {2, 3}) {
        CompileOptions options;
        options.isa = isa;
        options.threads = threads;
        options.schedule.emplace();
        options.schedule->isa = isa;
        options.schedule->threads = threads;
        options.schedule->layers.resize(1);
        options.schedule->layers[0].hoist_block = 16;
        const Compilation c = compile_program(ModelSpec::parse(problem).value(), options).value();
        INFO(problem << " " << to_string(isa) << " threads " << threads);
        const LayerPanels& panels = c.layers[0].shared_panels;
        REQUIRE(panels.own_pieces->parts() % threads == 0);
        const int each = static_cast<int>(panels.own_pieces->parts()) / threads;
        CHECK(each <= HoistShare::kPieces);
        for (int p = 0; p < threads; ++p) {
          for (std::size_t stage = 0; stage < panels.hoist->stages; ++stage) {
            std::vector<std::uint32_t> all;
            for (int i = 0; i < each; ++i) {
              const jit::PanelRange& r = panels.own_pieces->of(p * each + i)[stage];
              all.insert(all.end(), r.order[0], r.order[0] + r.count);
            }
            const jit::PanelRange& own = panels.hoist->of(p)[stage];
            CHECK(all == std::vector<std::uint32_t>(own.order[0], own.order[0] + own.count));
          }
        }
      }
    }
  }
}

}  // namespace
