// SPDX-License-Identifier: Apache-2.0
/// What run, session and the states refuse, with the sentence, and that a refusal changes nothing.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/compare.hpp"
#include "tests/support/sample.hpp"

namespace {

using namespace deepcpu;
using namespace deepcpu::test;

template <class T>
std::string message(const Result<T>& result) {
  return result.ok() ? "no error" : result.error().message();
}

/// A session of lstm:i3h4b2t5 and its arrays.
struct Setup {
  Sample sample = Sample::make("lstm:i3h4b2t5");
  Model model = Model::compile(sample.spec, sample.weights).value();
  Session session = model.session().value();
  std::vector<float> y = std::vector<float>(sample.y_size());
};

TEST_CASE("run refuses an x or y of the wrong size") {
  Setup s;
  std::vector<float> x(s.sample.x.size() - 1);
  CHECK(message(s.session.run(x, s.y)) ==
        "x: 29 numbers given, not a multiple of batch 2 * input 3");
  std::vector<float> small(s.y.size() - 1);
  CHECK(message(s.session.run(s.sample.x, small)) ==
        "y: 39 numbers given, 40 needed (T * batch * output width)");
  std::vector<float> large(s.y.size() + 8);
  CHECK(message(s.session.run(s.sample.x, large)) ==
        "y: 48 numbers given, 40 needed (T * batch * output width)");
  CHECK(message(s.session.run({}, s.y)) ==
        "y: 40 numbers given, 0 needed (T * batch * output width)");
}

TEST_CASE("run refuses lengths of the wrong count or out of range") {
  Setup s;
  const auto run = [&](const std::vector<std::int64_t>& lengths) {
    return message(s.session.run(s.sample.x, s.y, {}, lengths));
  };
  CHECK(run({5}) == "lengths: 1 numbers given, 2 needed (one per batch row)");
  CHECK(run({5, 5, 5}) == "lengths: 3 numbers given, 2 needed (one per batch row)");
  CHECK(run({5, -1}) == "lengths[1]=-1: must be between 0 and T=5");
  CHECK(run({6, 5}) == "lengths[0]=6: must be between 0 and T=5");
  CHECK(run({std::numeric_limits<std::int64_t>::min(), 5}) ==
        "lengths[0]=-9223372036854775808: must be between 0 and T=5");
  CHECK(run({5, std::numeric_limits<std::int64_t>::max()}) ==
        "lengths[1]=9223372036854775807: must be between 0 and T=5");
  CHECK(run({0, 5}) == "no error");
}

TEST_CASE("run refuses further inputs of the wrong number or size") {
  Setup s;
  const std::vector<std::span<const float>> surplus = {s.sample.x};
  CHECK(message(s.session.run(s.sample.x, s.y, surplus)) ==
        "extra: 1 inputs given, cell lstm has 0 besides x");

  const Sample augru = Sample::make("augru:i4h4b2t3");
  Session session = Model::compile(augru.spec, augru.weights).value().session().value();
  std::vector<float> y(augru.y_size());
  CHECK(message(session.run(augru.x, y)) == "extra: 0 inputs given, cell augru has 1 besides x");
  const std::vector<float> five(5);
  const std::vector<std::span<const float>> extra = {five};
  const std::string name =
      augru.spec.cell.nodes()[static_cast<std::size_t>(augru.spec.cell.inputs()[1])].name;
  CHECK(message(session.run(augru.x, y, extra)) ==
        name + ": 5 numbers given, 6 needed (T * batch * width)");
  CHECK(message(session.run(augru.x, y, augru.extra_views())) == "no error");
}

TEST_CASE("run refuses a y that overlaps what it reads") {
  const Sample same = Sample::make("lstm:i4h4b2t5");  // in place would look natural
  Session session = Model::compile(same.spec, same.weights).value().session().value();
  constexpr std::size_t kSize = 40;
  std::vector<float> both(2 * kSize, 0.5F);
  const std::span all(both);
  const auto run = [&](std::size_t x, std::size_t y) {
    return message(session.run(all.subspan(x, kSize), all.subspan(y, kSize)));
  };
  const std::string refused = "y: overlaps x; must be apart from all that is read";
  CHECK(run(0, 0) == refused);
  CHECK(run(0, kSize - 1) == refused);
  CHECK(run(kSize - 1, 0) == refused);
  CHECK(both == std::vector<float>(2 * kSize, 0.5F));
  CHECK(run(0, kSize) == "no error");
  CHECK(run(kSize, 0) == "no error");
  CHECK(message(session.run({}, {})) == "no error");

  const Sample augru = Sample::make("augru:i4h4b2t3");
  Session gated = Model::compile(augru.spec, augru.weights).value().session().value();
  std::vector<float> y(augru.y_size());
  const std::vector<std::span<const float>> extra = {std::span<const float>(y).first(6)};
  const std::string name =
      augru.spec.cell.nodes()[static_cast<std::size_t>(augru.spec.cell.inputs()[1])].name;
  CHECK(message(gated.run(augru.x, y, extra)) ==
        "y: overlaps " + name + "; must be apart from all that is read");
}

TEST_CASE("a session refuses helpers that look for work for no or too long a time") {
  const Setup s;
  HelperOptions helpers;
  for (const int spin_us : {-1, 10'000'001}) {
    helpers.spin_us = spin_us;
    CHECK(message(s.model.session(Layout::time_major, 5, helpers)) ==
          "spin_us=" + std::to_string(spin_us) + ": must be between 0 and 10000000");
  }
  helpers.spin_us = 0;
  CHECK(s.model.session(Layout::time_major, 5, helpers).ok());
}

TEST_CASE("what was moved from is refused or does nothing") {
  Setup s;
  Session other = std::move(s.session);
  CHECK(message(s.session.run(s.sample.x, s.y)) == "run: the session was moved from");
  CHECK(message(s.session.set_state("h", s.y)) == "set_state: the session was moved from");
  CHECK(message(s.session.get_state("h", s.y)) == "get_state: the session was moved from");
  s.session.reset();
  CHECK(s.session.threads() == 0);
  CHECK(s.session.parallel() == Parallel::none);
  CHECK(s.session.notes().empty());
  CHECK(other.run(s.sample.x, s.y).ok());
  const Model model = std::move(s.model);
  CHECK(s.model.spec().str() == model.spec().str());
  CHECK(s.model.session().ok());
  CHECK(ModelSpec().output_width() == 0);
}

TEST_CASE("a refused run writes nothing and leaves the state as it was") {
  Setup s;
  const std::vector<float> expected = [&] {
    Session fresh = s.model.session().value();
    std::vector<float> y(s.y.size());
    fresh.run(s.sample.x, y).value();
    fresh.run(s.sample.x, y).value();
    return y;
  }();
  s.session.run(s.sample.x, s.y).value();
  const std::vector<float> marked(s.y.size(), 7.0F);
  s.y = marked;
  const std::vector<std::int64_t> lengths = {5, 6};
  CHECK(!s.session.run(s.sample.x, s.y, {}, lengths).ok());
  CHECK(bit_difference(s.y, marked).empty());
  s.session.run(s.sample.x, s.y).value();
  CHECK(bit_difference(s.y, expected).empty());
}

TEST_CASE("a stack of bidirectional layers runs at most max_steps steps") {
  const Sample s = Sample::make("lstm:i3h4l2bib2t5");
  const Model model = Model::compile(s.spec, s.weights).value();
  std::vector<float> y(s.y_size());
  for (const std::int64_t max : {1, 4}) {
    Session session = model.session(Layout::time_major, max).value();
    CHECK(message(session.run(s.x, y)) ==
          "T=5: longer than max_steps=" + std::to_string(max) + " that the session was made for");
    CHECK(session.run({}, {}).ok());
  }
  CHECK(model.session(Layout::time_major, 5).value().run(s.x, y).ok());
  CHECK(model.session().value().run(s.x, y).ok());  // as long as the problem's t
  CHECK(message(model.session(Layout::time_major, -1)) ==
        "max_steps=-1: must be between 0 and 2147483647");

  // Others keep no whole sequence and ignore it.
  const Sample one = Sample::make("lstm:i3h4bib2t5");
  Session session = Model::compile(one.spec, one.weights).value().session().value();
  CHECK(session.run(one.x, y).ok());
}

TEST_CASE("a max_steps that no memory can hold is refused, not wrapped around") {
  const Sample s = Sample::make("lstm:i3h4l2bit5");
  const Model model = Model::compile(s.spec, s.weights).value();
  // 64 bytes a step between the layers: the products are 2^64, 2^64 + 64, and past 2^63.
  for (const std::int64_t max :
       {std::int64_t{1} << 58, (std::int64_t{1} << 58) + 1, std::int64_t{1} << 57,
        std::int64_t{1} << 50, std::numeric_limits<std::int64_t>::max()}) {
    INFO(max);
    CHECK(!model.session(Layout::time_major, max).ok());
  }
}

TEST_CASE("scratch that no memory can hold is refused before it is touched") {
  const Sample s = Sample::make("lstm:i3h512l2b1024t1");
  CompileOptions options;
  options.schedule = Model::compile(s.spec, s.weights).value().schedule();
  options.schedule->layers[1].hoist_block = 1 << 20;  // 2^20 steps, 1024 rows, 8 KiB each: 8 TiB
  const Model model = Model::compile(s.spec, s.weights, options).value();
  const auto session = model.session();
  REQUIRE(!session.ok());
  CHECK(session.error().kind() == ErrorKind::memory);
  CHECK(message(session).starts_with(
      "session: with batch=1024, blocks of 1048576 steps and max_steps=1 it takes "));
  CHECK(message(session).ends_with(" are available"));

  const Sample long_run = Sample::make("lstm:i3h512l2b1024bit1");
  const auto too_long = Model::compile(long_run.spec, long_run.weights)
                            .value()
                            .session(Layout::time_major, std::numeric_limits<std::int32_t>::max());
  REQUIRE(!too_long.ok());
  CHECK(too_long.error().kind() == ErrorKind::memory);
}

TEST_CASE("states of the wrong name or size are refused") {
  Setup s;
  std::vector<float> values(8);
  CHECK(message(s.session.set_state("z", values)) == "state z: cell lstm has no such state");
  CHECK(message(s.session.get_state("", values)) == "state : cell lstm has no such state");
  std::vector<float> seven(7);
  const std::string rule =
      "state h: 7 numbers given, 8 needed (layers * directions * batch * width)";
  CHECK(message(s.session.set_state("h", seven)) == rule);
  CHECK(message(s.session.get_state("h", seven)) == rule);
  CHECK(message(s.session.set_state("h", {})) ==
        "state h: 0 numbers given, 8 needed (layers * directions * batch * width)");
  CHECK(message(s.session.set_state("c", values)) == "no error");
}

TEST_CASE("threads of 0 or below are refused") {
  const Sample s = Sample::make("lstm:i3h4");
  for (const int threads : {0, -1, std::numeric_limits<int>::min()}) {
    CompileOptions options;
    options.threads = threads;
    CHECK(message(Model::compile(s.spec, s.weights, options)) ==
          "threads=" + std::to_string(threads) + ": must be at least 1");
  }
}

TEST_CASE("a schedule with more threads than the cap, or for other layers, is refused") {
  const Sample s = Sample::make("lstm:i3h4l2");
  CompileOptions options;
  options.threads = 2;
  options.schedule = schedule_for(s.spec, Isa::interpreter, 3);
  CHECK(message(Model::compile(s.spec, s.weights, options)) ==
        "schedule.threads=3: must be between 1 and 2");
  options.schedule->threads = 0;
  CHECK(message(Model::compile(s.spec, s.weights, options)) ==
        "schedule.threads=0: must be between 1 and 1024");
  options.schedule->threads = 2;
  options.schedule->layers.pop_back();
  CHECK(message(Model::compile(s.spec, s.weights, options)) ==
        "schedule.layers: has 1 entries: must have 2, one per layer of the model");
}

TEST_CASE("a projection wider than the hidden size is refused") {
  const std::string text = message(ModelSpec::parse("lstm:i4h8p9"));
  INFO(text);
  CHECK(text.find("projection=9") != std::string::npos);
  CHECK(text.find("8") != std::string::npos);
}

}  // namespace
