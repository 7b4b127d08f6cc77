// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <thread>

#include "deepcpu/model.hpp"
#include "tests/catch.hpp"
#include "tests/support/random.hpp"

namespace deepcpu {
namespace {

std::string error_of(std::string_view problem) {
  const auto spec = ModelSpec::parse(problem);
  return spec.ok() ? "no error" : spec.error().message();
}

std::string canonical(std::string_view problem) {
  const auto spec = ModelSpec::parse(problem);
  return spec.ok() ? spec->str() : spec.error().message();
}

std::string status_of(const Status& status) {
  return status.ok() ? "ok" : status.error().message();
}

/// (1 - r) * x + r * h: the widths of x and h meet element by element.
Cell highway(const char* name) {
  CellBuilder b(name);
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value r = b.sigmoid(b.matmul("weight", x));
  const Value next = b.one_minus(r) * x + r * h;
  b.next(h, next);
  b.output(next);
  return b.build().value();
}

/// The output is as wide as the input.
Cell echo(const char* name) {
  CellBuilder b(name);
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value next = b.tanh(b.matmul("weight", x) + h);
  b.next(h, next);
  b.output(b.matmul("back", next, Dim::input));
  return b.build().value();
}

/// No matrices; a second input of hidden width.
Cell leaky(const char* name) {
  CellBuilder b(name);
  const Value x = b.input("x");
  const Value drive = b.input("drive", Dim::hidden);
  const Value h = b.state("h");
  const Value next = b.tanh(x + h * b.bias("decay") + drive);
  b.next(h, next);
  b.output(next);
  return b.build().value();
}

void check_equal(const ModelSpec& a, const ModelSpec& b) {
  CHECK(a.cell.to_text() == b.cell.to_text());
  CHECK(a.options == b.options);
  CHECK(a.input == b.input);
  CHECK(a.hidden == b.hidden);
  CHECK(a.projection == b.projection);
  CHECK(a.direction == b.direction);
  CHECK(a.batch == b.batch);
  CHECK(a.steps == b.steps);
}

TEST_CASE("problem: defaults are one layer, forward, batch 1, T 100") {
  const auto spec = ModelSpec::parse("lstm:i40h256");
  REQUIRE(spec.ok());
  CHECK(spec->cell.name() == "lstm");
  CHECK(spec->input == 40);
  CHECK(spec->hidden == std::vector<std::int64_t>{256});
  CHECK(spec->projection == 0);
  CHECK(spec->direction == Direction::forward);
  CHECK(spec->batch == 1);
  CHECK(spec->steps == 100);
  CHECK(spec->options.empty());
  CHECK(spec->layers() == 1);
  CHECK(spec->directions() == 1);
}

TEST_CASE("problem: every part is read, in any order, and printed in one") {
  CHECK(canonical("lstm:i256h256") == "lstm:i256h256b1t100");
  CHECK(canonical("lstm:t7b4bip8l3h16i5") == "lstm:i5h16l3p8bib4t7");
  CHECK(canonical("gru:h8revi3") == "gru:i3h8revb1t100");
  CHECK(canonical("gru:bih8i3") == "gru:i3h8bib1t100");
  CHECK(canonical("gru:b2bii3h8") == "gru:i3h8bib2t100");
  CHECK(canonical("rnn:i3h8/16/8") == "rnn:i3h8/16/8b1t100");
  CHECK(canonical("rnn:i3h8/16/8l3") == "rnn:i3h8/16/8b1t100");
  CHECK(canonical("rnn:i3h8/8") == "rnn:i3h8l2b1t100");
  CHECK(canonical("rnn:i3h8l1") == "rnn:i3h8b1t100");
  CHECK(canonical("rnn:i007h08t0") == "rnn:i7h8b1t0");
}

TEST_CASE("problem: options are spelled one way and defaults left out") {
  CHECK(canonical("gru:i3h8,reset=before") == "gru:i3h8b1t100,reset=before");
  CHECK(canonical("gru:i3h8,reset=after") == "gru:i3h8b1t100");
  CHECK(canonical("rnn:i3h8,act=tanh") == "rnn:i3h8b1t100");
  CHECK(canonical("rnn:i3h8,act=relu") == "rnn:i3h8b1t100,act=relu");
  CHECK(canonical("lstm:i3h8,peephole=1,clip=3.50") == "lstm:i3h8b1t100,clip=3.5,peephole=1");
  CHECK(canonical("lstm:i3h8,clip=0.0,coupled=0") == "lstm:i3h8b1t100");
}

TEST_CASE("problem: random specs come back from their string") {
  test::Random random(7);
  struct Kind {
    const char* cell;
    std::vector<std::string> options;
    bool projection;
  };
  const std::vector<Kind> kinds = {
      {"lstm", {"", ",peephole=1", ",clip=0.25", ",coupled=1,peephole=1"}, true},
      {"gru", {"", ",reset=before", ",reset=after"}, false},
      {"rnn", {"", ",act=relu", ",act=sigmoid", ",act=tanh"}, false},
  };
  for (int round = 0; round < 1000; ++round) {
    const Kind& kind = random.pick(kinds);
    std::vector<std::string> dims = {"i" + std::to_string(random.integer(1, 300))};
    std::string hidden = "h" + std::to_string(random.integer(20, 300));
    if (random.chance(0.3)) {
      for (int l = random.integer(1, 4); l > 0; --l) {
        hidden += "/" + std::to_string(random.integer(20, 300));
      }
    } else if (random.chance(0.5)) {
      dims.push_back("l" + std::to_string(random.integer(1, 9)));
    }
    dims.push_back(hidden);
    if (kind.projection && random.chance(0.5)) {
      dims.push_back("p" + std::to_string(random.integer(1, 20)));
    }
    if (random.chance(0.5)) dims.push_back(random.chance(0.5) ? "bi" : "rev");
    if (random.chance(0.5)) dims.push_back("b" + std::to_string(random.integer(1, 1024)));
    if (random.chance(0.5)) dims.push_back("t" + std::to_string(random.range(0, INT32_MAX)));
    for (std::size_t i = dims.size(); i > 1; --i) {
      std::swap(dims[i - 1], dims[static_cast<std::size_t>(random.range(0, std::int64_t(i) - 1))]);
    }
    std::string problem = std::string(kind.cell) + ":";
    for (const auto& part : dims) problem += part;
    problem += random.pick(kind.options);
    INFO(problem);
    const auto spec = ModelSpec::parse(problem);
    REQUIRE(spec.ok());
    const auto back = ModelSpec::parse(spec->str());
    REQUIRE(back.ok());
    check_equal(*spec, *back);
    CHECK(back->str() == spec->str());
  }
}

TEST_CASE("problem: text that is not one is refused") {
  const auto shape = [](const std::string& text) {
    return "problem " + text + ": must look like lstm:i40h256 or gru:i64h64b4,reset=before";
  };
  CHECK(error_of("") == shape(""));
  CHECK(error_of("lstm") == shape("lstm"));
  CHECK(error_of(":i4h4") == shape(":i4h4"));
  CHECK(error_of("9lstm:i4h4") == shape("9lstm:i4h4"));
  CHECK(error_of("a.b.c:i4h4") == shape("a.b.c:i4h4"));
  CHECK(error_of("ls tm:i4h4") == shape("ls tm:i4h4"));
  CHECK(error_of(std::string_view("ls\0:i4h4", 8)) == shape("ls\\x00:i4h4"));
  CHECK(error_of("lstm:") == "input: is missing (i and a number)");
  CHECK(error_of("lstm:i4") == "hidden: is missing (h and a number)");
  CHECK(error_of("lstm:i4h4x3") == "dims: x3 is none of i, h, l, p, bi, rev, b, t");
  CHECK(error_of("lstm:i4 h4") == "dims:  h4 is none of i, h, l, p, bi, rev, b, t");
  CHECK(error_of("lstm:I4h4") == "dims: I4h4 is none of i, h, l, p, bi, rev, b, t");
  CHECK(error_of("lstm:i4/5h4") == "dims: /5h4 is none of i, h, l, p, bi, rev, b, t");
  CHECK(error_of("lstm:ih4") == "input: i needs a decimal number after it");
  CHECK(error_of("lstm:i4h8/") == "hidden: h needs a decimal number after it");
  CHECK(error_of("lstm:i4h0x10") == "dims: x10 is none of i, h, l, p, bi, rev, b, t");
  CHECK(error_of("lstm:i4h4b") == "batch: b needs a decimal number after it");
  CHECK(error_of("lstm:i4h4" + std::string(100'000, '1')) ==
        "problem of 100009 characters: must have at most 65536");
}

TEST_CASE("problem: each part may be given once") {
  CHECK(error_of("lstm:i4i4h4") == "input: is given twice");
  CHECK(error_of("lstm:i4h4h4") == "hidden: is given twice");
  CHECK(error_of("lstm:i4h4l1l1") == "layers: is given twice");
  CHECK(error_of("lstm:i4h4birev") == "direction: is given twice");
  CHECK(error_of("lstm:i4h4bibi") == "direction: is given twice");
  CHECK(error_of("lstm:i4h4b1b1") == "batch: is given twice");
  CHECK(error_of("lstm:i4h4t1t1") == "steps: is given twice");
  CHECK(error_of("gru:i4h4,reset=after,reset=after") == "reset: is given twice");
  CHECK(error_of("lstm:i4h4/8l3") == "layers=3: must equal the number of hidden sizes, 2");
}

TEST_CASE("problem: zero, negative and overflowing dimensions are refused by name") {
  CHECK(error_of("lstm:i0h4") == "input=0: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h0") == "hidden=0: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h-8") == "hidden=-8: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h8/0") == "hidden[1]=0: must be between 1 and 1048576");
  CHECK(error_of("lstm:i1048577h4") == "input=1048577: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h99999999999999999999") ==
        "hidden=99999999999999999999: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h-99999999999999999999") ==
        "hidden=-99999999999999999999: must be between 1 and 1048576");
  CHECK(error_of("lstm:i4h4l0") == "layers=0: must be between 1 and 1024");
  CHECK(error_of("lstm:i4h4l1025") == "layers=1025: must be between 1 and 1024");
  CHECK(error_of("lstm:i4h4l9223372036854775807") ==
        "layers=9223372036854775807: must be between 1 and 1024");
  CHECK(error_of("lstm:i4h4b0") == "batch=0: must be between 1 and 1024");
  CHECK(error_of("lstm:i4h4b1025") == "batch=1025: must be between 1 and 1024");
  CHECK(error_of("lstm:i4h4t-1") == "steps=-1: must be between 0 and 2147483647");
  CHECK(error_of("lstm:i4h4t2147483648") == "steps=2147483648: must be between 0 and 2147483647");
  CHECK(error_of("lstm:i4h4p0") == "projection=0: must be between 1 and 1048576");
  CHECK(canonical("lstm:i4h4t2147483647b1024l1024") == "lstm:i4h4l1024b1024t2147483647");
  std::string many = "rnn:i4h4";
  for (int i = 0; i < 1024; ++i) many += "/4";
  CHECK(error_of(many) == "layers=1025: must be between 1 and 1024");
}

