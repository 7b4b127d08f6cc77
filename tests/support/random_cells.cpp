// SPDX-License-Identifier: Apache-2.0
#include "tests/support/random_cells.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

namespace deepcpu::test {
namespace {

/// A value of the growing graph.
struct Item {
  Value value;
  Dim dim;
  double bound;  ///< an estimate of the largest magnitude, only to keep numbers small
  bool used = false;
};

constexpr double kProductBound = 20.0;  // weights are in ±1/sqrt(H), operands small
constexpr double kLargest = 30.0;       // squashed from here on
constexpr double kLargestExponent = 3.0;
constexpr int kLevelProducts = 7;  // states and outputs of other widths may add a few

class Grower {
 public:
  explicit Grower(std::uint64_t seed)
      : random_(seed * 0x9e3779b97f4a7c15U + 77), b_("random_" + std::to_string(seed)) {}

  Cell grow() {
    add_sources();
    const int levels = random_.integer(1, 3);
    for (int level = 0; level < levels; ++level) {
      add_level(level);
      const int extra = random_.integer(0, 4);
      for (int i = 0; i < extra; ++i) add(element_wise());
    }
    if (late_ >= 0) define_late();
    for (std::size_t i = 0; i < states_.size(); ++i) finish_state(i);
    finish_output();
    Result<Cell> cell = b_.build();
    if (!cell.ok()) throw std::runtime_error("random cell refused: " + cell.error().message());
    return std::move(*cell);
  }

 private:
  struct StateItem {
    std::size_t item;
    Dim dim;
  };

  std::size_t add(Item item) {
    items_.push_back(item);
    return items_.size() - 1;
  }

  Item take(std::size_t i) {
    items_[i].used = true;
    return items_[i];
  }

  std::string fresh(const char* prefix) { return prefix + std::to_string(names_++); }

  void add_sources() {
    x_ = add({b_.input("x"), Dim::input, 1.0});
    if (random_.chance(0.2)) add({b_.input("attention", Dim::one), Dim::one, 1.0});
    if (random_.chance(0.1)) add({b_.input("context", Dim::hidden), Dim::hidden, 1.0});
    const int count = random_.integer(1, 3);
    for (int i = 0; i < count; ++i) {
      const Dim dim = i == 0 ? Dim::hidden : random_dim();
      states_.push_back({add({b_.state(fresh("s"), dim), dim, 1.0}), dim});
    }
    if (random_.chance(0.15)) {
      late_ = static_cast<int>(add({b_.later("late"), Dim::hidden, 1.0}));
    }
  }

  Dim random_dim() {
    const int n = random_.integer(0, 19);
    if (n == 0) return Dim::one;
    if (n == 1) return Dim::input;
    return n <= 3 ? Dim::proj : Dim::hidden;
  }

  /// One to three sums of products, often gates with a common operand, each squashed.
  void add_level(int level) {
    const int sums = std::min(random_.integer(1, 3), kLevelProducts - products_);
    const bool stacked = sums > 1 && random_.chance(0.4);
    const std::string tensor = fresh("stacked");
    std::size_t common = level == 0 ? x_ : pick_operand();
    for (int s = 0; s < sums && (stacked || products_ < kLevelProducts); ++s) {
      if (!stacked && level > 0 && random_.chance(0.5)) common = pick_operand();
      const TensorBlock where =
          stacked ? TensorBlock{tensor, s, sums} : TensorBlock{fresh("w"), 0, 1};
      // Now and then one number for the whole layer.
      const Dim dim = !stacked && random_.chance(0.1) ? Dim::one : Dim::hidden;
      Item sum{b_.matmul(fresh("m"), take(common).value, where, dim), dim, kProductBound};
      const int left = kLevelProducts - products_ - (stacked ? sums - s : 1);
      const int more = std::clamp(left, 0, random_.integer(0, 2));
      for (int i = 0; i < more; ++i) sum = join_product(sum);
      products_ += 1 + more;
      add(squash(with_addends(sum)));
    }
  }

  std::size_t pick_operand() {
    // Late items more often, so that levels really depend on each other.
    const auto n = static_cast<std::int64_t>(items_.size());
    const std::int64_t low = random_.chance(0.5) ? n / 2 : 0;
    return static_cast<std::size_t>(random_.range(low, n - 1));
  }

  Item join_product(const Item& sum) {
    const Value product = b_.matmul(fresh("w"), take(pick_operand()).value, sum.dim);
    const int kind = random_.integer(0, 9);
    if (kind == 0) return {sum.value - product, sum.dim, sum.bound + kProductBound};
    if (kind == 1) return {product + sum.value, sum.dim, sum.bound + kProductBound};
    return {sum.value + product, sum.dim, sum.bound + kProductBound};
  }

  Item with_addends(Item sum) {
    if (random_.chance(0.7)) sum.value = sum.value + b_.bias(fresh("bias"), sum.dim);
    if (random_.chance(0.2)) sum.value = b_.bias(fresh("bias"), sum.dim) + sum.value;
    if (sum.dim == Dim::hidden && random_.chance(0.2)) {  // a peephole
      const std::vector<std::size_t> wide = of_dim(Dim::hidden);
      const Item item = take(random_.pick(wide));
      sum.value = sum.value + b_.bias(fresh("peephole")) * item.value;
      sum.bound += item.bound;
    }
    return sum;
  }

