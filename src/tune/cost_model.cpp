// SPDX-License-Identifier: Apache-2.0
#include "src/tune/cost_model.hpp"

#include <algorithm>
#include <cmath>

#include "src/lower/exchange_plan.hpp"
#include "src/lower/lower.hpp"
#include "src/runtime/hoist_share.hpp"
#include "src/runtime/program.hpp"
#include "src/tune/kernel_cost.hpp"
#include "src/tune/stream_cost.hpp"

namespace deepcpu {
namespace {

/// Of one row.
double multiply_adds(const StageWork& s) {
  double sum = 0.0;
  for (const ProductWork& p : s.products) sum += s.multiply_adds(p);
  return sum;
}

/// What handing numbers over takes: its latency, and work for every vector.
struct Handover {
  double seconds = 0.0;
  double hidden_seconds = 0.0;       ///< of these, behind products that look late (jit::RingWaits)
  double acknowledge_seconds = 0.0;  ///< of a flag that nothing but the order of steps hangs on
  double vector_seconds = 0.0;
  double line_seconds = 0.0;  ///< a journey of one cache line
};

/// One layer and direction on one group of participants.
struct PartPlan {
  const LayerWork* work;
  const LayerSchedule* schedule;
  double block;        ///< steps
  double piece_steps;  ///< of hoisted products that are taken at once
  double panel_parts;  ///< into how many the panels of hoisted products are divided
  int hoisters;        ///< further participants, which only take such pieces
};

/// Adds up what one group of participants does in a run.
class GroupCost {
 public:
  GroupCost(const StreamCost& streams, const OwnCosts& own, const ModelWork& work, int sharers,
            double steps)
      : streams_(streams),
        own_(own),
        work_(work),
        sharers_(sharers),
        steps_(steps),
        rows_(static_cast<double>(work.spec.batch)) {}

  Prediction of(const std::vector<PartPlan>& parts, const Handover& handover) {
    total_bytes_ = 0.0;
    for (const PartPlan& p : parts) total_bytes_ += working_set(p);
    for (auto* bytes : {&out_.level_bytes, &out_.hoisted.level_bytes, &out_.in_loop.level_bytes}) {
      bytes->assign(streams_.levels(), 0.0);
    }
    for (const PartPlan& p : parts) add(p, handover);
    return std::move(out_);
  }

 private:
  KernelCosts kernels(const PartPlan& p) const { return kernels(p.schedule->panel); }
  KernelCosts kernels(Panel panel) const { return {streams_, own_, work_, sharers_, panel}; }
  static TileChoice tile_of(const PartPlan& p) {
    return {p.schedule->tile_rows, p.schedule->fetch_lines, p.schedule->cut_panels};
  }
  const KernelWork& step_of(const PartPlan& p) const {
    return p.work->step[p.schedule->hoist_block > 0][p.schedule->fuse_gates];
  }
  bool hoists(const PartPlan& p) const {
    return p.schedule->hoist_block > 0 && !p.work->hoist.stages.empty();
  }
  /// Bytes of hoisted sums of a block that one participant writes and reads.
  double hoisted_bytes(const PartPlan& p) const {
    if (!hoists(p)) return 0.0;
    return std::min(p.block, steps_) * rows_ * p.work->hoisted_row_bytes / sharers_;
  }
  double working_set(const PartPlan& p) const {
    double bytes = kernels(p).slice(step_of(p)) + hoisted_bytes(p);
    if (hoists(p)) bytes += kernels(p).slice(p.work->hoist);
    return bytes;
  }

  void add(const PartPlan& p, const Handover& handover) {
    const double blocks = std::ceil(steps_ / p.block);
    add_step(p, blocks, handover);
    if (hoists(p)) add_hoist(p, blocks);
    if (p.hoisters > 0) share_hoist(p, blocks, handover);
    if (p.hoisters == 0 && hoists(p)) wait_for_hoist(p, blocks, handover);
    const double kernels = hoists(p) ? 2.0 * blocks - blocks_ahead(p) : blocks;
    out_.parts.calls += kernels * own_.block_us;
  }