TEST_CASE("problem: a product of dimensions past memory is refused with its fields") {
  const auto starts = [](const std::string& problem, const std::string& sentence) {
    INFO(error_of(problem));
    CHECK(error_of(problem).starts_with(sentence));
  };
  starts("lstm:i1048576h1048576",
         "input=1048576, hidden=1048576, layers=1, batch=1: the weights take 35184405643264 bytes, "
         "more than the ");
  starts("lstm:i4h4/1048576/4l3", "input=4, hidden=1048576, layers=3, batch=1: the weights take ");
  starts("lstm:i1048576h1048576l1024bi",
         "input=1048576, hidden=1048576, layers=1024, batch=1: the weights take ");
  REQUIRE(register_cell(leaky("leaky_memory")).ok());
  starts("leaky_memory:i1048576h1048576l1024b1024",
         "input=1048576, hidden=1048576, layers=1024, batch=1024: the values of one step take ");
}

TEST_CASE("problem: unknown cells, options and values are refused and the legal ones listed") {
  const std::string unknown = error_of("lsmt:i4h4");
  CHECK(unknown.starts_with("cell=lsmt: is unknown, known cells are "));
  CHECK(error_of("lsmt:i4") == unknown);
  for (const char* name : {"lstm", "gru", "rnn"}) {
    CHECK(unknown.find(name) != std::string::npos);
  }
  CHECK(error_of("random.17:i4h4").starts_with("cell=random.17: is unknown, "));
  CHECK(error_of("gru:i4h4,rest=before") ==
        "rest=before: is no option of cell gru, its options are reset=after|before");
  CHECK(error_of("gru:i4h4,reset=never") == "reset=never: must be after or before");
  CHECK(error_of("rnn:i4h4,act=gelu") == "act=gelu: must be tanh or relu or sigmoid");
  for (const char* value : {"x", "-1", "nan", "inf", "1e99", "0x1", "1 ", "+1"}) {
    INFO(value);
    CHECK_FALSE(ModelSpec::parse(std::string("lstm:i4h4,clip=") + value).ok());
  }
  CHECK(error_of("gru:i4h4,") == "option : must be key=value");
  CHECK(error_of("gru:i4h4,reset") == "option reset: must be key=value");
  CHECK(error_of("gru:i4h4,reset=") == "option reset=: must be key=value");
  CHECK(error_of("gru:i4h4,=after") == "option =after: must be key=value");
  CHECK(error_of("gru:i4h4,reset=\n") ==
        "option reset=\\x0a: must be at most 64 printable characters");
}

