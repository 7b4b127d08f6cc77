// SPDX-License-Identifier: Apache-2.0
/// ModelSpec (what), Weights (the numbers), Model (compiled, immutable), Session (state + scratch).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/cell.hpp"
#include "deepcpu/result.hpp"
#include "deepcpu/schedule.hpp"

#pragma GCC visibility push(default)
namespace deepcpu {

enum class Direction : std::uint8_t { forward, reverse, bidirectional };
std::string_view to_string(Direction direction) noexcept;

/// Memory order of x and y. States are always [layers * directions, batch, width].
enum class Layout : std::uint8_t { time_major /* [T,B,I] */, batch_major /* [B,T,I] */ };

/// Sizes for a cell of the user's own, by name: `{.input = 8, .hidden = {16}}`. ModelSpec says what
/// they mean.
struct ModelSizes {
  std::int64_t input = 0;
  std::vector<std::int64_t> hidden{};
  std::int64_t projection = 0;
  Direction direction = Direction::forward;
  std::int64_t batch = 1;
  std::int64_t steps = 100;
};

/// A cell with its sizes. Written as a problem string: `lstm:i40h256l3`,
/// `gru:i64h64b4,reset=before`, `mgu:i8h16/32` (per layer). dims: i h [l] [p] [bi|rev] [b] [t] in
/// any order, each once.
struct ModelSpec {
  Cell cell;
  /// Cell options as `key=value`, only those that differ from the cell's defaults, sorted by key.
  std::map<std::string, std::string> options;
  std::int64_t input = 0;            ///< width of x
  std::vector<std::int64_t> hidden;  ///< hidden size per layer; its length is the number of layers
  std::int64_t projection = 0;       ///< projection size, 0 = none
  Direction direction = Direction::forward;
  std::int64_t batch = 1;  ///< rows, 1..1024
  /// T that the schedule is chosen for, and at which bench and tune measure. A run may use any T;
  /// the results are the same.
  std::int64_t steps = 100;

  /// Parses and validates. Unknown cells, keys, and values out of range are errors that name them.
  static Result<ModelSpec> parse(std::string_view problem);
  /// A spec for a cell of the user's own; validates.
  static Result<ModelSpec> make(Cell cell, ModelSizes sizes);
  /// All rules in one place: ranges, products of dimensions against memory, cell against sizes.
  Status validate() const;
  /// The canonical problem string; parse(str()) gives the same spec for registered cells.
  std::string str() const;

  int layers() const noexcept { return static_cast<int>(hidden.size()); }
  int directions() const noexcept { return direction == Direction::bidirectional ? 2 : 1; }
  /// Width of a symbolic dimension in layer `layer`.
  std::int64_t width(Dim dim, int layer) const;
  /// Width of the model's output y: output width of the last layer times directions.
  std::int64_t output_width() const;
};

/// Registers a cell under its name, so that problem strings find it. Thread-safe. A name that is
/// taken is an error.
Status register_cell(const Cell& cell);
/// What `deepcpu cells` lists.
struct CellInfo {
  std::string name;
  std::string summary;               ///< one line
  std::vector<std::string> options;  ///< as `reset=before|after`
};
std::vector<CellInfo> list_cells();

/// A named float32 tensor, row-major.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::span<const float> data;
};

/// Named tensors in PyTorch's names and gate order: `weight_ih_l0` [gates*H, I], `weight_hh_l0`,
/// `bias_ih_l0`, `bias_hh_l0`, with `_reverse` appended for the reverse direction of a
/// bidirectional model; a model that only runs in reverse uses the plain names. A user's cell names
/// its tensors `<name>_l<layer>`. Copyable; copies share the bytes that the object owns.
class Weights {
 public:
  Weights() = default;
  /// Adds a view; the caller keeps `data` alive until Model::compile has returned.
  Status add(std::string name, std::vector<std::int64_t> shape, std::span<const float> data);
  /// Adds a tensor whose gates stand in another framework's order, `gates` naming them one letter
  /// each: PyTorch "ifgo" and "rzn", ONNX "iofc" and "zrh", Keras "ifco" and "zrh", peepholes of
  /// ONNX "iof" (c means g, h means n). The gates are brought into the order that the built-in
  /// cells use: ifgo, rzn, ifo. With `transposed` the data is [columns, gates * rows], as Keras
  /// stores kernels; `shape` is that of the data. Copies; the caller's array may go at once.
  Status add_gates(std::string name, std::string_view gates, std::vector<std::int64_t> shape,
                   std::span<const float> data, bool transposed = false);
  /// Reads the float32 tensors of a safetensors file: all of them, or those whose name begins with
  /// `prefix`, without it ("encoder." of a whole model's file). An error if no tensor, of whatever
  /// type, begins so.
  static Result<Weights> from_safetensors(const std::string& path, std::string_view prefix = {});
  Status to_safetensors(const std::string& path) const;
  /// Uniform in ±1/sqrt(H) as PyTorch initialises, from a fixed generator: the same on every
  /// machine.
  static Result<Weights> random(const ModelSpec& spec, std::uint64_t seed);

