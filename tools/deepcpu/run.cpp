// SPDX-License-Identifier: Apache-2.0
/// deepcpu run: a model's output for given or random weights and inputs.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "src/model/weights.hpp"
#include "src/runtime/row_order.hpp"
#include "tools/deepcpu/arrays.hpp"
#include "tools/deepcpu/command.hpp"
#include "tools/deepcpu/notes.hpp"
#include "tools/deepcpu/output_files.hpp"
#include "tools/deepcpu/run_flags.hpp"

namespace deepcpu::cli {
namespace {

/// Everything that one run reads, checked against the spec.
struct RunData {
  ModelSpec spec;
  Weights weights;
  std::vector<NpyFloats> inputs;  ///< as Cell::inputs() orders them
  std::vector<NpyFloats> states;  ///< as RunFlags::initial orders them
  std::vector<std::int64_t> lengths;
};

/// The cell's input that a file belongs to.
Result<std::size_t> input_number(const ModelSpec& spec, const std::string& name) {
  for (std::size_t i = 0; i < spec.cell.inputs().size(); ++i) {
    if (input_name(spec, i) == name) return i;
  }
  if (name == "x") return std::size_t{0};  // a file without a name, whatever the cell calls it
  return Error(fmt::format("--input {}: cell {} has no such input", name, spec.cell.name()));
}

Result<State> find_state(const ModelSpec& spec, const std::string& name) {
  for (const State& state : spec.cell.states()) {
    if (state.name == name) return state;
  }
  return Error(fmt::format("state {}: cell {} has no such state", name, spec.cell.name()));
}

/// Takes T, and B unless the problem states it, from x.
Status adopt_shape(ModelSpec& spec, bool fixed_batch, const std::string& path, const Shape& shape) {
  const Shape wanted = {shape[0], fixed_batch ? spec.batch : shape[1], spec.input};
  if (shape != wanted) {
    return Error(fmt::format("{}: shape {}: must be (T, {}, {}), steps, batch and input width",
                             path, shape_text(shape),
                             fixed_batch ? std::to_string(spec.batch) : "B", spec.input));
  }
  spec.steps = shape[0];
  spec.batch = shape[1];
  if (auto status = spec.validate(); !status) {
    return Error(
        fmt::format("{}: shape {}: {}", path, shape_text(shape), status.error().message()));
  }
  return {};
}

/// Path of every input of the cell.
Result<std::vector<std::string>> input_paths(const RunFlags& flags, const ModelSpec& spec) {
  std::vector<std::string> paths(spec.cell.inputs().size());
  for (const NamedFile& file : flags.inputs) {
    const auto number = input_number(spec, file.name);
    if (!number) return number.error();
    paths[*number] = file.path;
  }
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (!paths[i].empty()) continue;
    return Error(fmt::format("--input {}: cell {} needs this input too", input_name(spec, i),
                             spec.cell.name()));
  }
  return paths;
}

Status read_inputs(const RunFlags& flags, RunData& data) {
  const auto paths = input_paths(flags, data.spec);
  if (!paths) return paths.error();
  auto x = read_npy_f32(paths->front(), 3);
  if (!x) return x.error();
  auto status = adopt_shape(data.spec, names_batch(flags.problem), paths->front(), x->shape);
  if (!status) return status;
  if (status = check_memory(data.spec); !status) return status;
  data.inputs.push_back(std::move(*x));
  for (std::size_t i = 1; i < paths->size(); ++i) {
    const std::string what = fmt::format("input {}", input_name(data.spec, i));
    auto array = read_array((*paths)[i], what, input_shape(data.spec, i));
    if (!array) return array.error();
    data.inputs.push_back(std::move(*array));
  }
  return {};
}

Status load_inputs(const RunFlags& flags, RunData& data) {
  if (!flags.inputs.empty()) return read_inputs(flags, data);
  if (auto status = check_memory(data.spec); !status) return status;
  data.inputs = random_inputs(data.spec, flags.seed);
  return {};
}

Status load_states(const RunFlags& flags, RunData& data) {
  for (const NamedFile& file : flags.initial) {
    const auto state = find_state(data.spec, file.name);
    if (!state) return state.error();
    auto array =
        read_array(file.path, fmt::format("state {}", file.name), state_shape(data.spec, *state));
    if (!array) return array.error();
    data.states.push_back(std::move(*array));
  }
  return {};
}

Status load_lengths(const RunFlags& flags, RunData& data) {
  if (flags.lengths.empty()) return {};
  auto lengths = read_npy_integers(flags.lengths);
  if (!lengths) return lengths.error();
  if (lengths->size() != static_cast<std::size_t>(data.spec.batch)) {
    return Error(fmt::format("{}: shape ({},): must be ({},), one length per batch row",
                             flags.lengths, lengths->size(), data.spec.batch));
  }
  if (auto status = check_within(*lengths, data.spec.steps); !status) {
    return Error(fmt::format("{}: {}", flags.lengths, status.error().message()));
  }
  data.lengths = std::move(*lengths);
  return {};
}

Status load_weights(const RunFlags& flags, RunData& data) {
  const bool given = !flags.model.empty();
  auto weights = given ? Weights::from_safetensors(flags.model, flags.prefix)
                       : Weights::random(data.spec, flags.seed);
  if (!weights) return weights.error();
  if (auto status = check_weights(data.spec, *weights); !status) {
    return Error(fmt::format("{}: {}", flags.model, status.error().message()));
  }
  data.weights = std::move(*weights);
  return {};
}

Result<RunData> load(const RunFlags& flags) {
  auto spec = ModelSpec::parse(flags.problem);
  if (!spec) return spec.error();
  RunData data;
  data.spec = std::move(*spec);
  for (const auto part : {load_inputs, load_states, load_lengths, load_weights}) {
    if (auto status = part(flags, data); !status) return status.error();
  }
  return data;
}

/// What the command line contradicts by itself, known before any file is read.
Status check_names(const RunFlags& flags) {
  const auto spec = ModelSpec::parse(flags.problem);
  if (!spec) return spec.error();
  if (!flags.inputs.empty()) {
    if (const auto paths = input_paths(flags, *spec); !paths) return paths.error();
  }
  for (const auto* files : {&flags.initial, &flags.final}) {
    for (const NamedFile& file : *files) {
      if (const auto state = find_state(*spec, file.name); !state) return state.error();
    }
  }
  return {};
}

/// Runs the whole sequence; gives y.
Result<NpyFloats> run_session(const RunFlags& flags, const RunData& data, Session& session) {
  for (std::size_t i = 0; i < flags.initial.size(); ++i) {
    auto status = session.set_state(flags.initial[i].name, data.states[i].data);
    if (!status) return status.error();
  }
  NpyFloats y = make_array(output_shape(data.spec));
  std::vector<std::span<const float>> extra;
  for (std::size_t i = 1; i < data.inputs.size(); ++i) extra.emplace_back(data.inputs[i].data);
  auto status = session.run(data.inputs.front().data, y.data, extra, data.lengths);
  if (!status) return status.error();
  return y;
}

Status write_results(const RunFlags& flags, const RunData& data, const NpyFloats& y,
                     const Session& session) {
  OutputFiles files;
  if (!flags.output.empty()) {
    if (auto status = files.stage(flags.output, y.shape, y.data); !status) return status;
  }
  for (const NamedFile& file : flags.final) {
    const auto state = find_state(data.spec, file.name);
    if (!state) return state.error();
    NpyFloats array = make_array(state_shape(data.spec, *state));
    if (auto status = session.get_state(file.name, array.data); !status) return status;
    if (auto status = files.stage(file.path, array.shape, array.data); !status) return status;
  }
  return files.commit();
}

Status run_model(const RunFlags& flags) {
  const auto data = load(flags);
  if (!data) return data.error();
  const auto options = compile_options(flags.compile);
  if (!options) return options.error();
  const auto model = Model::compile(data->spec, data->weights, *options);
  if (!model) return model.error();
  auto session = model->session(Layout::time_major, data->spec.steps);
  if (!session) return session.error();
  const auto y = run_session(flags, *data, *session);
  if (!y) return y.error();
  if (auto status = write_results(flags, *data, *y, *session); !status) return status;
  print_notes(model->notes());
  print_notes(session->notes());
  if (flags.output.empty() && flags.final.empty()) {
    print_notes(
        std::vector<std::string>{"run: no file for y or a state is named, so none is written"});
  }
  return {};
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  CLI::App* sub = app.add_subcommand("run", "Run a model over a sequence, from files to files");
  auto options = std::make_shared<RunOptions>(*sub);
  sub->callback([options, &action] {
    const RunFlags flags = options->flags();
    demand(check_names(flags));
    action = [flags] { return run_model(flags); };
  });
}

}  // namespace deepcpu::cli
