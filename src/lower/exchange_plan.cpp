// SPDX-License-Identifier: Apache-2.0
#include "src/lower/exchange_plan.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include "src/lower/context.hpp"

namespace deepcpu::lower {
namespace {

using jit::Action;
using jit::Instr;
using jit::Product;
using jit::Ref;
using jit::Stage;

class ExchangePlan {
 public:
  ExchangePlan(const Sharing& sharing, BoundPlan& bound) : sharing_(sharing), bound_(bound) {}

  void build() {
    finish_exchange();
    finish_gathers();
  }

 private:
  bool is_written(const Ref& ref) const {
    return std::any_of(bound_.plan.stages.begin(), bound_.plan.stages.end(),
                       [&](const Stage& s) { return store_of(s, ref.buffer) >= 0; });
  }

  /// The stage that stores a state or scratch.
  int writer_of(std::uint16_t buffer) const {
    int s = 0;
    while (store_of(bound_.plan.stages[at(s)], buffer) < 0) ++s;
    return s;
  }

  void finish_exchange() {
    std::map<std::uint16_t, std::vector<int>> readers;
    // What is read unit by unit was computed by the reader itself: participants own the same units
    // in all stages of a width. Where they take panels of each other (plan_steals), all stages
    // wait.
    each_read(bound_.plan, [&](int reader, const Ref& ref, bool whole_row) {
      if (whole_row && is_written(ref)) readers[ref.buffer].push_back(reader);
    });
    for (const auto& [buffer, stages] : readers) {
      const int writer = writer_of(buffer);
      if (!can_be_ring(buffer, writer, stages)) exchange_by_flag(writer, stages);
    }
    std::vector<Ring> rings;
    for (const auto& [buffer, stages] : readers) {
      const int writer = writer_of(buffer);
      // Where flags stand on all sides anyway, polling would come on top of them.
      if (has_flags(writer, stages)) continue;
      rings.push_back({buffer, writer, *std::min_element(stages.begin(), stages.end()),
                       store_of(bound_.plan.stages[at(writer)], buffer)});
    }
    for (const Ring& ring : rings) {
      const bool carried = std::any_of(rings.begin(), rings.end(),
                                       [&](const Ring& other) { return rides_on(ring, other); });
      if (!carried) make_ring(ring);
    }
  }

  /// What others have written and nobody polls is fetched before products read it.
  void finish_gathers() {
    if (sharing_.participants < 2) return;
    each_read(bound_.plan, [&](int reader, const Ref& ref, bool whole_row) {
      if (!whole_row || !is_written(ref) || bound_.plan.buffers[ref.buffer].slots == 3) return;
      auto& gathers = bound_.plan.stages[at(reader)].gathers;
      const Ref row{ref.buffer, ref.next, 0};
      if (std::find(gathers.begin(), gathers.end(), row) == gathers.end()) gathers.push_back(row);
    });
  }

  /// A buffer that may be a ring: who writes it, who reads it first, and where the store stands.
  struct Ring {
    std::uint16_t buffer;
    int writer;
    int first_reader;
    int store;
  };

  static int store_of(const Stage& stage, std::uint16_t buffer) {
    for (int n = 0; n < static_cast<int>(stage.epilogue.size()); ++n) {
      const Instr& i = stage.epilogue[at(n)];
      if (i.action == Action::store && i.ref.buffer == buffer) return n;
    }
    return -1;
  }

  /// Whether waiting for `other` is waiting for `ring`, which then needs two slots only: every unit
  /// of it is stored before the same unit of `other`, nobody reads it before having seen all of
  /// `other`, and it is written again after the next look at `other`.
  bool rides_on(const Ring& ring, const Ring& other) const {
    return ring.writer == other.writer && ring.store < other.store &&
           ring.first_reader >= other.first_reader &&
           bound_.roles[ring.buffer].role == bound_.roles[other.buffer].role;
  }

  bool has_flags(int writer, const std::vector<int>& readers) const {
    const auto& stages = bound_.plan.stages;
    return stages[at(writer)].exchange && std::all_of(readers.begin(), readers.end(), [&](int r) {
             return stages[at(r)].exchange;
           });
  }

  /// An exchange stands after the stage that stores what others read, so that they find it
  /// complete, and after every stage that reads what others store, so that nobody overwrites it
  /// while it is still being read.
  void exchange_by_flag(int writer, const std::vector<int>& readers) {
    bound_.plan.stages[at(writer)].exchange = true;
    for (const int r : readers) bound_.plan.stages[at(r)].exchange = true;
  }