  /// All participants compute the first block's hoisted products; those of later ones run beside
  /// the time loop, and are divided so that all participants are done at the same time, but for
  /// half a piece. Per block two lines travel while the loop waits: how many pieces are finished,
  /// and the first sums of others.
  void share_hoist(const PartPlan& p, double blocks, const Handover& handover) {
    const double participants = 1.0 + p.hoisters;
    const double loop = out_.parts.products + out_.parts.gates;
    const double all = out_.parts.hoist;
    const double steps = std::max(steps_, 1.0);
    const double first = all * std::min(1.0, p.block / steps);
    const double piece = all * std::min(1.0, p.piece_steps / steps) / p.panel_parts;
    out_.parts.hoist = first / participants + 0.5 * piece +
                       std::max(0.0, (loop + all - first) / participants - loop);
    out_.hoist_share = all > 0 ? std::min(1.0, out_.parts.hoist / all) : 1.0;
    out_.hoisted.flops *= out_.hoist_share;
    for (std::size_t l = 0; l < out_.level_bytes.size(); ++l) {
      out_.level_bytes[l] -= (1.0 - out_.hoist_share) * out_.hoisted.level_bytes[l];
      out_.hoisted.level_bytes[l] *= out_.hoist_share;
    }
    add_two_lines(blocks, handover);
  }

  /// Participants that take hoisted products of each other (HoistShare) wait for the last ones: a
  /// look at what is left and a word that all is done, a journey each.
  void wait_for_hoist(const PartPlan& p, double blocks, const Handover& handover) {
    double row = 0.0;
    for (const StageWork& s : p.work->hoist.stages) row += multiply_adds(s);
    const double own = row * rows_ * std::min(p.block, steps_) / sharers_;
    const bool shares = own >= static_cast<double>(HoistShare::kLeastWork);
    if (sharers_ < 2 || p.schedule->hoist_ahead || !shares) return;
    add_two_lines(blocks, handover);
  }

  /// Two lines that travel in every block while somebody waits.
  void add_two_lines(double blocks, const Handover& handover) {
    const double journeys = 1e6 * blocks * 2.0 * handover.line_seconds;
    out_.journeys_us += journeys;
    out_.parts.exchange += journeys;
  }

  /// Blocks whose hoisted sums are computed ahead: neither the first nor a last one that is short.
  double blocks_ahead(const PartPlan& p) const {
    return p.schedule->hoist_ahead ? std::max(0.0, std::floor(steps_ / p.block) - 1.0) : 0.0;
  }

  /// The walk of one step through its weights.
  Stream stream_of(const PartPlan& p, Panel panel) const {
    const KernelWork& kernel = step_of(p);
    const KernelCosts costs = kernels(panel);
    Stream stream;
    stream.bytes = p.schedule->weights == Residency::registers ? 0.0 : costs.slice(kernel);
    stream.alternating = p.schedule->sweep == Sweep::alternating;
    stream.group_bytes = p.schedule->group * kernel.weight_bytes / p.work->panels(sharers_, panel);
    // Between two reads of a weight, one step's rows and hoisted sums pass.
    stream.beside = rows_ * costs.row_bytes(kernel);
    stream.slower = costs.slower(kernel);
    return stream;
  }

  void add_step(const PartPlan& p, double blocks, const Handover& handover) {
    const KernelWork& kernel = step_of(p);
    const KernelCosts costs = kernels(p);
    const bool resident = p.schedule->weights == Residency::registers;
    const Stream stream = stream_of(p, p.schedule->panel);
    const StreamTime pass = streams_.pass(stream);
    const auto cost_of = [&](const StreamTime& time) {
      return costs.cost(kernel, rows_, tile_of(p), time, resident ? Tiles::resident : Tiles::own);
    };
    const KernelCost cost = cost_of(pass);
    // The first walk of a block finds the caches full of what passed between two blocks.
    StreamTime cold = pass;
    cold.seconds += streams_.refill_seconds(stream, total_bytes_);
    const KernelCost first = cost_of(cold);
    out_.parts.products +=
        1e6 * (steps_ * cost.products + blocks * (first.products - cost.products));
    out_.parts.gates += 1e6 * (steps_ * cost.gates + blocks * (first.gates - cost.gates));
    if (sharers_ > 1) {
      // Products ahead look at once, but gain as if they hid as much (experiment: DESIGN, 19).
      const double late = rows_ == 1.0 ? cost.shared_by_all : 0.0;
      const double journeys = 1e6 * steps_ *
                              (cost.exchanges * handover.seconds - late * handover.hidden_seconds +
                               cost.acknowledged * handover.acknowledge_seconds);
      out_.journeys_us += journeys;
      out_.parts.exchange += journeys + 1e6 * steps_ * cost.exchanged * handover.vector_seconds;
    }
    out_.flops += steps_ * cost.flops;
    add_traffic(out_.in_loop, steps_ * cost.own_flops, steps_, pass.level_bytes);
  }

