// SPDX-License-Identifier: Apache-2.0
/// A recurrent cell as data: an expression graph of one time step.
///
/// A cell has named inputs, one output, loop-carried states and parameters. Its nodes are matrix
/// products and element-wise operations. LSTM, GRU and the vanilla RNN are built with this same
/// builder (src/cells); nothing else in the project knows them.
///
///     deepcpu::CellBuilder b("mgu");                       // minimal gated unit
///     auto x = b.input("x");
///     auto h = b.state("h");
///     auto f = b.sigmoid(b.bias("b_f") + b.matmul("w_f", x) + b.matmul("u_f", h));
///     auto n = b.tanh(b.bias("b_n") + b.matmul("w_n", x) + b.matmul("u_n", f * h));
///     auto next = h + f * (n - h);
///     b.next(h, next);
///     b.output(next);
///     deepcpu::Cell cell = b.build().value();
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/result.hpp"

#pragma GCC visibility push(default)
namespace deepcpu {

/// The width of a value, still symbolic: ModelSpec gives it a number per layer.
enum class Dim : std::uint8_t {
  one,     ///< one number per row and step, broadcast where it meets a wider value
  input,   ///< width of the layer's input x
  hidden,  ///< hidden size
  proj,    ///< projection size
};

/// What a node computes. `a` and `b` are its arguments, `p` and `q` its numbers.
enum class Op : std::uint8_t {
  input,         ///< x_t or a further input
  state,         ///< value of a state at the end of the previous step
  parameter,     ///< a parameter vector (bias, peephole)
  constant,      ///< p
  matmul,        ///< W · a, W a parameter matrix [rows, cols]
  add,           ///< a + b
  sub,           ///< a - b
  mul,           ///< a * b, element by element
  neg,           ///< -a
  min,           ///< smaller of a and b; NaN if either is NaN
  max,           ///< larger of a and b; NaN if either is NaN
  one_minus,     ///< 1 - a
  sigmoid,       ///< 1 / (1 + exp(-a))
  tanh,          ///< hyperbolic tangent
  relu,          ///< max(a, 0); NaN stays NaN
  leaky_relu,    ///< a if a > 0, else p * a
  hard_sigmoid,  ///< min(1, max(0, p * a + q))
  softsign,      ///< a / (1 + |a|)
  exp,           ///< e^a
  clip,          ///< min(q, max(p, a)); NaN stays NaN
};

/// Short lower-case name of an operation, as `deepcpu dump` prints it.
std::string_view to_string(Op op) noexcept;
std::string_view to_string(Dim dim) noexcept;

/// One node of the graph. Nodes are stored in an order in which arguments precede users.
struct Node {
  Op op = Op::constant;
  Dim dim = Dim::one;
  int a = -1;          ///< node id of the first argument, -1 if none
  int b = -1;          ///< node id of the second argument, -1 if none
  int parameter = -1;  ///< index into Cell::parameters() for matmul and parameter nodes
  float p = 0.0F;
  float q = 0.0F;
  std::string name;  ///< of an input, a state or one that the user named; else empty
};

/// A weight matrix [rows, cols] or vector [rows] and where its numbers stand in the user's
/// tensors. Several parameters may share one tensor, stacked by rows as PyTorch stacks the gates:
/// this one is the block `block` of `blocks` equal row blocks. Tensors are named
/// `<tensor>_l<layer>`, with `_reverse` appended for the reverse direction. A block that no
/// parameter names is legal: the tensor holds it, nothing reads it.
struct Parameter {
  std::string name;
  Dim rows = Dim::hidden;
  Dim cols = Dim::one;  ///< Dim::one for a vector
  bool is_matrix = false;
  std::string tensor;
  int block = 0;
  int blocks = 1;
};

/// A loop-carried state. `node` is its value before the step, `next` the value after it.
struct State {
  std::string name;
  Dim dim = Dim::hidden;
  int node = -1;
  int next = -1;
};

/// A validated cell graph. Immutable; copies are cheap enough to pass around (a few hundred bytes
/// per node). Nodes stand in a canonical order: the inputs, the states, then every node after its
/// arguments, as a walk from the states' next values and the output meets them. Parameters stand
/// in the order in which that walk meets them. So the order in which a compiler evaluates the
/// builder's calls does not show.
class Cell {
 public:
  const std::string& name() const noexcept { return name_; }
  const std::vector<Node>& nodes() const noexcept { return nodes_; }
  const std::vector<Parameter>& parameters() const noexcept { return parameters_; }
  const std::vector<State>& states() const noexcept { return states_; }
  /// Node ids of the inputs; the first is the sequence input x.
  const std::vector<int>& inputs() const noexcept { return inputs_; }
  /// Node id of the output y_t.
  int output() const noexcept { return output_; }
  Dim output_dim() const noexcept { return nodes_[static_cast<std::size_t>(output_)].dim; }
  bool uses(Dim dim) const noexcept;
  /// The graph as text, one node per line: `%5 hidden = add %3 %4`. Equal graphs print equally,
  /// different ones differently.
  std::string to_text() const;

