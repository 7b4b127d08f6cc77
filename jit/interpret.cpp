// SPDX-License-Identifier: Apache-2.0
/// The plain C++ twin of the emitter. Same loops, same order of operations, one lane at a time.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <optional>

#include "jit/element_ops.hpp"
#include "jit/kernel_plan.hpp"

namespace deepcpu::jit {
namespace {

constexpr std::uint32_t kMaxLanes = 16;
constexpr std::uint32_t kMaxChains = 8;

/// One product's part of one unit block: chain[k % chains] += a[k] * w[k], k ascending.
struct Chains {
  std::array<std::array<float, kMaxLanes>, kMaxChains> sum{};
};
struct Operands {
  const float* a;
  const float* w;
  std::size_t w_stride;  ///< elements from one k to the next
  std::uint32_t k;
  std::uint32_t chains;
  std::uint32_t lanes;
};

[[gnu::always_inline]] inline void add_products(const Operands& o, Chains& c) {
  for (std::uint32_t k = 0; k < o.k; ++k) {
    auto& sum = c.sum[k % o.chains];
    const float* w = o.w + std::size_t{k} * o.w_stride;
    for (std::uint32_t l = 0; l < o.lanes; ++l) sum[l] = std::fma(o.a[k], w[l], sum[l]);
  }
}

void accumulate_portable(const Operands& o, Chains& c) { add_products(o, c); }

/// The same with FMA instructions, where std::fma would be a call of the C library.
[[gnu::target("fma")]] void accumulate_fma(const Operands& o, Chains& c) { add_products(o, c); }

void accumulate(const Operands& o, Chains& c) {
  static const bool has_fma = __builtin_cpu_supports("fma") != 0;
  has_fma ? accumulate_fma(o, c) : accumulate_portable(o, c);
}

class Interpreter {
 public:
  Interpreter(const KernelPlan& plan, const KernelArgs& args) : plan_(plan), args_(args) {}

  void run() {
    run_steps();
    if (!plan_.ahead) return;
    for (std::uint64_t i = 0; i < args_.ahead_tiles; ++i) run_ahead(*plan_.ahead, args_.ahead[i]);
  }

 private:
  void run_steps() {
    if (args_.steps > 1) offer_panels();
    for (t_ = 0; t_ < args_.steps; ++t_) {
      rows_ = args_.active != nullptr ? static_cast<std::uint64_t>(args_.active[t_]) : args_.rows;
      if (rows_ == 0) return;
      for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
        if (args_.participants > 1) poll(plan_.stages[s]);
        run_stage(s);
        if (plan_.stages[s].exchange && args_.participants > 1) exchange();
      }
    }
  }

  /// A tile of products of later steps.
  void run_ahead(const Ahead& a, const AheadTile& tile) const {
    const auto at = [](const void* base, std::uint64_t bytes) {
      return reinterpret_cast<const float*>(static_cast<const unsigned char*>(base) + bytes);
    };
    const auto bytes = static_cast<std::uint64_t>(tile.end - tile.from) * sizeof(float);
    for (std::uint64_t row = 0; row < a.rows; ++row) {
      Chains c;
      auto& sum = c.sum[0];
      std::copy_n(tile.init, plan_.lanes, sum.begin());
      for (std::uint64_t k = 0; k < bytes / tile.from_step; ++k) {
        accumulate({at(tile.from, row * a.from_stride + k * tile.from_step),
                    at(tile.weights, k * tile.weight_step), 0, 1, 1, plan_.lanes},
                   c);
      }
      auto* to = const_cast<float*>(at(tile.to, row * a.to_stride));
      for (std::uint32_t l = 0; l < plan_.lanes; ++l) {
        to[l] = tile.joins != 0 ? to[l] + sum[l] : sum[l];
      }
    }
  }

  std::uint64_t flip() const { return (args_.parity + t_) & 1; }

  bool is_ring(const Ref& ref) const { return plan_.buffers[ref.buffer].slots == 3; }