  const std::map<std::string, Tensor>& tensors() const noexcept { return tensors_; }
  /// Tensors of a file that are not float32: name and the file's word for the type. They are not
  /// read; a model that needs one of them says so when it is compiled.
  const std::map<std::string, std::string>& skipped() const noexcept { return skipped_; }

 private:
  Status add_view(std::string name, std::vector<std::int64_t> shape, std::span<const float> data);
  Status add_reordered(std::string name, std::string_view gates, std::vector<std::int64_t> shape,
                       std::span<const float> data, bool transposed);
  Status add_owned(std::string name, std::vector<std::int64_t> shape, std::vector<float> data);

  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> skipped_;
  std::vector<std::shared_ptr<const std::vector<float>>> owned_;
};

struct CompileOptions {
  /// A cap; the schedule decides. A short run may take fewer than the schedule says: a session goes
  /// by how long its runs take on several threads, on one, and on threads that share only products
  /// of the input, unless `schedule` is given.
  int threads = 1;
  std::optional<Isa> isa{};            ///< a cap besides host_isa()
  std::optional<Schedule> schedule{};  ///< instead of the default; checked, never trusted
};

/// How a session treats its helper threads, one for each thread of the schedule but the caller's.
struct HelperOptions {
  /// Microseconds that a helper keeps looking for the next run before it sleeps. A run that finds
  /// it asleep takes tens of microseconds longer; until then it keeps a processor busy. 0 to 10^7.
  int spin_us = 50;
  /// Binds each helper to one processor of those that the thread which makes the session may use:
  /// of cores of their own, and not those of other sessions of the process, as far as there are
  /// enough. The caller's thread is never bound; a helper that finds it on its own core leaves for
  /// the processor that the session has besides, if it has one.
  bool pin = true;
};

class Session;

/// A compiled model: code and packed weights. Immutable, shared by any number of sessions and
/// threads; the user's weight arrays may be freed once compile() has returned. Copies are the same
/// model; moving copies, so that what was moved from can still be used.
class Model {
 public:
  Model(const Model&) = default;
  Model& operator=(const Model&) = default;
  ~Model() = default;

  /// Takes no more threads than there are processors that the calling thread may use.
  static Result<Model> compile(const ModelSpec& spec, const Weights& weights,
                               const CompileOptions& options = {});
  /// All allocation for running happens here. `max_steps` is the longest run that a stack of
  /// bidirectional layers will see (it keeps whole sequences between its layers), 0 = as long as
  /// spec().steps; other models run any length in constant memory and ignore it. Where the calling
  /// thread may use fewer processors than the one that compiled, or threads cannot be had, one
  /// thread serves (Session::notes()).
  Result<Session> session(Layout layout = Layout::time_major, std::int64_t max_steps = 0,
                          const HelperOptions& helpers = {}) const;

  const ModelSpec& spec() const noexcept;
  const Schedule& schedule() const noexcept;
  /// Fallbacks taken, one sentence each; empty when everything went as asked.
  const std::vector<std::string>& notes() const noexcept;
  std::size_t packed_bytes() const noexcept;
  std::size_t code_bytes() const noexcept;
  double compile_microseconds() const noexcept;  ///< schedule, lower, emit; without packing

  struct Impl;

 private:
  explicit Model(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// One stream's state with the scratch to run it. Not thread-safe: one run at a time. After fork()
/// the child has copies of the parent's sessions that no run was under way in; one with helpers
/// starts them anew in its first run there, which allocates, and fails if they cannot be had. Of
/// one that was moved from, calls that can report do, and others do nothing.
class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// x: [T,B,I] or [B,T,I] by the session's layout, y alike with the output width, apart from all
  /// that is read. T follows from x.size(); 0 is legal. Does not allocate. The state carries on to
  /// the next call. `extra` holds the cell's further inputs in the order of Cell::inputs(), each
  /// [T,B,width] in the same layout. `lengths` [B] gives every row its own number of valid steps,
  /// 0..T: outputs past a row's end are zero, its final state is that of its last valid step, and a
  /// reverse direction starts at it. Bidirectional and reverse models start from zero (or set)
  /// states at every call. Takes less than 48 KiB of the calling thread's stack.
  Status run(std::span<const float> x, std::span<float> y,
             std::span<const std::span<const float>> extra = {},
             std::span<const std::int64_t> lengths = {}) noexcept;
  /// Fallbacks taken when the session was made, one sentence each.
  std::vector<std::string> notes() const;
  /// Threads that took part in the last run, 0 before the first: those of the schedule that have a
  /// part of the model (or, where that is faster, share only products of the input), or one where
  /// the session went on alone for speed or had to (notes()).
  int threads() const noexcept;
  /// What those threads shared: as the schedule says, or Parallel::hoist where the session goes
  /// that way for speed. Parallel::none with one thread: nothing; with several: every product.
  Parallel parallel() const noexcept;
  /// All states to zero.
  void reset() noexcept;
  /// State `name` of all layers, [layers * directions, batch, width], as PyTorch orders them. In a
  /// cell whose hidden size differs per layer, the layers' blocks follow each other.
  Status set_state(std::string_view name, std::span<const float> values);
  Status get_state(std::string_view name, std::span<float> values) const;

  struct Impl;

 private:
  friend class Model;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace deepcpu
#pragma GCC visibility pop
