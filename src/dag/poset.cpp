// SPDX-License-Identifier: Apache-2.0
#include "src/dag/poset.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "src/dag/matmul_dag.hpp"

namespace deepcpu {
namespace {

using Set = std::vector<bool>;

void unite(Set& into, const Set& from) {
  for (std::size_t i = 0; i < into.size(); ++i) {
    if (from[i]) into[i] = true;
  }
}

/// Finds, for every product of an unrolled stack, the products it depends on. Works on all nodes
/// of the cell, so dependences through element-wise paths (a skip, a delayed state) count too.
class Unroller {
 public:
  Unroller(const MatmulDag& dag, int layers, Direction direction, int steps)
      : dag_(dag),
        layers_(layers),
        directions_(direction == Direction::bidirectional ? 2 : 1),
        reversed_(direction == Direction::reverse),
        steps_(steps),
        poset_(static_cast<std::size_t>(layers * directions_ * steps) * dag.nodes().size()) {}

  Poset run() {
    for (int layer = 0; layer < layers_; ++layer) {
      outputs_below_ = std::move(outputs_);
      outputs_.assign(static_cast<std::size_t>(steps_), Set(poset_.size(), false));
      for (int d = 0; d < directions_; ++d) run_layer(layer, d);
    }
    return std::move(poset_);
  }

 private:
  void run_layer(int layer, int direction) {
    std::vector<Set> states(dag_.cell().states().size(), Set(poset_.size(), false));
    for (int i = 0; i < steps_; ++i) {
      const int t = reversed_ || direction == 1 ? steps_ - 1 - i : i;
      const int first =
          ((layer * directions_ + direction) * steps_ + t) * static_cast<int>(dag_.nodes().size());
      const std::vector<Set> needs = run_step(
          static_cast<std::size_t>(first), states,
          layer == 0 ? Set(poset_.size(), false) : outputs_below_[static_cast<std::size_t>(t)]);
      for (std::size_t s = 0; s < states.size(); ++s) {
        states[s] = needs[static_cast<std::size_t>(dag_.cell().states()[s].next)];
      }
      unite(outputs_[static_cast<std::size_t>(t)],
            needs[static_cast<std::size_t>(dag_.cell().output())]);
    }
  }

  /// What each node of the cell depends on, products included that it is itself.
  std::vector<Set> run_step(std::size_t first, const std::vector<Set>& states, const Set& x) {
    std::vector<Set> needs;
    std::size_t element = first;
    for (const Node& node : dag_.cell().nodes()) {
      Set set(poset_.size(), false);
      const int id = static_cast<int>(needs.size());
      if (id == dag_.cell().inputs().front()) set = x;
      for (std::size_t s = 0; s < states.size(); ++s) {
        if (dag_.cell().states()[s].node == id) set = states[s];
      }
      if (node.a >= 0) unite(set, needs[static_cast<std::size_t>(node.a)]);
      if (node.b >= 0) unite(set, needs[static_cast<std::size_t>(node.b)]);
      if (node.op == Op::matmul) {
        for (std::size_t i = 0; i < set.size(); ++i) {
          if (set[i]) poset_.before[i][element] = true;
        }
        set[element++] = true;
      }
      needs.push_back(std::move(set));
    }
    return needs;
  }

  const MatmulDag& dag_;
  int layers_;
  int directions_;
  bool reversed_;
  int steps_;
  Poset poset_;
  std::vector<Set> outputs_;        ///< per step: what y of the current layer depends on
  std::vector<Set> outputs_below_;  ///< the same of the layer below
};

Poset fuse(const MatmulDag& dag, const Poset& products) {
  const std::size_t n = dag.nodes().size();
  const std::size_t cells = n == 0 ? 0 : products.size() / n;
  const auto class_of = [&](std::size_t i) {
    return i / n * dag.classes().size() + static_cast<std::size_t>(dag.nodes()[i % n].matmul_class);
  };
  Poset fused(cells * dag.classes().size());
  for (std::size_t a = 0; a < products.size(); ++a) {
    for (std::size_t b = 0; b < products.size(); ++b) {
      if (products.before[a][b]) fused.before[class_of(a)][class_of(b)] = true;
    }
  }
  return fused;
}

/// Elements that need the same and are needed by the same are interchangeable: how many of them
/// are done matters, not which.
struct Twins {
  std::size_t element = 0;  ///< any of them
  std::size_t size = 0;
  bool hoistable = false;
  std::vector<std::size_t> needs;  ///< indices of groups
};

std::vector<Twins> find_twins(const Poset& poset, const std::vector<bool>& hoistable) {
  const std::size_t n = poset.size();
  std::map<std::tuple<Set, Set, bool>, std::size_t> index;
  std::vector<Twins> groups;
  for (std::size_t i = 0; i < n; ++i) {
    Set needs;
    for (std::size_t a = 0; a < n; ++a) needs.push_back(poset.before[a][i]);
    const bool hoist = !hoistable.empty() && hoistable[i];
    const auto [at, fresh] = index.try_emplace({needs, poset.before[i], hoist}, groups.size());
    if (fresh) groups.push_back({i, 0, hoist, {}});
    ++groups[at->second].size;
  }
  for (Twins& group : groups) {
    for (std::size_t other = 0; other < groups.size(); ++other) {
      if (poset.before[groups[other].element][group.element]) group.needs.push_back(other);
    }
  }
  return groups;
}

/// Counts by dynamic programming over down-sets: a down-set is the number of finished elements of
/// each group of twins.
class Counter {
 public:
  Counter(std::vector<Twins> groups, std::size_t effort)
      : groups_(std::move(groups)), effort_(effort) {
    std::size_t most = 0;
    for (const Twins& g : groups_) most = std::max(most, g.size);
    binomial_.push_back({Count(1)});
    for (std::size_t n = 1; n <= most; ++n) {
      std::vector<Count> row(n + 1, Count(1));
      for (std::size_t k = 1; k < n; ++k) row[k] = binomial_[n - 1][k - 1] + binomial_[n - 1][k];
      binomial_.push_back(std::move(row));
    }
  }