  /// Bytes to the slot that is `ahead` steps after the current one.
  std::uint64_t slot_offset(const Buffer& b, std::uint64_t ahead) const {
    const std::uint64_t first = b.slots == 3 ? args_.phase : args_.parity;
    return (first + t_ + ahead) % b.slots * b.slot_stride;
  }

  float* address(const Ref& ref, std::uint64_t row) const {
    const Buffer& b = plan_.buffers[ref.buffer];
    auto* base = static_cast<unsigned char*>(args_.buffer[ref.buffer]);
    const std::int64_t stride = args_.stride[ref.buffer];
    switch (b.space) {
      case Space::external:
        base = reinterpret_cast<unsigned char* const*>(base)[row] +
               static_cast<std::int64_t>(t_) * stride;
        break;
      case Space::strided:
        base += static_cast<std::int64_t>(row) * stride;
        break;
      case Space::slots:
        base += row * b.row_stride;
        if (b.slots > 1) base += slot_offset(b, ref.next ? 1 : 0);
        break;
      case Space::block:
        base += t_ * b.step_stride + row * b.row_stride;
        break;
      case Space::params:
        base = const_cast<unsigned char*>(args_.weights);
        break;
    }
    return reinterpret_cast<float*>(base + ref.offset);
  }

  void run_stage(std::size_t s) const {
    const Stage& stage = plan_.stages[s];
    const PanelRange& range = args_.ranges[s];
    const std::uint32_t* order = range.order[flip()];
    // As said at Claims.
    const bool shares = stage.steals && args_.participants > 1 && t_ + 1 < args_.steps;
    if (shares && t_ + 2 < args_.steps) offer(s, t_ + 1);
    const std::uint64_t own = shares ? Claims::kept(range.count) : range.count;
    for (std::uint64_t i = 0; i < own; ++i) run_panel(stage, order[i]);
    if (!shares || range.count == 0) return;
    while (const auto place = take(s, args_.participant, true)) run_panel(stage, order[*place]);
    for (std::uint64_t n = 1; n < args_.participants; ++n) {
      const std::uint64_t other = (args_.participant + n) % args_.participants;
      const auto stages = static_cast<std::int64_t>(plan_.stages.size());
      const auto away = static_cast<std::int64_t>(other - args_.participant) * stages;
      const PanelRange& theirs = args_.ranges[away + static_cast<std::int64_t>(s)];
      while (const auto place = take(s, other, false)) {
        run_panel(stage, theirs.order[flip()][*place]);
      }
    }
  }

  void run_panel(const Stage& stage, std::uint32_t panel) const {
    const std::uint32_t units = plan_.units(stage, panel);
    mark(stage, panel, units);
    for (std::uint64_t row = 0; row < rows_; ++row) {
      for (std::uint32_t u = 0; u < units; ++u) {
        run_unit(stage, panel * stage.units_per_panel + u, row);
      }
    }
  }

  Claims& claims(std::size_t stage, std::uint64_t participant, std::uint64_t t) const {
    return args_.claims[participant][2 * stage + ((args_.parity + t) & 1)];
  }

  void offer_panels() const {
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      if (plan_.stages[s].steals && args_.participants > 1) offer(s, 0);
    }
  }

  void offer(std::size_t stage, std::uint64_t t) const {
    const std::uint64_t count = args_.ranges[stage].count;
    claims(stage, args_.participant, t).offer(args_.first_step + t, Claims::kept(count), count);
  }

  /// A place in a participant's order that nobody has taken, for this step.
  std::optional<std::uint64_t> take(std::size_t stage, std::uint64_t participant,
                                    bool first) const {
    return claims(stage, participant, t_).take(args_.first_step + t_, first);
  }