  /// What a step leaves to products ahead.
  struct Slack {
    double idle = 0.0;  ///< seconds in which multiply-adds wait for weights, or for a panel's end
    double stalled = 0.0;  ///< in which they wait for each other
    double beyond = 0.0;   ///< part of the weights that come from beyond L1: it is there
  };

  /// As if panels were narrow: products ahead gain the same beside wide ones (on Zen 4 lstm i64h64
  /// 0.92 and 0.93 of the time without, i100h100 0.89 and 0.89, i64h128 0.95 and 0.93), but for
  /// what only narrow ones lose.
  Slack slack_of(const PartPlan& p) const {
    const Stream stream = stream_of(p, Panel::narrow);
    const StreamTime pass = streams_.pass(stream);
    const KernelCost cost =
        kernels(Panel::narrow).cost(step_of(p), rows_, tile_of(p), pass, Tiles::own);
    const double near = stream.bytes > 0 ? pass.level_bytes.front() / stream.bytes : 1.0;
    const bool stalls = p.schedule->panel == Panel::narrow;
    return {cost.idle, stalls ? cost.stalled : 0.0, 1.0 - near};
  }

  /// Of the busiest participant.
  void add_traffic(Traffic& kind, double flops, double passes, const std::vector<double>& bytes) {
    kind.flops += flops;
    for (std::size_t l = 0; l < bytes.size(); ++l) {
      kind.level_bytes[l] += passes * bytes[l];
      out_.level_bytes[l] += passes * bytes[l];
    }
  }

  /// Sums that the time loop's panels keep in registers.
  std::uint32_t sums(const PartPlan& p) const {
    std::uint32_t most = 0;
    for (const StageWork& s : step_of(p).stages) {
      most = std::max(most, s.row_vectors * s.panel_units(sharers_, p.schedule->panel));
    }
    return most;
  }

  /// With products, of a step.
  static double stages(const KernelWork& kernel) {
    return static_cast<double>(
        std::count_if(kernel.stages.begin(), kernel.stages.end(),
                      [](const StageWork& s) { return !s.products.empty(); }));
  }

  /// What the hoisted sums of one block cost among the products of the block before.
  struct AheadBlock {
    double seconds = 0.0;
    double flops = 0.0;
    double own_flops = 0.0;
  };

  /// Whether the last cache serves all of the stream even if it is a fifth smaller: others share
  /// it, and from one calibration to the next its size differs by 13 % (bench/README).
  bool leaves_room(Stream stream) const {
    constexpr double kRoom = 1.25;
    stream.bytes *= kRoom;
    stream.beside *= kRoom;
    return streams_.pass(stream).level_bytes.back() == 0.0;
  }

  /// `stream`: of reading W once. Every tile of rows reads W again, from where a narrow panel of it
  /// fits. A part of the multiply-adds runs while U, or W itself, is on its way; on machines whose
  /// overlap is below 0, both take longer for it. Where W comes from memory, it is not there in
  /// time, and nothing is hidden: lstm i768h768 on Zen 4 takes W's reading and all multiply-adds
  /// longer.
  AheadBlock ahead_block(const PartPlan& p, const Stream& stream) const {
    const StreamTime pass = streams_.pass(stream);
    const Slack slack = slack_of(p);
    const KernelWork& kernel = p.work->hoist;
    const KernelCosts costs = kernels(Panel::narrow);
    const auto rows = static_cast<int>(lower::ahead_rows(p.schedule->hoist_block, sums(p)));
    const KernelCost cost = costs.cost(kernel, p.block, {rows}, StreamTime{}, Tiles::ahead);
    const double again = p.block / rows - 1.0;
    const double panel = kernel.weight_bytes / p.work->panels(sharers_, Panel::narrow);
    const double slice = costs.slice(kernel);
    const double reading = pass.seconds + again * slice / panel * streams_.reread_seconds(panel);
    // Where both hinder each other, they do so wherever weights come from.
    const double beyond = streams_.overlap() > 0.0 ? slack.beyond : 1.0;
    const double stalled = p.block * slack.stalled;
    const double idle = p.block * slack.idle + beyond * stalled + reading;
    double beside = std::min(beyond * cost.products, idle);
    beside += (1.0 - beyond) * std::min(cost.products, stalled);
    if (streams_.overlap() > 0.0 && !leaves_room(stream)) beside = 0.0;
    const double hidden = streams_.overlap() * beside;
    // From panel to panel of a stage the tile at hand stays in registers.
    const double turns = p.block * stages(step_of(p)) + p.block / rows * costs.sum_vectors(kernel);
    const double turning = turns * streams_.cycles(own_.tile_cycles);
    return {cost.products + reading - hidden + turning, cost.flops, cost.own_flops};
  }

