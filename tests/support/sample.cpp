// SPDX-License-Identifier: Apache-2.0
#include "tests/support/sample.hpp"

#include "tests/support/random.hpp"

namespace deepcpu::test {

Sample Sample::make(const ModelSpec& spec, std::uint64_t seed) {
  Sample s{spec, Weights::random(spec, seed).value(), {}, {}};
  Random random(seed + 1);
  const auto rows = static_cast<std::size_t>(spec.steps * spec.batch);
  s.x = random_floats(random, rows * static_cast<std::size_t>(spec.input));
  const std::vector<int>& inputs = spec.cell.inputs();
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    const Node& node = spec.cell.nodes()[static_cast<std::size_t>(inputs[i])];
    s.extra.push_back(
        random_floats(random, rows * static_cast<std::size_t>(spec.width(node.dim, 0)), 0.0, 1.0));
  }
  return s;
}

Sample Sample::make(const std::string& problem, std::uint64_t seed) {
  return make(ModelSpec::parse(problem).value(), seed);
}

std::vector<std::span<const float>> Sample::extra_views() const {
  return {extra.begin(), extra.end()};
}

std::size_t Sample::y_size(std::int64_t steps) const {
  return static_cast<std::size_t>((steps < 0 ? spec.steps : steps) * spec.batch *
                                  spec.output_width());
}

Schedule schedule_for(const ModelSpec& spec, Isa isa, int threads, Parallel parallel) {
  Schedule schedule;
  schedule.isa = isa;
  schedule.threads = threads;
  schedule.parallel = parallel;
  schedule.layers.resize(spec.hidden.size());
  for (LayerSchedule& layer : schedule.layers) layer.hoist_block = 4;
  return schedule;
}

Model compile_for(const Sample& sample, Isa isa, int threads, Parallel parallel) {
  CompileOptions options;
  options.threads = threads;
  options.isa = isa;
  options.schedule = schedule_for(sample.spec, isa, threads, parallel);
  return Model::compile(sample.spec, sample.weights, options).value();
}

std::vector<float> run_once(const Model& model, const Sample& sample,
                            std::span<const std::int64_t> lengths) {
  Session session = model.session(Layout::time_major, sample.spec.steps).value();
  std::vector<float> y(sample.y_size());
  session.run(sample.x, y, sample.extra_views(), lengths).value();
  return y;
}

}  // namespace deepcpu::test