  std::vector<std::size_t> of_dim(Dim dim) const {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].dim == dim) out.push_back(i);
    }
    return out;
  }

  Item squash(const Item& in) {
    const Value v = in.value;
    switch (random_.integer(0, 6)) {
      case 0:
      case 1:
        return {b_.sigmoid(v), in.dim, 1.0};
      case 2:
      case 3:
        return {b_.tanh(v), in.dim, 1.0};
      case 4:
        return {b_.softsign(v), in.dim, 1.0};
      case 5:
        return {b_.clip(v, -0.75F, 1.0F), in.dim, 1.0};
      default:
        return {b_.hard_sigmoid(v), in.dim, 1.0};
    }
  }

  /// A random value that may stand beside a hidden one.
  Item operand() {
    if (random_.chance(0.1)) {
      const double c = random_.uniform(-2.0, 2.0);
      return {b_.constant(static_cast<float>(c)), Dim::one, std::abs(c)};
    }
    std::vector<std::size_t> fits = of_dim(Dim::hidden);
    const std::vector<std::size_t> scalars = of_dim(Dim::one);
    fits.insert(fits.end(), scalars.begin(), scalars.end());
    return take(random_.pick(fits));
  }

  Item element_wise() {
    const Item out = random_.chance(0.5) ? binary() : unary();
    if (random_.chance(0.1)) b_.named(fresh("v"), out.value);
    return out.bound > kLargest ? squash(out) : out;
  }

  Item binary() {
    const Item a = operand();
    const Item b = operand();
    const Dim dim = a.dim == Dim::one ? b.dim : a.dim;
    switch (random_.integer(0, 6)) {
      case 0:
        return {a.value + b.value, dim, a.bound + b.bound};
      case 1:
        return {a.value - b.value, dim, a.bound + b.bound};
      case 2:
      case 3:
        return {a.value * b.value, dim, a.bound * b.bound};
      case 4:
        return {b_.min(a.value, b.value), dim, std::max(a.bound, b.bound)};
      case 5:
        return {b_.max(a.value, b.value), dim, std::max(a.bound, b.bound)};
      default:
        return mixed(a, b);
    }
  }

  /// (1 - f) * a + f * b with a gate f, as GRU mixes.
  Item mixed(const Item& a, const Item& b) {
    const Item f = operand();
    const Value gate = b_.sigmoid(f.value);
    const Dim dim = a.dim == Dim::one && b.dim == Dim::one ? f.dim : Dim::hidden;
    return {b_.one_minus(gate) * a.value + gate * b.value, dim, a.bound + b.bound};
  }

  Item unary() {
    const Item a = operand();
    switch (random_.integer(0, 6)) {
      case 0:
        return {-a.value, a.dim, a.bound};
      case 1:
        return {b_.one_minus(a.value), a.dim, a.bound + 1.0};
      case 2:
        return {b_.relu(a.value), a.dim, a.bound};
      case 3:
        return {b_.leaky_relu(a.value, 0.125F), a.dim, a.bound};
      case 4:
        return exponential(a);
      case 5:
        return {b_.clip(a.value, -0.5F, 0.8125F), a.dim, 0.8125};
      default:
        return squash(a);
    }
  }

  Item exponential(const Item& a) {
    const auto top = static_cast<float>(kLargestExponent);
    const Value limited = a.bound > kLargestExponent ? b_.clip(a.value, -top, top) : a.value;
    return {b_.exp(limited), a.dim, std::exp(std::min(a.bound, kLargestExponent))};
  }

  /// The value that was used before its definition: depends on a state only, hence on no cycle.
  void define_late() {
    const Item& state = items_[states_[0].item];
    b_.define(items_[static_cast<std::size_t>(late_)].value,
              b_.tanh(b_.matmul("late_w", state.value)));
    items_[states_[0].item].used = true;
  }

  void finish_state(std::size_t i) {
    const StateItem state = states_[i];
    const Item old = items_[state.item];
    if (state.dim != Dim::hidden) {
      const Item from = take(random_.pick(of_dim(Dim::hidden)));
      const Item sum{b_.matmul(fresh("to_state"), from.value, state.dim), state.dim, kProductBound};
      b_.next(old.value, squash(sum).value);
      return;
    }
    Item next = collected();
    if (next.dim != Dim::hidden || random_.chance(0.4)) next = mixed(take(state.item), next);
    if (next.bound > 1.0) next = squash(next);
    b_.next(old.value, next.value);
    add({next.value, Dim::hidden, 1.0, true});
  }

  /// A hidden value, by preference one that nothing uses yet.
  Item collected() {
    std::vector<std::size_t> unused;
    for (const std::size_t i : of_dim(Dim::hidden)) {
      if (!items_[i].used) unused.push_back(i);
    }
    if (!unused.empty()) return take(random_.pick(unused));
    return take(random_.pick(of_dim(Dim::hidden)));
  }

  /// Adds up all that is unused, so that no node is dead.
  void finish_output() {
    Item out = collected();
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].used) continue;
      const Item item = take(i);
      const bool fits = item.dim == Dim::hidden || item.dim == Dim::one;
      const Value more = fits ? item.value : b_.matmul(fresh("to_output"), item.value);
      out = {out.value + more, Dim::hidden, out.bound + (fits ? item.bound : kProductBound)};
    }
    if (out.bound > 4.0) out = squash(out);
    if (random_.chance(0.1)) {  // a skip over the cell: the output is as wide as x
      out = {b_.matmul("back", out.value, Dim::input) + items_[x_].value, Dim::input, 4.0};
    }
    b_.output(out.value);
  }

  Random random_;
  CellBuilder b_;
  std::vector<Item> items_;
  std::vector<StateItem> states_;
  std::size_t x_ = 0;
  int late_ = -1;
  int names_ = 0;
  int products_ = 0;
};

}  // namespace

Cell random_cell(std::uint64_t seed) { return Grower(seed).grow(); }

}  // namespace deepcpu::test
