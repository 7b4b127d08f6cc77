// SPDX-License-Identifier: Apache-2.0
/// Our side of bench/compare. Besides the protocol it makes the weights that all contestants get,
/// says what was compiled, and times a loop of known length, from which the harness sees whether
/// the machine is busy with something else.
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/worker.hpp"
#include "deepcpu/deepcpu.hpp"
#include "src/machine/machine_model.hpp"
#include "src/machine/saved_calibration.hpp"
#include "src/quantile.hpp"
#include "src/tune/limit.hpp"

namespace {

using bench::Clock;
using bench::microseconds;
using bench::Refusal;
using nlohmann::ordered_json;

template <class T>
T value_of(deepcpu::Result<T> result) {
  if (!result) throw Refusal{"error", result.error().message()};
  return std::move(*result);
}

void demand(const deepcpu::Status& status) {
  if (!status) throw Refusal{"error", status.error().message()};
}

/// A chain of dependent multiplications: its time depends on the clock of the core and on nothing
/// else. Returns a value so that the compiler keeps it.
std::uint64_t spin(std::uint64_t iterations) noexcept {
  std::uint64_t value = 1;
  for (std::uint64_t i = 0; i < iterations; ++i) {
    value = value * 6364136223846793005U + 1442695040888963407U;
    asm volatile("" : "+r"(value));
  }
  return value;
}

/// Multiply-adds that do not wait for each other, two per cycle on the processors measured: unlike
/// spin(), also slower while another thread, be it of another guest, works on the same core. It
/// takes about as long. Multiplications and additions in turns took a Zen 4 1.21 to 1.46 of their
/// best time with nothing else running (`drift` of bench/compare), multiply-adds at most 1.10.
__attribute__((target("avx2,fma"))) double crowd(std::uint64_t iterations) noexcept {
  const __m128d factor = _mm_set1_pd(0.999);
  __m128d values[12] = {};
  for (std::uint64_t i = 0; i < 2 * iterations / 3; ++i) {
#pragma GCC unroll 12
    for (__m128d& value : values) {
      value = _mm_fmadd_pd(value, factor, factor);
      asm volatile("" : "+x"(value));
    }
  }
  return _mm_cvtsd_f64(values[0]);
}

/// Work of known length.
void piece_of_work(std::uint64_t iterations) noexcept {
  if (__builtin_cpu_supports("fma")) {
    crowd(iterations);
  } else {
    spin(iterations);
  }
}

double thread_cpu_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

struct Spun {
  double piece_us = 0.0;  ///< median time of one piece
  double share = 1.0;     ///< time that passed over time that this thread had the core
};

/// Five pieces of about 2 ms each, after one that gives a new thread time to find its core.
Spun spin_pieces() {
  constexpr std::uint64_t kIterations = 2'000'000;
  std::vector<double> pieces(5);
  piece_of_work(kIterations);
  const double cpu = thread_cpu_us();
  const Clock::time_point start = Clock::now();
  for (double& piece : pieces) {
    const Clock::time_point begin = Clock::now();
    piece_of_work(kIterations);
    piece = microseconds(Clock::now() - begin);
  }
  Spun spun;
  spun.share = microseconds(Clock::now() - start) / std::max(thread_cpu_us() - cpu, 1.0);
  spun.piece_us = deepcpu::median(std::move(pieces));
  return spun;
}

/// Iterations of spin() that take about a microsecond; measured at the first use.
double iterations_per_us() {
  static const double rate = [] {
    constexpr std::uint64_t kIterations = 100'000;
    double least = 1e30;
    for (int i = 0; i < 20; ++i) {
      const Clock::time_point begin = Clock::now();
      spin(kIterations);
      least = std::min(least, microseconds(Clock::now() - begin));
    }
    return static_cast<double>(kIterations) / least;
  }();
  return rate;
}

class Ours final : public bench::Contestant {
 public:
  std::string version() const override {
    const std::string isa(deepcpu::to_string(deepcpu::host_isa()));
    return "deepcpu " DEEPCPU_VERSION " " + isa;
  }

  void load(const bench::Request& request) override {
    session_.reset();
    model_.reset();
    const auto spec = value_of(deepcpu::ModelSpec::parse(request.problem));
    const auto weights = value_of(deepcpu::Weights::from_safetensors(request.weights));
    deepcpu::CompileOptions options;
    options.threads = request.threads;
    options.schedule = schedule_;
    threads_ = request.threads;
    model_ = value_of(deepcpu::Model::compile(spec, weights, options));
    session_ = value_of(model_->session(deepcpu::Layout::time_major, spec.steps));
    x_ = request.x;
    y_.shape = {spec.steps, spec.batch, spec.output_width()};
    y_.data.assign(static_cast<std::size_t>(spec.steps * spec.batch * spec.output_width()), 0.0F);
    bind_extra(spec, request);
    status_ = {};
  }

  void call() noexcept override {
    session_->reset();
    auto status = session_->run(x_.data, y_.data, extra_);
    if (!status) status_ = std::move(status);
  }

  const bench::Array& output() override {
    demand(status_);
    return y_;
  }

  std::string other(const std::string& command, std::istream& words) override {
    if (command == "make") return make(words);
    if (command == "use") return use(words);
    if (command == "calibrate") return calibrate(words);
    if (command == "info") return info();
    if (command == "spin") return spin_threads(words);
    if (command == "spinrun") return spin_run(words);
    return Contestant::other(command, words);
  }