TEST_CASE("spec: a projection belongs to cells that have one") {
  CHECK(error_of("lstm:i4h8p9") == "projection=9: must be at most hidden=8");
  CHECK(error_of("lstm:i4h8/4p6") == "projection=6: must be at most hidden=4");
  CHECK(canonical("lstm:i4h8p8") == "lstm:i4h8p8b1t100");
  CHECK(error_of("gru:i4h8p4") == "projection=4: cell gru has no projection");
  auto spec = ModelSpec::parse("lstm:i4h8p4").value();
  spec.projection = 0;
  CHECK(status_of(spec.validate()) == "projection: is missing, cell lstm needs it");
  CHECK(ModelSpec::make(highway("highway_projection"), {.input = 8, .hidden = {8}, .projection = 4})
            .error()
            .message() == "projection=4: cell highway_projection has no projection");
}

TEST_CASE("spec: widths of layers, directions and projections") {
  const auto spec = ModelSpec::parse("lstm:i5h16/32p8bi").value();
  CHECK(spec.width(Dim::one, 0) == 1);
  CHECK(spec.width(Dim::input, 0) == 5);
  CHECK(spec.width(Dim::hidden, 0) == 16);
  CHECK(spec.width(Dim::proj, 0) == 8);
  CHECK(spec.width(Dim::input, 1) == 16);
  CHECK(spec.width(Dim::hidden, 1) == 32);
  CHECK(spec.output_width() == 16);
  CHECK(ModelSpec::parse("gru:i5h16/32rev").value().width(Dim::input, 1) == 16);
  CHECK(ModelSpec::parse("gru:i5h16/32rev").value().output_width() == 32);
  CHECK(ModelSpec::parse("gru:i5h16/32bi").value().output_width() == 64);
  const auto wide =
      ModelSpec::make(echo("echo_widths"),
                      {.input = 3, .hidden = {8, 9, 10}, .direction = Direction::bidirectional});
  REQUIRE(wide.ok());
  CHECK(wide->width(Dim::input, 2) == 12);
  CHECK(wide->output_width() == 24);
}

