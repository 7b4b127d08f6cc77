// SPDX-License-Identifier: Apache-2.0
#include "jit/kernel_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "jit/fnv.hpp"

namespace deepcpu::jit {
namespace {

/// Over the numbers that operator== compares.
class Hasher {
 public:
  void number(std::uint64_t v) { hash_.add(v, 8); }
  void number(float f) { number(std::uint64_t{std::bit_cast<std::uint32_t>(f)}); }
  void ref(const Ref& r) {
    number(std::uint64_t{r.buffer});
    number(std::uint64_t{r.next});
    number(r.offset);
  }
  std::uint64_t value() const { return hash_.value(); }

 private:
  Fnv1a hash_;
};

std::uint64_t bits(int v) { return static_cast<std::uint64_t>(static_cast<std::int64_t>(v)); }

void add(Hasher& h, const Stage& s) {
  for (const std::uint64_t v :
       {std::uint64_t{s.width}, std::uint64_t{s.units_per_panel}, std::uint64_t{s.tile_rows},
        std::uint64_t{s.exchange}, std::uint64_t{s.steals}}) {
    h.number(v);
  }
  for (const Sum& sum : s.sums) {
    h.number(static_cast<std::uint64_t>(sum.init));
    h.ref(sum.ref);
  }
  for (const Product& p : s.products) {
    h.ref(p.operand);
    for (const std::uint64_t v :
         {std::uint64_t{p.k}, p.weights, p.block_stride, std::uint64_t{p.gates_packed},
          std::uint64_t{p.chains}, std::uint64_t{p.fetch}, std::uint64_t{p.k_block}}) {
      h.number(v);
    }
    for (const std::uint32_t g : p.gate) h.number(std::uint64_t{g});
    for (const std::uint32_t g : p.sum) h.number(std::uint64_t{g});
    for (const std::uint32_t lane : p.last) h.number(std::uint64_t{lane});
  }
  for (const Place& p : s.places) {
    h.number(std::uint64_t{p.host});
    h.number(std::uint64_t{p.next});
    h.number(std::uint64_t{p.lane});
    h.number(p.from);
  }
  h.number(std::uint64_t{s.keeps_places});
  for (const Ref& r : s.polls) h.ref(r);
  h.number(std::uint64_t{s.gathers.size()});
  for (const Ref& r : s.gathers) h.ref(r);
  for (const Instr& i : s.epilogue) {
    for (const std::uint64_t v :
         {static_cast<std::uint64_t>(i.action), static_cast<std::uint64_t>(i.op), bits(i.a),
          bits(i.b), bits(i.c), std::uint64_t{i.gate}}) {
      h.number(v);
    }
    h.number(i.p);
    h.number(i.q);
    h.ref(i.ref);
  }
}

std::string_view to_string(Space space) {
  switch (space) {
    case Space::external:
      return "external";
    case Space::strided:
      return "strided";
    case Space::slots:
      return "slots";
    case Space::block:
      return "block";
    case Space::params:
      return "params";
  }
  return "?";
}

std::string text(const KernelPlan& plan, const Ref& r) {
  return fmt::format("{}{}{}", plan.buffers[r.buffer].name, r.next ? "'" : "",
                     r.offset == 0 ? "" : fmt::format("+{}", r.offset));
}

std::string text(const KernelPlan& plan, const Instr& i, std::size_t index) {
  const std::string note = i.note.empty() ? "" : fmt::format("    ; {}", i.note);
  const std::string left = fmt::format("      %{:<3}= ", index);
  switch (i.action) {
    case Action::load:
      return fmt::format("{}load {}{}\n", left, text(plan, i.ref), note);
    case Action::broadcast:
      return fmt::format("{}broadcast {}{}\n", left, text(plan, i.ref), note);
    case Action::sum:
      return fmt::format("{}sum {}{}\n", left, i.gate, note);
    case Action::constant:
      return fmt::format("{}constant {}{}\n", left, i.p, note);
    case Action::fma:
      return fmt::format("{}fma %{} %{} %{}{}\n", left, i.a, i.b, i.c, note);
    case Action::quiet:
      return fmt::format("{}quiet %{}{}\n", left, i.a, note);
    case Action::store:
      return fmt::format("      store %{} -> {}\n", i.a, text(plan, i.ref));
    case Action::element:
      break;
  }
  std::string out = fmt::format("{}{} %{}", left, deepcpu::to_string(i.op), i.a);
  if (i.b >= 0) out += fmt::format(" %{}", i.b);
  if (i.op == Op::clip || i.op == Op::hard_sigmoid) out += fmt::format(" ({}, {})", i.p, i.q);
  if (i.op == Op::leaky_relu) out += fmt::format(" ({})", i.p);
  return out + note + "\n";
}

std::string text(const KernelPlan& plan, const Stage& s) {
  std::string out =
      fmt::format("  stage {}: {} units, {} panels of {} unit blocks, tile of {} rows{}{}\n",
                  s.name, s.width, plan.panels(s), s.units_per_panel, s.tile_rows,
                  s.steals ? ", then those of others" : "", s.exchange ? ", then exchange" : "");
  for (const Ref& r : s.polls) {
    out += fmt::format("    wait until all of {} is written\n", text(plan, r));
  }
  for (const Ref& r : s.gathers) out += fmt::format("    fetch all of {}\n", text(plan, r));
  for (std::size_t g = 0; g < s.sums.size(); ++g) {
    const Sum& sum = s.sums[g];
    out += fmt::format("    sum {} = {}{}\n", g,
                       sum.init == Sum::Init::zero ? "0" : text(plan, sum.ref),
                       sum.note.empty() ? "" : fmt::format("    ; {}", sum.note));
  }
  for (std::size_t g = 0; g < s.places.size(); ++g) {
    const Place& place = s.places[g];
    out += fmt::format("    last unit block: sum {} from lane {} of sum {}'s vector on{}{}\n", g,
                       place.lane, place.host,
                       place.next == place.host ? "" : fmt::format(" into sum {}'s", place.next),
                       s.keeps_places ? ", stored as it is" : "");
    if (s.sums[g].init == Sum::Init::zero || !holds_units(s, static_cast<std::uint32_t>(g))) {
      continue;
    }
    Ref from = s.sums[g].ref;
    from.offset = place.from;
    out += fmt::format("    last unit block: sum {}'s vector = {}\n", g, text(plan, from));
  }
  for (const Product& p : s.products) {
    out += fmt::format(
        "    for k in 0..{}: sums[{}] += {}[k] * W@{}[unit block, stride {}][k][gates {} "
        "of {}{}]{}{}    ; {}\n",
        p.k, fmt::join(p.sum, " "), text(plan, p.operand), p.weights, p.block_stride,
        fmt::join(p.gate, " "), p.gates_packed,
        p.last.empty() ? "" : fmt::format(", last block: lanes {}", fmt::join(p.last, " ")),
        p.fetch == 0
            ? ""
            : fmt::format(", fetch {} lines of each unit block of what comes next in {} steps",
                          p.fetch, Product::kFetchSteps),
        p.k_block == 0 ? "" : fmt::format(", {} steps at a time", p.k_block), p.note);
  }
  if (!s.epilogue.empty()) out += "    for each row and unit block:\n";
  for (std::size_t i = 0; i < s.epilogue.size(); ++i) out += text(plan, s.epilogue[i], i);
  return out;
}

}  // namespace

bool holds_units(const Stage& s, std::uint32_t sum) {
  return std::any_of(s.places.begin(), s.places.end(),
                     [&](const Place& p) { return p.host == sum || p.next == sum; });
}

std::vector<Term> terms(const Product& p, std::uint32_t lanes) {
  std::vector<Term> out;
  for (std::size_t g = 0; g < p.gate.size(); ++g) {
    out.push_back({p.gate[g] * lanes, p.sum[g], lanes});
  }
  return out;
}

std::vector<Term> last_terms(const Stage& s, const Product& p, std::uint32_t lanes) {
  const std::uint32_t units = s.width % lanes == 0 ? lanes : s.width % lanes;
  std::vector<Term> out;
  const auto add = [&](const Term& term) {
    const auto same =
        std::find_if(out.begin(), out.end(), [&](const Term& t) { return t.sum == term.sum; });
    if (same == out.end()) return out.push_back(term);
    same->lanes = std::max(same->lanes, term.lanes);
  };
  for (std::size_t g = 0; g < p.gate.size(); ++g) {
    const std::uint32_t first = p.last.empty() ? p.gate[g] * lanes : p.last[g];
    if (s.places.empty()) {
      out.push_back({first, p.sum[g], units});
      continue;
    }
    const Place& place = s.places[p.sum[g]];
    const std::uint32_t end = place.lane + units;
    add({first - place.lane, place.host, std::min(end, lanes)});
    if (end > lanes) add({first - place.lane + lanes, place.next, end - lanes});
  }
  return out;
}

bool KernelPlan::buffers_equal(const KernelPlan& o) const {
  return std::equal(buffers.begin(), buffers.end(), o.buffers.begin(), o.buffers.end(),
                    [](const Buffer& a, const Buffer& b) {
                      return a.space == b.space && a.width == b.width &&
                             a.row_stride == b.row_stride && a.step_stride == b.step_stride &&
                             a.slot_stride == b.slot_stride && a.slots == b.slots &&
                             a.fetch_next == b.fetch_next;
                    });
}

std::uint64_t hash(const KernelPlan& plan) noexcept {
  Hasher h;
  h.number(static_cast<std::uint64_t>(plan.isa));
  h.number(std::uint64_t{plan.lanes});
  h.number(std::uint64_t{plan.rows});
  h.number(std::uint64_t{plan.weights_in_registers});
  for (const Buffer& b : plan.buffers) {
    for (const std::uint64_t v :
         {static_cast<std::uint64_t>(b.space), std::uint64_t{b.width}, b.row_stride, b.step_stride,
          b.slot_stride, std::uint64_t{b.slots}, std::uint64_t{b.fetch_next}}) {
      h.number(v);
    }
  }
  for (const Stage& s : plan.stages) add(h, s);
  if (plan.ahead) {
    const Ahead& a = *plan.ahead;
    for (const std::uint64_t v : {std::uint64_t{a.rows}, a.from_stride, a.to_stride, a.prefetch,
                                  std::uint64_t{a.beats}, std::uint64_t{a.per}}) {
      h.number(v);
    }
  }
  return h.value();
}

std::string to_text(const KernelPlan& plan) {
  std::string out =
      fmt::format("kernel {} {} lanes={} rows={}{}\n", plan.name, deepcpu::to_string(plan.isa),
                  plan.lanes, plan.rows == 0 ? "any" : fmt::format("{}", plan.rows),
                  plan.weights_in_registers ? " weights in registers" : "");
  for (const Buffer& b : plan.buffers) {
    out += fmt::format("  buffer {} {} width={}", b.name, to_string(b.space), b.width);
    if (b.row_stride > 0) out += fmt::format(" row={}B", b.row_stride);
    if (b.step_stride > 0) out += fmt::format(" step={}B", b.step_stride);
    if (b.slots == 2) out += fmt::format(" two slots of {}B", b.slot_stride);
    if (b.fetch_next) out += " fetch the next step";
    if (b.slots == 3) out += fmt::format(" ring of three slots of {}B", b.slot_stride);
    out += "\n";
  }
  for (const Stage& s : plan.stages) out += text(plan, s);
  if (plan.ahead) {
    out += fmt::format(
        "  products of a later block: tiles of {} rows, {} steps over k after {} of the "
        "stages\n",
        plan.ahead->rows, plan.ahead->beats, plan.ahead->per);
  }
  return out;
}

}  // namespace deepcpu::jit