  /// One unit block of one row: its sums, then its epilogue.
  void run_unit(const Stage& stage, std::uint32_t block, std::uint64_t row) const {
    const std::uint32_t first = block * plan_.lanes;
    const std::uint32_t count = std::min(plan_.lanes, stage.width - first);
    const bool shares = !stage.places.empty() && first + plan_.lanes > stage.width;
    std::array<std::array<float, kMaxLanes>, 8> sums{};
    for (std::size_t g = 0; g < stage.sums.size(); ++g) {
      for (std::uint32_t lane = 0; stage.sums[g].init == Sum::Init::load && lane < count; ++lane) {
        const Spot spot = shares ? spot_of(stage, g, lane) : Spot{g, lane};
        Ref ref = stage.sums[spot.sum].ref;
        if (shares) ref.offset = stage.places[spot.sum].from;
        sums[g][lane] = address(ref, row)[first + spot.lane];
      }
    }
    for (const Product& p : stage.products) {
      for (std::size_t i = 0; i < p.gate.size(); ++i) {
        const bool last = !p.last.empty() && first + plan_.lanes > stage.width;
        const std::uint32_t lane = last ? p.last[i] : p.gate[i] * plan_.lanes;
        multiply(p, block, lane, row, count, sums[p.sum[i]].data());
      }
    }
    if (shares && stage.keeps_places) return store_places(stage, sums, row, first, count);
    for (std::uint32_t lane = 0; lane < count; ++lane) {
      std::array<float, 8> own{};
      for (std::size_t g = 0; g < stage.sums.size(); ++g) own[g] = sums[g][lane];
      run_epilogue(stage, own, row, first + lane);
    }
  }

  /// A lane of the vector of a sum.
  struct Spot {
    std::size_t sum = 0;
    std::uint32_t lane = 0;
  };
  /// Where unit `lane` of the last unit block of a sum stands while products run.
  Spot spot_of(const Stage& stage, std::size_t sum, std::uint32_t lane) const {
    const Place& place = stage.places[sum];
    const std::uint32_t at = place.lane + lane;
    if (at < plan_.lanes) return {place.host, at};
    return {place.next, at - plan_.lanes};
  }

  /// The sums of the last unit block, each where it stands in the vectors that sums share.
  void store_places(const Stage& stage, const std::array<std::array<float, kMaxLanes>, 8>& sums,
                    std::uint64_t row, std::uint32_t first, std::uint32_t count) const {
    for (std::size_t g = 0; g < stage.sums.size(); ++g) {
      for (std::uint32_t lane = 0; lane < count; ++lane) {
        const Spot spot = spot_of(stage, g, lane);
        for (const Instr& i : stage.epilogue) {
          if (i.action != Action::store) continue;
          if (stage.epilogue[static_cast<std::size_t>(i.a)].gate != spot.sum) continue;
          address(i.ref, row)[first + spot.lane] = sums[g][lane];
        }
      }
    }
  }

  /// `lane`: where the gate begins among the numbers of one k.
  void multiply(const Product& p, std::uint32_t block, std::uint32_t lane, std::uint64_t row,
                std::uint32_t count, float* sum) const {
    const auto* w =
        reinterpret_cast<const float*>(args_.weights + p.weights + block * p.block_stride) + lane;
    Chains c;
    std::copy_n(sum, count, c.sum[0].begin());
    accumulate({address(p.operand, row), w, std::size_t{p.gates_packed} * plan_.lanes, p.k,
                p.chains, count},
               c);
    // Chains are added pairwise: ((0+1)+(2+3)).
    for (std::uint32_t step = 1; step < p.chains; step *= 2) {
      for (std::uint32_t i = 0; i + step < p.chains; i += 2 * step) {
        for (std::uint32_t l = 0; l < count; ++l) c.sum[i][l] += c.sum[i + step][l];
      }
    }
    std::copy_n(c.sum[0].begin(), count, sum);
  }