  /// The conditions for rings, see the head of kernel_plan.hpp.
  bool can_be_ring(std::uint16_t buffer, int writer, const std::vector<int>& readers) const {
    if (sharing_.participants < 2 || sharing_.exchange != Exchange::data) return false;
    const std::uint32_t width = bound_.plan.stages[at(writer)].width;
    if (shares(bound_.plan, width) < sharing_.participants) return false;
    const bool state = bound_.roles[buffer].role == Role::state;
    return std::all_of(readers.begin(), readers.end(),
                       [&](int r) { return state ? r <= writer : r > writer; });
  }

  /// The first stage that reads numbers of others waits for them; later ones find them there.
  void make_ring(const Ring& ring) {
    bound_.plan.buffers[ring.buffer].slots = 3;
    const bool next = bound_.roles[ring.buffer].role == Role::scratch;
    bound_.plan.stages[at(ring.first_reader)].polls.push_back({ring.buffer, next, 0});
    quiet_stores(bound_.plan.stages[at(ring.writer)], ring.buffer);
  }

  /// What is not surely the result of arithmetic might be a caller's signalling NaN.
  static void quiet_stores(Stage& stage, std::uint16_t buffer) {
    const auto stores = std::find_if(stage.epilogue.begin(), stage.epilogue.end(),
                                     [](const Instr& i) { return i.action == Action::store; });
    const auto place = static_cast<int>(stores - stage.epilogue.begin());
    for (std::size_t n = at(place); n < stage.epilogue.size(); ++n) {
      const int value = stage.epilogue[n].a;
      if (stage.epilogue[n].ref.buffer != buffer || is_arithmetic(stage, value)) continue;
      Instr quiet;
      quiet.action = Action::quiet;
      quiet.a = value;
      stage.epilogue[n].a = place;
      stage.epilogue.insert(stage.epilogue.begin() + place, std::move(quiet));
      return;  // a buffer is stored once
    }
  }

  /// Whether a value is never a signalling NaN: the result of an addition or multiplication.
  static bool is_arithmetic(const Stage& stage, int value) {
    const Instr& i = stage.epilogue[at(value)];
    if (i.action == Action::fma) return true;
    if (i.action == Action::element) {
      return i.op == Op::add || i.op == Op::sub || i.op == Op::mul;
    }
    if (i.action != Action::sum) return false;
    return std::any_of(stage.products.begin(), stage.products.end(), [&](const Product& p) {
      return std::find(p.sum.begin(), p.sum.end(), i.gate) != p.sum.end();
    });
  }

  const Sharing& sharing_;
  BoundPlan& bound_;
};

/// Whether a stage begins only when all panels of the one before it, in the order of the time loop,
/// are done, whoever computed them: behind an exchange, or behind a look at a ring that a unit's
/// last number is stored to.
bool waits_for_all(const BoundPlan& bound, const Stage& before, const Stage& stage) {
  if (before.exchange) return true;
  const Instr* last = nullptr;
  for (const Instr& i : before.epilogue) {
    if (i.action != Action::store) continue;
    if (bound.roles[i.ref.buffer].role != Role::output) last = &i;
  }
  return last != nullptr &&
         std::any_of(stage.polls.begin(), stage.polls.end(),
                     [&](const Ref& ring) { return ring.buffer == last->ref.buffer; });
}

/// If every stage does, it makes no difference who computes a panel: all that it reads of other
/// stages is there, and nobody still reads what it overwrites.
bool stages_wait(const BoundPlan& bound) {
  const std::vector<Stage>& stages = bound.plan.stages;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    if (!waits_for_all(bound, stages[(s + stages.size() - 1) % stages.size()], stages[s])) {
      return false;
    }
  }
  return true;
}

}  // namespace

void plan_steals(std::uint32_t participants, BoundPlan& bound, std::uint64_t least_work) {
  if (participants < 2 || bound.plan.rows == 1 || !stages_wait(bound)) return;
  for (Stage& stage : bound.plan.stages) {
    const std::uint64_t panels = bound.plan.panels(stage);
    const std::uint64_t work = jit::multiply_adds(stage) * bound.plan.rows;
    const bool pays = work > 0 && work >= least_work * participants;
    const bool fits =
        panels >= std::uint64_t{2} * participants && panels <= jit::Claims::kMostPanels;
    stage.steals = pays && fits;
  }
}

void plan_exchange(const Sharing& sharing, BoundPlan& bound) {
  ExchangePlan(sharing, bound).build();
  plan_steals(sharing.participants, bound, kLeastStolenFrom);
}

}  // namespace deepcpu::lower