TEST_CASE("spec: an input that doubles from layer to layer has a limit") {
  const auto stack = [](std::size_t layers) {
    return ModelSpec::make(echo("echo_limit"), {.input = 3,
                                                .hidden = std::vector<std::int64_t>(layers, 8),
                                                .direction = Direction::bidirectional});
  };
  CHECK(stack(10).ok());
  CHECK(stack(1024).error().message() ==
        "input of layer 20: is 3145728 wide and must be at most 2097152");
}

TEST_CASE("spec: widths that meet element by element must be equal") {
  const Cell cell = highway("highway");
  CHECK(ModelSpec::make(cell, {.input = 8, .hidden = {8}}).ok());
  CHECK(ModelSpec::make(cell, {.input = 8, .hidden = {8, 8}}).ok());
  const auto narrow = ModelSpec::make(cell, {.input = 5, .hidden = {8}});
  REQUIRE_FALSE(narrow.ok());
  CHECK(
      narrow.error().message().starts_with("input=5: must equal hidden=8 because cell highway "
                                           "combines them element by element (node %"));
  CHECK(narrow.error().message().ends_with(" mul)"));
  CHECK(ModelSpec::make(cell, {.input = 8, .hidden = {8, 16}})
            .error()
            .message()
            .starts_with("input of layer 1=8: must equal hidden of layer 1=16 because cell "));
  CHECK(ModelSpec::make(cell, {.input = 8, .hidden = {8, 8}, .direction = Direction::bidirectional})
            .error()
            .message()
            .starts_with("input of layer 1=16: must equal hidden of layer 1=8 because cell "));
}

TEST_CASE("spec: further inputs have one width for all layers") {
  const Cell cell = leaky("leaky");
  CHECK(ModelSpec::make(cell, {.input = 8, .hidden = {8, 8}}).ok());
  CellBuilder b("driven");
  const Value x = b.input("x");
  const Value h = b.state("h");
  const Value sum = b.matmul("weight", x) + h + b.input("drive", Dim::hidden);
  b.next(h, sum);
  b.output(sum);
  const Cell driven = b.build().value();
  CHECK(ModelSpec::make(driven, {.input = 5, .hidden = {8, 8}}).ok());
  CHECK(ModelSpec::make(driven, {.input = 5, .hidden = {8, 16}}).error().message() ==
        "hidden of layer 1=16: must equal hidden of layer 0=8 because all layers read the one "
        "input drive");
}

