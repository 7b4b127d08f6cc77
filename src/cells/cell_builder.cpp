// SPDX-License-Identifier: Apache-2.0
/// The calls of CellBuilder. Each appends a node; mistakes that show at once are kept in the draft.
#include <fmt/format.h>

#include <cmath>
#include <new>
#include <optional>
#include <utility>

#include "src/cells/draft.hpp"
#include "src/guard_memory.hpp"

namespace deepcpu {
namespace {

/// Width of an element-wise result, see CellBuilder.
std::optional<Dim> join(Dim a, Dim b) {
  if (a == b || b == Dim::one) return a;
  if (a == Dim::one) return b;
  if (a == Dim::hidden || b == Dim::hidden) return Dim::hidden;
  return std::nullopt;
}

}  // namespace

CellBuilder::CellBuilder(std::string name) : draft_(new (std::nothrow) Draft) {
  if (draft_) draft_->name = std::move(name);
}

CellBuilder::~CellBuilder() = default;

/// One call of the builder, unless memory has run out or the cell was built: then all later calls
/// end here.
template <class Call>
void CellBuilder::attempt(const Call& call) {
  if (!draft_ || draft_->no_memory || draft_->built) return;
  const Status status = guard_memory("build a cell", [&]() -> Status {
    call();
    return {};
  });
  if (!status.ok()) draft_->no_memory = true;
}

template <class Call>
Value CellBuilder::attempt_value(const Call& call) {
  Value value(this, -1);  // stays so where the call does nothing, and is never looked at then
  attempt([&] { value = call(); });
  return value;
}

Value CellBuilder::push(Node node) {
  if (!std::isfinite(node.p) || !std::isfinite(node.q)) {
    draft_->fail(fmt::format("{}: {} must be a finite number", to_string(node.op),
                             std::isfinite(node.p) ? node.q : node.p));
  }
  draft_->nodes.push_back(std::move(node));
  draft_->is_later.push_back(false);
  return {this, static_cast<int>(draft_->nodes.size()) - 1};
}

bool CellBuilder::owns(Op op, Value value) {
  if (value.builder_ == this) return true;
  draft_->fail(fmt::format("{}: an argument belongs to another builder", to_string(op)));
  return false;
}

Value CellBuilder::unary(Op op, Value a, float p, float q) {
  return attempt_value([&]() -> Value {
    Node node;
    node.op = op;
    node.p = p;
    node.q = q;
    if (owns(op, a)) {
      node.a = a.id_;
      node.dim = draft_->node(a.id_).dim;
    }
    return push(std::move(node));
  });
}

Value CellBuilder::binary(Op op, Value a, Value b) {
  return attempt_value([&]() -> Value {
    Node node;
    node.op = op;
    if (owns(op, a) && owns(op, b)) {
      node.a = a.id_;
      node.b = b.id_;
      const Dim left = draft_->node(a.id_).dim;
      const Dim right = draft_->node(b.id_).dim;
      if (!join(left, right)) {
        draft_->fail(fmt::format("{} of {} and {}: widths {} and {} never agree", to_string(op),
                                 describe(*draft_, a.id_), describe(*draft_, b.id_),
                                 to_string(left), to_string(right)));
      }
      node.dim = join(left, right).value_or(Dim::hidden);
    }
    return push(std::move(node));
  });
}

int CellBuilder::add_parameter(Parameter parameter) {
  draft_->parameters.push_back(std::move(parameter));
  return static_cast<int>(draft_->parameters.size()) - 1;
}

Value CellBuilder::input(std::string name, Dim dim) {
  return attempt_value([&]() -> Value {
    if (draft_->inputs.empty() && dim != Dim::input) {
      draft_->fail(
          fmt::format("input {}: the first input is the sequence, its width is input, not {}", name,
                      to_string(dim)));
    }
    Node node;
    node.op = Op::input;
    node.dim = dim;
    node.name = std::move(name);
    const Value value = push(std::move(node));
    draft_->inputs.push_back(value.id_);
    return value;
  });
}

Value CellBuilder::state(std::string name, Dim dim) {
  return attempt_value([&]() -> Value {
    Node node;
    node.op = Op::state;
    node.dim = dim;
    node.name = name;
    const Value value = push(std::move(node));
    draft_->states.push_back({std::move(name), dim, value.id_, -1});
    return value;
  });
}

void CellBuilder::next(Value state, Value value) {
  attempt([&] {
    if (!owns(Op::state, state) || !owns(Op::state, value)) return;
    for (State& s : draft_->states) {
      if (s.node != state.id_) continue;
      if (s.next >= 0) draft_->fail(fmt::format("state {}: next() was called twice", s.name));
      s.next = value.id_;
      return;
    }
    draft_->fail(fmt::format("next(): {} is not a state", describe(*draft_, state.id_)));
  });
}

void CellBuilder::output(Value value) {
  attempt([&] {
    if (value.builder_ != this)
      return draft_->fail("output(): the value belongs to another builder");
    if (draft_->output >= 0)
      return draft_->fail("output() was called twice: a cell has one output");
    draft_->output = value.id_;
  });
}

Value CellBuilder::later(std::string name, Dim dim) {
  return attempt_value([&]() -> Value {
    Node node;
    node.dim = dim;
    node.name = std::move(name);
    const Value value = push(std::move(node));
    draft_->is_later.back() = true;
    return value;
  });
}

void CellBuilder::define(Value later, Value value) {
  attempt([&] {
    if (later.builder_ != this || value.builder_ != this) {
      return draft_->fail("define(): a value belongs to another builder");
    }
    const std::string what = describe(*draft_, later.id_);
    if (!draft_->is_later[static_cast<std::size_t>(later.id_)]) {
      return draft_->fail(fmt::format("define(): {} does not come from later()", what));
    }
    Node& node = draft_->node(later.id_);
    if (node.a >= 0) return draft_->fail(fmt::format("{}: define() was called twice", what));
    const Dim dim = draft_->node(value.id_).dim;
    if (node.dim != dim) {
      draft_->fail(fmt::format("{}: declared with width {} but defined with width {}", what,
                               to_string(node.dim), to_string(dim)));
    }
    node.a = value.id_;
  });
}

Value CellBuilder::matmul(std::string name, Value value, Dim rows) {
  return attempt_value([&]() -> Value {
    TensorBlock where{name, 0, 1};
    return matmul(std::move(name), value, std::move(where), rows);
  });
}

Value CellBuilder::matmul(std::string name, Value value, TensorBlock where, Dim rows) {
  return attempt_value([&]() -> Value {
    Node node;
    node.op = Op::matmul;
    node.dim = rows;
    Dim cols = Dim::one;
    if (owns(Op::matmul, value)) {
      node.a = value.id_;
      cols = draft_->node(value.id_).dim;
    }
    node.parameter = add_parameter(
        {std::move(name), rows, cols, true, std::move(where.tensor), where.block, where.blocks});
    return push(std::move(node));
  });
}

Value CellBuilder::bias(std::string name, Dim rows) {
  return attempt_value([&]() -> Value {
    TensorBlock where{name, 0, 1};
    return bias(std::move(name), std::move(where), rows);
  });
}

Value CellBuilder::bias(std::string name, TensorBlock where, Dim rows) {
  return attempt_value([&]() -> Value {
    Node node;
    node.op = Op::parameter;
    node.dim = rows;
    node.parameter = add_parameter({std::move(name), rows, Dim::one, false, std::move(where.tensor),
                                    where.block, where.blocks});
    return push(std::move(node));
  });
}

Value CellBuilder::constant(float value) {
  return attempt_value([&]() -> Value {
    Node node;
    node.p = value;
    return push(std::move(node));
  });
}

Value CellBuilder::add(Value a, Value b) { return binary(Op::add, a, b); }
Value CellBuilder::sub(Value a, Value b) { return binary(Op::sub, a, b); }
Value CellBuilder::mul(Value a, Value b) { return binary(Op::mul, a, b); }
Value CellBuilder::min(Value a, Value b) { return binary(Op::min, a, b); }
Value CellBuilder::max(Value a, Value b) { return binary(Op::max, a, b); }
Value CellBuilder::neg(Value a) { return unary(Op::neg, a); }
Value CellBuilder::one_minus(Value a) { return unary(Op::one_minus, a); }
Value CellBuilder::sigmoid(Value a) { return unary(Op::sigmoid, a); }
Value CellBuilder::tanh(Value a) { return unary(Op::tanh, a); }
Value CellBuilder::relu(Value a) { return unary(Op::relu, a); }
Value CellBuilder::leaky_relu(Value a, float slope) { return unary(Op::leaky_relu, a, slope); }
Value CellBuilder::hard_sigmoid(Value a, float slope, float offset) {
  return unary(Op::hard_sigmoid, a, slope, offset);
}
Value CellBuilder::softsign(Value a) { return unary(Op::softsign, a); }
Value CellBuilder::exp(Value a) { return unary(Op::exp, a); }

Value CellBuilder::clip(Value a, float low, float high) {
  return attempt_value([&]() -> Value {
    if (low > high) draft_->fail(fmt::format("clip: low={} must not exceed high={}", low, high));
    return unary(Op::clip, a, low, high);
  });
}

Value CellBuilder::named(std::string name, Value value) {
  return attempt_value([&]() -> Value {
    if (value.builder_ != this) {
      draft_->fail(fmt::format("named {}: the value belongs to another builder", name));
      return value;
    }
    Node& node = draft_->node(value.id_);
    if (name.empty()) draft_->fail("named(): the name must not be empty");
    if (!node.name.empty()) {
      draft_->fail(
          fmt::format("named {}: {} has a name already", name, describe(*draft_, value.id_)));
    }
    node.name = std::move(name);
    return value;
  });
}

Value operator+(Value a, Value b) { return a.builder_->add(a, b); }
Value operator-(Value a, Value b) { return a.builder_->sub(a, b); }
Value operator*(Value a, Value b) { return a.builder_->mul(a, b); }
Value operator-(Value a) { return a.builder_->neg(a); }

Result<Cell> CellBuilder::build() {
  if (!draft_ || draft_->no_memory) return Error::memory("build a cell");
  return guard_memory("build a cell", [&] { return finish(*draft_); });
}

Result<Cell> CellBuilder::finish(Draft& draft) {
  if (draft.built) return Error(fmt::format("cell {}: build() was called already", draft.name));
  draft.built = true;
  Status status = draft.error.empty() ? check_parts(draft) : Status(Error(draft.error));
  if (status.ok()) status = sort_nodes(draft);
  if (!status.ok()) return Error(fmt::format("cell {}: {}", draft.name, status.error().message()));
  Cell cell;
  cell.name_ = draft.name;  // kept for the sentence of a second build()
  cell.nodes_ = std::move(draft.nodes);
  cell.parameters_ = std::move(draft.parameters);
  cell.states_ = std::move(draft.states);
  cell.inputs_ = std::move(draft.inputs);
  cell.output_ = draft.output;
  return cell;
}

}  // namespace deepcpu