  std::optional<Count> run(int part) {
    const Count total = finish({std::vector<std::uint16_t>(groups_.size(), 0), part});
    if (effort_ == 0) return std::nullopt;
    return total;
  }

 private:
  /// Finished elements per group, and the part (0 once per run, 1 per block, 2 in the step).
  using State = std::pair<std::vector<std::uint16_t>, int>;

  /// Ways to complete a schedule from here.
  Count finish(const State& state) {
    if (const auto known = memo_.find(state); known != memo_.end()) return known->second;
    const std::vector<std::size_t> ready = ready_groups(state);
    Count ways;
    if (state.second < 2) {
      ways = finish({state.first, state.second + 1});
    } else if (ready.empty()) {
      ways = Count(1);
    }
    std::vector<std::size_t> take(ready.size(), 0);
    while (effort_ > 0 && advance(state, ready, take)) {
      --effort_;
      State after = state;
      Count choices(1);
      for (std::size_t i = 0; i < ready.size(); ++i) {
        const std::size_t left = groups_[ready[i]].size - state.first[ready[i]];
        after.first[ready[i]] = static_cast<std::uint16_t>(after.first[ready[i]] + take[i]);
        choices = choices * binomial_[left][take[i]];
      }
      ways += choices * finish(after);
    }
    memo_.emplace(state, ways);
    return ways;
  }

  /// The next way to take elements from the ready groups, like an odometer; false after the last.
  bool advance(const State& state, const std::vector<std::size_t>& ready,
               std::vector<std::size_t>& take) const {
    for (std::size_t i = 0; i < ready.size(); ++i) {
      if (take[i] < groups_[ready[i]].size - state.first[ready[i]]) {
        ++take[i];
        return true;
      }
      take[i] = 0;
    }
    return false;
  }

  std::vector<std::size_t> ready_groups(const State& state) const {
    std::vector<std::size_t> ready;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Twins& group = groups_[g];
      const bool rest = state.first[g] < group.size && (state.second == 2 || group.hoistable);
      const auto complete = [&](std::size_t n) { return state.first[n] == groups_[n].size; };
      if (rest && std::all_of(group.needs.begin(), group.needs.end(), complete)) {
        ready.push_back(g);
      }
    }
    return ready;
  }

  std::vector<Twins> groups_;
  std::size_t effort_;
  std::vector<std::vector<Count>> binomial_;
  std::map<State, Count> memo_;
};

}  // namespace

void Poset::order(std::size_t a, std::size_t b) {
  for (std::size_t i = 0; i < size(); ++i) {
    for (std::size_t j = 0; j < size(); ++j) {
      if ((i == a || before[i][a]) && (j == b || before[b][j])) before[i][j] = true;
    }
  }
}

Poset unroll(const MatmulDag& dag, int layers, Direction direction, int steps, Grain grain) {
  Poset products = Unroller(dag, layers, direction, steps).run();
  return grain == Grain::products ? products : fuse(dag, products);
}

std::optional<Count> count_schedules(const Poset& poset, const std::vector<bool>& hoistable,
                                     std::size_t effort) {
  // Above this the table of binomials alone is too much work, and the count of no use.
  constexpr std::size_t kMost = 256;
  if (poset.size() > kMost || effort == 0) return std::nullopt;
  return Counter(find_twins(poset, hoistable), effort).run(hoistable.empty() ? 2 : 0);
}

double log10_fubini(double n) {
  return (std::lgamma(n + 1.0) - (n + 1.0) * std::log(std::log(2.0))) / std::log(10.0) -
         std::log10(2.0);
}

}  // namespace deepcpu