 private:
  void bind_extra(const deepcpu::ModelSpec& spec, const bench::Request& request) {
    arrays_.clear();
    extra_.clear();
    const auto& inputs = spec.cell.inputs();
    for (std::size_t i = 1; i < inputs.size(); ++i) {
      const auto& name = spec.cell.nodes()[static_cast<std::size_t>(inputs[i])].name;
      const auto found = request.extra.find(name);
      if (found == request.extra.end()) throw Refusal{"error", name + ": input is missing"};
      arrays_.push_back(found->second);
    }
    for (const bench::Array& array : arrays_) extra_.emplace_back(array.data);
  }

  /// use FILE: models that are loaded from now on have this schedule.
  std::string use(std::istream& words) {
    std::string path;
    if (!(words >> path)) throw Refusal{"error", "use: wants a file"};
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    schedule_ = value_of(deepcpu::Schedule::from_json(text));
    return "using";
  }

  /// make PROBLEM SEED FILE: random weights as a safetensors file; answers with the sizes.
  static std::string make(std::istream& words) {
    std::string problem, path;
    std::uint64_t seed = 0;
    if (!(words >> problem >> seed >> path)) throw Refusal{"error", "make: wants three arguments"};
    const auto spec = value_of(deepcpu::ModelSpec::parse(problem));
    demand(value_of(deepcpu::Weights::random(spec, seed)).to_safetensors(path));
    ordered_json json;
    json["problem"] = spec.str();
    json["cell"] = spec.cell.name();
    json["steps"] = spec.steps;
    json["batch"] = spec.batch;
    json["input"] = spec.input;
    json["output"] = spec.output_width();
    json["extra"] = ordered_json::object();
    const auto& inputs = spec.cell.inputs();
    for (std::size_t i = 1; i < inputs.size(); ++i) {
      const auto& node = spec.cell.nodes()[static_cast<std::size_t>(inputs[i])];
      json["extra"][node.name] = spec.width(node.dim, 0);
    }
    return json.dump();
  }

  /// calibrate FILE: measures the machine, about 10 s; answers with its rates.
  static std::string calibrate(std::istream& words) {
    std::string path;
    if (!(words >> path)) throw Refusal{"error", "calibrate: wants a file"};
    const auto measured = value_of(deepcpu::calibrate(deepcpu::machine()));
    demand(deepcpu::save_calibration(measured, path));
    return ordered_json(deepcpu::to_text(deepcpu::MachineModel::from(measured))).dump();
  }

  /// Adds the limit and the floor of the loaded problem with the threads that were asked for; null
  /// where no code runs.
  void add_limit(ordered_json& json) const {
    const auto work = deepcpu::ModelWork::of(model_->spec(), deepcpu::host_isa());
    json["limit_us"] = json["floor_us"] = nullptr;
    if (!work || deepcpu::host_isa() == deepcpu::Isa::interpreter) return;
    const auto steps = static_cast<double>(model_->spec().steps);
    const auto limit = deepcpu::limit_of(*work, deepcpu::machine_model(), steps, threads_);
    json["limit_us"] = limit.us;
    json["floor_us"] = limit.floor_us;
  }

  /// What was compiled.
  std::string info() const {
    if (!model_) throw Refusal{"error", "info: nothing is loaded"};
    ordered_json json;
    add_limit(json);
    json["compile_us"] = model_->compile_microseconds();
    json["schedule"] = ordered_json::parse(model_->schedule().to_json());
    json["notes"] = model_->notes();
    for (const std::string& note : session_->notes()) json["notes"].push_back(note);
    return json.dump();
  }

  /// spin THREADS: the slowest of that many threads that spin at once.
  static std::string spin_threads(std::istream& words) {
    int threads = 1;
    words >> threads;
    std::vector<Spun> spun(static_cast<std::size_t>(std::max(threads, 1)));
    {
      std::vector<std::jthread> helpers;
      for (std::size_t i = 1; i < spun.size(); ++i) {
        helpers.emplace_back([&spun, i] { spun[i] = spin_pieces(); });
      }
      spun[0] = spin_pieces();
    }
    Spun worst;
    for (const Spun& each : spun) {
      worst.piece_us = std::max(worst.piece_us, each.piece_us);
      worst.share = std::max(worst.share, each.share);
    }
    return ordered_json{{"piece_us", worst.piece_us}, {"share", worst.share}}.dump();
  }

  /// spinrun MICROSECONDS SECONDS: times loops of that length as `run` times calls.
  static std::string spin_run(std::istream& words) {
    double length = 1.0, seconds = 0.0;
    words >> length >> seconds;
    const auto iterations = static_cast<std::uint64_t>(length * iterations_per_us()) + 1;
    return bench::to_json(bench::timed_calls([=] { spin(iterations); }, seconds, length));
  }

  std::optional<deepcpu::Model> model_;
  std::optional<deepcpu::Session> session_;
  std::optional<deepcpu::Schedule> schedule_;  ///< none: the model chooses
  int threads_ = 1;
  bench::Array x_;
  bench::Array y_;
  std::vector<bench::Array> arrays_;
  std::vector<std::span<const float>> extra_;
  deepcpu::Status status_;
};

}  // namespace

int main() {
  Ours ours;
  return bench::Worker(ours).serve();
}
