// SPDX-License-Identifier: Apache-2.0
/// A program outside this tree: a built-in model and a cell of its own through the installed
/// library. Exit status 0 if both give finite, non-zero output.
#include <cmath>
#include <cstdio>
#include <deepcpu/deepcpu.hpp>
#include <vector>

namespace {

bool runs(const deepcpu::ModelSpec& spec) {
  const auto weights = deepcpu::Weights::random(spec, 1);
  if (!weights) return false;
  const auto model = deepcpu::Model::compile(spec, *weights);
  if (!model) {
    std::fprintf(stderr, "%s\n", model.error().message().c_str());
    return false;
  }
  auto session = model->session();
  if (!session) return false;
  const std::vector<float> x(3 * static_cast<std::size_t>(spec.input), 0.5F);
  std::vector<float> y(3 * static_cast<std::size_t>(spec.output_width()));
  if (!session->run(x, y)) return false;
  float sum = 0.0F;
  for (const float value : y) sum += std::fabs(value);
  return std::isfinite(sum) && sum > 0.0F;
}

deepcpu::Result<deepcpu::Cell> gated_unit() {
  deepcpu::CellBuilder b("installed_mgu");
  const auto x = b.input("x");
  const auto h = b.state("h");
  const auto f = b.sigmoid(b.matmul("weight_f", x) + b.matmul("recurrent_f", h));
  const auto n = b.tanh(b.matmul("weight_n", x) + b.matmul("recurrent_n", f * h));
  const auto next = h + f * (n - h);
  b.next(h, next);
  b.output(next);
  return b.build();
}

}  // namespace

int main() {
  const auto lstm = deepcpu::ModelSpec::parse("lstm:i8h16");
  const auto cell = gated_unit();
  if (!lstm || !cell) return 1;
  const auto own = deepcpu::ModelSpec::make(*cell, {.input = 8, .hidden = {16}});
  if (!own) return 1;
  return runs(*lstm) && runs(*own) ? 0 : 1;
}