  void add_hoist(const PartPlan& p, double blocks) {
    const KernelWork& kernel = p.work->hoist;
    const KernelCosts costs = kernels(p);
    Stream stream;
    stream.bytes = costs.slice(kernel);
    stream.beside = total_bytes_ - stream.bytes;
    const StreamTime pass = streams_.pass(stream);
    double seconds = 0.0;
    double flops = 0.0;
    const auto add_block = [&](double steps, double count) {
      if (count <= 0 || steps <= 0) return;
      TileChoice tile{p.schedule->hoist_rows};
      tile.cut_panels = p.schedule->cut_panels;
      const KernelCost cost = costs.cost(kernel, steps * rows_, tile, pass, Tiles::own);
      seconds += count * (cost.products + cost.gates);
      flops += count * cost.own_flops;
      out_.flops += count * cost.flops;
    };
    const double once = p.hoisters > 0 ? p.piece_steps : p.block;  // steps of one call
    const double whole = std::floor(steps_ / once);
    const double ahead = blocks_ahead(p);
    add_block(once, whole - ahead);
    add_block(steps_ - whole * once, 1.0);
    // The sums' lines are fetched to be written, written, and read in the time loop; with one row a
    // step's few hide behind U.
    const double passes = rows_ > 1 ? 3.0 * steps_ / std::min(p.block, std::max(steps_, 1.0)) : 0.0;
    seconds += passes * streams_.reread_seconds(hoisted_bytes(p));
    if (ahead > 0) {
      const AheadBlock one = ahead_block(p, stream);
      seconds += ahead * one.seconds;
      flops += ahead * one.own_flops;
      out_.flops += ahead * one.flops;
    }
    out_.parts.hoist += 1e6 * seconds;
    // W is read once for each block, or for the pieces of some of its steps.
    const double reads = p.hoisters > 0 ? std::ceil(steps_ / once) : blocks;
    add_traffic(out_.hoisted, flops, reads, pass.level_bytes);
  }