 private:
  friend class CellBuilder;
  std::string name_;
  std::vector<Node> nodes_;
  std::vector<Parameter> parameters_;
  std::vector<State> states_;
  std::vector<int> inputs_;
  int output_ = -1;
};

class CellBuilder;

/// Handle of a node under construction. Arithmetic between values adds nodes to their builder;
/// a value of one builder must not meet one of another (build() reports it).
class Value {
 public:
  int id() const noexcept { return id_; }

 private:
  friend class CellBuilder;
  friend Value operator+(Value a, Value b);
  friend Value operator-(Value a, Value b);
  friend Value operator*(Value a, Value b);
  friend Value operator-(Value a);
  Value(CellBuilder* builder, int id) : builder_(builder), id_(id) {}
  CellBuilder* builder_;
  int id_;
};

Value operator+(Value a, Value b);
Value operator-(Value a, Value b);
Value operator*(Value a, Value b);
Value operator-(Value a);

/// Where a parameter's numbers stand in the user's tensors, see Parameter.
struct TensorBlock {
  std::string tensor;
  int block = 0;
  int blocks = 1;
};

/// Builds a Cell. Calls never fail one by one: the first mistake is kept and build() returns it,
/// also that memory ran out.
/// Not thread-safe. A Value must not outlive its builder.
///
/// Widths: the arguments of an element-wise operation have the same Dim, or one of them is
/// Dim::one and is broadcast, or one is Dim::hidden and the other Dim::input or Dim::proj: then
/// the result is Dim::hidden and ModelSpec demands that the two are the same number.
///
/// Names: letters, digits and underscores, starting with a letter, at most 64 characters; tensors
/// also dots. No two inputs, states, later() or named() values share a name, nor two parameters.
///
/// Limits: 1 to 4 inputs, 1 to 16 states (a map without a state is no recurrence and is refused),
/// at most 512 nodes, at most 64 blocks in a tensor, finite constants.
class CellBuilder {
 public:
  /// `name`: letters, digits and underscores, starting with a letter; it becomes the cell's name
  /// in problem strings.
  explicit CellBuilder(std::string name);
  ~CellBuilder();
  CellBuilder(const CellBuilder&) = delete;
  CellBuilder& operator=(const CellBuilder&) = delete;

  /// The first input is the sequence input and has Dim::input. Further ones state their own.
  Value input(std::string name, Dim dim = Dim::input);
  /// The state's value at the end of the previous step.
  Value state(std::string name, Dim dim = Dim::hidden);
  /// Sets the state's value after this step. Every state needs exactly one.
  void next(Value state, Value value);
  /// The output y_t; exactly one.
  void output(Value value);

  /// A value that is defined later, so that equations may be written in any order; build() sorts
  /// the nodes and reports a cycle inside a step.
  Value later(std::string name, Dim dim = Dim::hidden);
  void define(Value later, Value value);

  /// W · value, W a new parameter matrix [rows, width of value]. Without a TensorBlock the
  /// parameter is a tensor of its own, named `name`.
  Value matmul(std::string name, Value value, Dim rows = Dim::hidden);
  Value matmul(std::string name, Value value, TensorBlock where, Dim rows = Dim::hidden);
  /// A parameter vector, added (bias) or multiplied (peephole).
  Value bias(std::string name, Dim rows = Dim::hidden);
  Value bias(std::string name, TensorBlock where, Dim rows = Dim::hidden);
  Value constant(float value);

  Value add(Value a, Value b);
  Value sub(Value a, Value b);
  Value mul(Value a, Value b);
  Value neg(Value a);
  Value min(Value a, Value b);
  Value max(Value a, Value b);
  Value one_minus(Value a);
  Value sigmoid(Value a);
  Value tanh(Value a);
  Value relu(Value a);
  Value leaky_relu(Value a, float slope = 0.01F);
  Value hard_sigmoid(Value a, float slope = 0.2F, float offset = 0.5F);
  Value softsign(Value a);
  Value exp(Value a);
  Value clip(Value a, float low, float high);
  /// Gives a node a name that dumps and listings show; returns the same value.
  Value named(std::string name, Value value);

  /// Checks the whole graph (widths agree, one output, every state read and given a next value,
  /// no unused node, no cycle inside a step) and returns it. The builder is spent afterwards.
  Result<Cell> build();

  /// What has been built so far; opaque.
  struct Draft;

 private:
  template <class Call>
  void attempt(const Call& call);
  template <class Call>
  Value attempt_value(const Call& call);
  Value push(Node node);
  Value unary(Op op, Value a, float p = 0.0F, float q = 0.0F);
  Value binary(Op op, Value a, Value b);
  int add_parameter(Parameter parameter);
  bool owns(Op op, Value value);
  static Result<Cell> finish(Draft& draft);

  std::unique_ptr<Draft> draft_;
};

}  // namespace deepcpu
#pragma GCC visibility pop
