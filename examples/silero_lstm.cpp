// SPDX-License-Identifier: Apache-2.0
/// Runs a one-layer LSTM over recorded frames, one frame per call, as a live stream would.
///
///     silero_lstm [--time] WEIGHTS INPUT OUTPUT
///
/// WEIGHTS is a safetensors file with PyTorch's names; the sizes are read from it. INPUT holds raw
/// little-endian float32, [frames, input]; OUTPUT gets h after each frame, [frames, hidden]. The
/// state is zero before the first frame and is carried from call to call. With --time it prints
/// one line of JSON: the microseconds of a call, one frame each (median and 99th percentile), and
/// the microseconds per frame when all frames are given in one call.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iostream>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "deepcpu/deepcpu.hpp"

namespace {

using deepcpu::Error;
using deepcpu::Model;
using deepcpu::ModelSpec;
using deepcpu::Result;
using deepcpu::Session;
using deepcpu::Status;
using deepcpu::Weights;

constexpr int kPasses = 50;

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

/// Reads `path` as frames of `width` numbers.
Result<std::vector<float>> read_frames(const std::string& path, std::size_t width) {
  std::error_code failure;
  const std::uintmax_t bytes = std::filesystem::file_size(path, failure);
  if (failure) return Error(path + ": " + failure.message());
  if (bytes == 0 || bytes % (width * sizeof(float)) != 0) {
    return Error(path + ": must hold one or more frames of " + std::to_string(width) + " floats");
  }
  std::vector<float> values(bytes / sizeof(float));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(bytes));
  if (!file) return Error(path + ": cannot be read");
  return values;
}

/// Writes the numbers; the file is whole or absent.
Status write_frames(const std::string& path, std::span<const float> values) {
  const std::string partial = path + ".part";
  {
    std::ofstream file(partial, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size_bytes()));
    file.close();
    if (!file) return Error(partial + ": cannot be written");
  }
  std::error_code failure;
  std::filesystem::rename(partial, path, failure);
  if (failure) return Error(path + ": " + failure.message());
  return {};
}

/// The spec of the LSTM that the tensors describe.
Result<ModelSpec> spec_of(const Weights& weights) {
  const auto& tensors = weights.tensors();
  const auto w = tensors.find("weight_ih_l0");
  const auto u = tensors.find("weight_hh_l0");
  if (w == tensors.end() || u == tensors.end()) {
    return Error("weights: weight_ih_l0 and weight_hh_l0 must be there");
  }
  if (w->second.shape.size() != 2 || u->second.shape.size() != 2) {
    return Error("weights: weight_ih_l0 and weight_hh_l0 must have rank 2");
  }
  return ModelSpec::parse("lstm:i" + std::to_string(w->second.shape[1]) + "h" +
                          std::to_string(u->second.shape[1]));
}

/// Everything one recording needs.
struct Stream {
  Session session;
  std::size_t input;
  std::size_t hidden;
  std::vector<float> x;
  std::vector<float> h;

  std::size_t frames() const { return x.size() / input; }
  Status run_frame(std::size_t t) {
    return session.run(std::span(x).subspan(t * input, input),
                       std::span(h).subspan(t * hidden, hidden));
  }
  Status run_stepwise() {
    session.reset();
    for (std::size_t t = 0; t < frames(); ++t) {
      if (auto status = run_frame(t); !status) return status;
    }
    return {};
  }
};

Result<Stream> load(const std::string& weights_path, const std::string& input_path) {
  auto weights = Weights::from_safetensors(weights_path);
  if (!weights) return weights.error();
  auto spec = spec_of(*weights);
  if (!spec) return spec.error();
  auto model = Model::compile(*spec, *weights);
  if (!model) return model.error();
  auto session = model->session();
  if (!session) return session.error();
  const auto input = static_cast<std::size_t>(spec->input);
  const auto hidden = static_cast<std::size_t>(spec->hidden[0]);
  auto x = read_frames(input_path, input);
  if (!x) return x.error();
  const std::size_t frames = x->size() / input;
  return Stream{std::move(*session), input, hidden, std::move(*x),
                std::vector<float>(frames * hidden)};
}

/// Times every call over several passes through the recording.
Status print_times(Stream& stream) {
  std::vector<double> calls;
  double whole = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    stream.session.reset();
    for (std::size_t t = 0; t < stream.frames(); ++t) {
      const auto start = Clock::now();
      if (auto status = stream.run_frame(t); !status) return status;
      calls.push_back(microseconds_since(start));
    }
    stream.session.reset();
    const auto start = Clock::now();
    if (auto status = stream.session.run(stream.x, stream.h); !status) return status;
    const double elapsed = microseconds_since(start) / static_cast<double>(stream.frames());
    whole = pass == 0 ? elapsed : std::min(whole, elapsed);
  }
  std::sort(calls.begin(), calls.end());
  std::printf("{\"frames\": %zu, \"median_us\": %.3f, \"p99_us\": %.3f, \"one_call_us\": %.3f}\n",
              stream.frames(), calls[calls.size() / 2], calls[calls.size() * 99 / 100], whole);
  return {};
}

int fail(const Error& error) {
  std::cerr << "silero_lstm: " << error.message() << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool time = !arguments.empty() && arguments.front() == "--time";
  if (time) arguments.erase(arguments.begin());
  if (arguments.size() != 3 || arguments.front().starts_with("--")) {
    std::cerr << "usage: silero_lstm [--time] WEIGHTS INPUT OUTPUT\n";
    return 2;
  }
  auto stream = load(arguments[0], arguments[1]);
  if (!stream) return fail(stream.error());
  if (auto status = stream->run_stepwise(); !status) return fail(status.error());
  if (auto status = write_frames(arguments[2], stream->h); !status) return fail(status.error());
  if (time) {
    if (auto status = print_times(*stream); !status) return fail(status.error());
  }
  return 0;
}