TEST_CASE("spec: one that a program filled in is checked by the same rules") {
  CHECK(status_of(ModelSpec{}.validate()) == "input=0: must be between 1 and 1048576");
  ModelSpec spec;
  spec.input = 4;
  CHECK(status_of(spec.validate()) == "layers=0: must be between 1 and 1024");
  spec.hidden = {4};
  CHECK(status_of(spec.validate()) == "cell: is empty, build one with CellBuilder");
  spec = ModelSpec::parse("gru:i4h4,reset=before").value();
  spec.direction = static_cast<Direction>(7);
  CHECK(status_of(spec.validate()) == "direction=7: must be forward, reverse or bidirectional");
  spec.direction = Direction::forward;
  spec.options = {{"reset", "after"}};
  CHECK(status_of(spec.validate()) == "reset=after: is the default and must be left out");
  spec.options = {{"peephole", "1"}};
  CHECK(status_of(spec.validate()) ==
        "peephole=1: is no option of cell gru, its options are reset=after|before");
  spec = ModelSpec::parse("lstm:i4h4,clip=1").value();
  spec.options = {{"clip", "1.0"}};
  CHECK(status_of(spec.validate()) == "clip=1.0: must be spelled 1");
  spec = ModelSpec::make(highway("highway_options"), {.input = 4, .hidden = {4}}).value();
  spec.options = {{"clip", "1"}};
  CHECK(status_of(spec.validate()) ==
        "clip=1: is no option of cell highway_options, it has no options");
}

TEST_CASE("spec: names of directions") {
  CHECK(to_string(Direction::forward) == "forward");
  CHECK(to_string(Direction::reverse) == "reverse");
  CHECK(to_string(Direction::bidirectional) == "bidirectional");
}

TEST_CASE("registry: a registered cell is found by problem strings and listed") {
  const Cell cell = highway("highway_registered");
  CHECK(error_of("highway_registered:i8h8").find("is unknown") != std::string::npos);
  REQUIRE(register_cell(cell).ok());
  CHECK(canonical("highway_registered:i8h8l2") == "highway_registered:i8h8l2b1t100");
  CHECK(ModelSpec::parse("highway_registered:i8h8").value().cell.to_text() == cell.to_text());
  CHECK(error_of("highway_registered:i8h8,clip=1") ==
        "clip=1: is no option of cell highway_registered, it has no options");
  CHECK(status_of(register_cell(cell)) == "cell=highway_registered: this name is taken");
  CHECK(status_of(register_cell(highway("lstm"))) == "cell=lstm: this name is taken");
  CHECK(status_of(register_cell(Cell())).starts_with("cell=: must be a built cell"));
  const auto cells = list_cells();
  const auto named = [&](std::string_view name) {
    return std::find_if(cells.begin(), cells.end(), [&](const auto& c) { return c.name == name; });
  };
  REQUIRE(named("highway_registered") != cells.end());
  CHECK(named("highway_registered")->options.empty());
  REQUIRE(named("gru") != cells.end());
  CHECK(named("gru")->options == std::vector<std::string>{"reset=after|before"});
  REQUIRE(named("lstm") != cells.end());
  const auto& options = named("lstm")->options;
  CHECK(std::find(options.begin(), options.end(), "clip=<real>") != options.end());
  CHECK_FALSE(named("lstm")->summary.empty());
}

TEST_CASE("registry: threads may register, parse and list at the same time") {
  std::vector<std::thread> threads;
  std::array<int, 4> wins{};
  for (std::size_t t = 0; t < wins.size(); ++t) {
    threads.emplace_back([t, &wins] {
      for (int i = 0; i < 20; ++i) {
        const std::string name = "raced_" + std::to_string(i);
        if (register_cell(highway(name.c_str())).ok()) ++wins[t];
        if (!ModelSpec::parse(name + ":i4h4").ok()) wins[t] = -1000;
        static_cast<void>(list_cells());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wins[0] + wins[1] + wins[2] + wins[3] == 20);
}

TEST_CASE("problem: random damage gives an error or a spec, never a crash") {
  test::Random random(8);
  const std::string good = "lstm:i40h256/128p64bib4t17,clip=2.5,peephole=1";
  REQUIRE(ModelSpec::parse(good).ok());
  for (int round = 0; round < 5000; ++round) {
    std::string bad = good.substr(0, static_cast<std::size_t>(random.integer(1, 46)));
    bad[static_cast<std::size_t>(random.range(0, std::int64_t(bad.size()) - 1))] =
        static_cast<char>(random.integer(0, 255));
    const auto spec = ModelSpec::parse(bad);
    if (spec.ok()) {
      CHECK(spec->str() == canonical(spec->str()));
    } else {
      CHECK_FALSE(spec.error().message().empty());
    }
  }
}

}  // namespace
}  // namespace deepcpu