  void run_epilogue(const Stage& stage, const std::array<float, 8>& sums, std::uint64_t row,
                    std::uint32_t unit) const {
    std::array<float, kMaxEpilogue> v;
    for (std::size_t n = 0; n < stage.epilogue.size(); ++n) {
      const Instr& i = stage.epilogue[n];
      auto arg = [&](std::int32_t k) { return v[static_cast<std::size_t>(k)]; };
      switch (i.action) {
        case Action::load:
          v[n] = address(i.ref, row)[unit];
          break;
        case Action::broadcast:
          v[n] = address(i.ref, row)[0];
          break;
        case Action::sum:
          v[n] = sums[i.gate];
          break;
        case Action::constant:
          v[n] = i.p;
          break;
        case Action::fma:
          v[n] = std::fma(arg(i.a), arg(i.b), arg(i.c));
          break;
        case Action::element:
          v[n] = eval(i.op, arg(i.a), i.b >= 0 ? arg(i.b) : 0.0F, i.p, i.q);
          break;
        case Action::quiet:
          v[n] = quiet(arg(i.a));
          break;
        case Action::store:
          store(i.ref, row, unit, arg(i.a));
          break;
      }
    }
  }

  static float quiet(float a) {
    const auto bits = std::bit_cast<std::uint32_t>(a);
    return bits == kUnwritten ? std::bit_cast<float>(bits | kQuietBit) : a;
  }

  /// A number of a ring is itself the sign that everything before it is done.
  void store(const Ref& ref, std::uint64_t row, std::uint32_t unit, float value) const {
    float& to = address(ref, row)[unit];
    if (is_ring(ref)) {
      std::atomic_ref<float>(to).store(value, std::memory_order_release);
    } else {
      to = value;
    }
  }

  /// Fills what this panel will store one step later with kUnwritten.
  void mark(const Stage& stage, std::uint32_t panel, std::uint32_t units) const {
    const std::uint32_t first = panel * stage.units_per_panel * plan_.lanes;
    const std::uint32_t count = std::min(units * plan_.lanes, stage.width - first);
    for (const Instr& i : stage.epilogue) {
      if (i.action != Action::store || !is_ring(i.ref)) continue;
      const Buffer& b = plan_.buffers[i.ref.buffer];
      auto* slot = static_cast<unsigned char*>(args_.buffer[i.ref.buffer]) + slot_offset(b, 2);
      for (std::uint64_t row = 0; row < rows_; ++row) {
        auto* to = reinterpret_cast<float*>(slot + row * b.row_stride + i.ref.offset);
        for (std::uint32_t u = first; u < first + count; ++u) {
          std::atomic_ref<float>(to[u]).store(std::bit_cast<float>(kUnwritten),
                                              std::memory_order_relaxed);
        }
      }
    }
  }

  void poll(const Stage& stage) const {
    for (const Ref& ref : stage.polls) {
      const std::uint64_t width = plan_.buffers[ref.buffer].width;
      for (std::uint64_t row = 0; row < rows_; ++row) {
        float* numbers = address(ref, row);
        for (std::uint64_t u = 0; u < width; ++u) {
          const float seen = std::atomic_ref<float>(numbers[u]).load(std::memory_order_acquire);
          if (std::bit_cast<std::uint32_t>(seen) != kUnwritten) continue;
          args_.wait_data(reinterpret_cast<std::uint32_t*>(numbers + u), width - u);
        }
      }
    }
  }

  void exchange() {
    ++exchanged_;
    const std::uint64_t target = args_.epoch + exchanged_;
    std::atomic_ref<std::uint64_t>(*args_.published[args_.participant])
        .store(target, std::memory_order_release);
    for (std::uint64_t p = 0; p < args_.participants; ++p) {
      if (p == args_.participant) continue;
      std::atomic_ref<std::uint64_t> counter(*args_.published[p]);
      if (counter.load(std::memory_order_acquire) < target) {
        args_.wait_slow(args_.published[p], target);
      }
    }
  }

  const KernelPlan& plan_;
  const KernelArgs& args_;
  std::uint64_t t_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t exchanged_ = 0;
};

}  // namespace

void interpret(const KernelPlan& plan, const KernelArgs& args) noexcept {
  Interpreter(plan, args).run();
}

}  // namespace deepcpu::jit