  const StreamCost& streams_;
  const OwnCosts& own_;
  const ModelWork& work_;
  int sharers_;
  double steps_;
  double rows_;
  double total_bytes_ = 0.0;
  Prediction out_;
};

/// Most steps of a block of a run.
double longest_block(const Program& program, double steps) {
  return static_cast<double>(program.blocks_of(static_cast<std::int64_t>(steps)).longest());
}

/// What waiting for layers on other groups adds to the time of the busiest group, as a share of it:
/// each group starts a block, or at most a run, after the one that it reads from; a layer that
/// reads a bidirectional one starts when that is done.
double lag_of(const Program& program, const Schedule& schedule, double steps) {
  if (schedule.parallel != Parallel::wavefront || steps <= 0) return 0.0;
  // A wavefront has no hoisters.
  const int others = program.participants / program.participants_of_step() - 1;
  const bool whole = program.whole_sequence || program.block == 0;
  if (whole) return others;
  return others * std::min(1.0, longest_block(program, steps) / steps);
}

/// Whether participants that are not equally fast end a step at about the same time all the same,
/// as they take panels of each other: as in plan_steals(), if the stages wait for each other. With
/// half as many panels they do not (lstm i128h128b31 took 1.05 of the time of split_rows, gru
/// i256h256b64 1.03).
bool evens_out(const ModelWork& whole, const Schedule& schedule, const Program& program) {
  constexpr std::uint32_t kFine = 8;
  const ModelWork& work = whole.part(schedule.split_rows);
  if (program.group < 2 || work.spec.batch < 2) return false;
  const auto rows = static_cast<double>(work.spec.batch);
  for (std::size_t l = 0; l < work.layers.size(); ++l) {
    const LayerSchedule& layer = schedule.layers[l];
    if (!layer.fuse_gates && !work.layers[l].one_gate_stages) return false;
    for (const StageWork& s : work.layers[l].step[layer.hoist_block > 0][1].stages) {
      if (s.products.empty()) continue;
      const double own = multiply_adds(s) * rows / program.group;
      if (own < static_cast<double>(lower::kLeastStolenFrom)) return false;
      if (s.panels(program.group, layer.panel) <
          kFine * static_cast<std::uint32_t>(program.group)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

CostModel::CostModel(const MachineModel& machine, Isa isa, const OwnCosts& own)
    : machine_(&machine), isa_(isa), own_(own) {}

std::vector<Prediction> CostModel::groups(const ModelWork& whole, const Schedule& schedule,
                                          const Program& program, double steps) const {
  const ModelWork& work = whole.part(schedule.split_rows);
  const int active = std::min(program.participants, machine_->cores);
  const StreamCost streams(*machine_, isa_, active);
  const double block = program.block > 0 ? longest_block(program, steps) : std::max(steps, 1.0);
  Handover handover;
  if (program.group > 1 || program.hoisters > 0) {
    const bool data = schedule.exchange == Exchange::data;
    const double lines = data ? own_.lines_by_data : own_.lines_by_flag;
    handover.line_seconds = machine_->exchange_ns * 1e-9;
    handover.seconds = lines * handover.line_seconds;
    handover.hidden_seconds = data ? own_.lines_hidden * handover.line_seconds : 0.0;
    handover.acknowledge_seconds = data ? 0.0 : handover.line_seconds;
    handover.vector_seconds = streams.cycles(data ? own_.poll_cycles : own_.gather_cycles);
  }
  std::vector<Prediction> out;
  const int sharing = program.participants - program.hoisters;
  for (int first = 0; first < sharing; first += program.participants_of_step()) {
    std::vector<PartPlan> parts;
    for (const ProgramStep& s : program.steps) {
      if (s.first != first) continue;
      const auto layer = static_cast<std::size_t>(s.layer);
      const LayerWork& one = work.layers[layer];
      const std::int64_t panel_parts =
          program.panel_parts(one.hoisted_parts(work.lanes, program.group));
      const std::int64_t piece_steps =
          program.piece_steps(static_cast<std::int64_t>(block), panel_parts);
      parts.push_back({&one, &schedule.layers[layer], block, static_cast<double>(piece_steps),
                       static_cast<double>(panel_parts), program.hoisters});
    }
    const Prediction one = GroupCost(streams, own_, work, program.group, steps).of(parts, handover);
    // Every part of the batch rows is taken to last as long as the largest.
    for (int p = 0; p < program.row_parts; ++p) {
      out.push_back(one);
      out.back().flops *= static_cast<double>(program.rows_of_part(p, whole.spec.batch)) /
                          static_cast<double>(work.spec.batch);
    }
  }
  return out;
}

std::vector<CostParts> CostModel::per_group(const ModelWork& work, const Schedule& schedule,
                                            double steps) const {
  const Program program = Program::build(work.spec, schedule);
  std::vector<CostParts> out;
  for (const Prediction& one : groups(work, schedule, program, steps)) out.push_back(one.parts);
  return out;
}

Prediction CostModel::predict(const ModelWork& work, const Schedule& schedule, double steps) const {
  const Program program = Program::build(work.spec, schedule);
  Prediction worst;
  double flops = 0.0;
  for (Prediction& one : groups(work, schedule, program, steps)) {
    flops += one.flops;
    if (worst.level_bytes.empty() || one.parts.total() > worst.parts.total()) {
      worst = std::move(one);
    }
  }
  worst.flops = flops;
  worst.parts.exchange += worst.parts.total() * lag_of(program, schedule, steps);
  // More participants than cores take turns.
  const double turns = std::ceil(static_cast<double>(program.participants) / machine_->cores);
  worst.parts.calls += worst.parts.total() * (turns - 1.0) + own_.call_us;
  if (program.participants > 1) {
    const double lines = own_.team_lines + program.participants - 1.0;
    const double gathering = lines * machine_->exchange_ns * 1e-3;
    worst.parts.calls += gathering;
    worst.journeys_us += gathering;
  }
  worst.us = worst.parts.total();
  worst.even = evens_out(work, schedule, program);
  return worst;
}

}  // namespace deepcpu
