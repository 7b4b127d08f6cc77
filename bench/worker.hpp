// SPDX-License-Identifier: Apache-2.0
/// The contestant's side of the protocol of bench/compare, for contestants written in C++. The
/// protocol and the rules for timing stand in bench/README.md; peers/worker.py is the same in
/// Python.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace bench {

/// A float32 array in row-major order.
struct Array {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};

/// What `load` asks for. Paths are relative to the working directory.
struct Request {
  std::string problem;
  int threads = 1;
  std::string weights;                 ///< a safetensors file
  Array x;                             ///< [T,B,I]
  std::map<std::string, Array> extra;  ///< the cell's further inputs by name, [T,B,width]
};

/// Thrown with the word of the protocol that the answer starts with: unsupported, missing, error.
struct Refusal {
  std::string word;
  std::string reason;
};

/// One contestant. Everything but call() may throw Refusal.
class Contestant {
 public:
  Contestant() = default;
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;
  virtual ~Contestant() = default;
  virtual std::string version() const = 0;
  /// Everything that is done once: compile, pack weights, allocate.
  virtual void load(const Request& request) = 0;
  /// One inference of the whole sequence from zero states. This is what is timed.
  virtual void call() noexcept = 0;
  /// y of the last call, [T,B,width]; throws if a call failed.
  virtual const Array& output() = 0;
  /// Commands of this contestant only. Returns the answer.
  virtual std::string other(const std::string& command, std::istream& arguments) {
    (void)arguments;
    throw Refusal{"error", "unknown command " + command};
  }
};

/// Reads a float32 file as numpy.save writes it; throws Refusal.
inline Array read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.compare(0, 7, "\x93NUMPY\x01") != 0 || bytes.size() < 10) {
    throw Refusal{"error", path + ": not an npy file of version 1"};
  }
  const auto byte = [&](std::size_t i) {
    return std::size_t{static_cast<unsigned char>(bytes[i])};
  };
  const std::size_t start = 10 + byte(8) + 256 * byte(9);
  const std::string header = bytes.substr(10, start - 10);
  const std::size_t open = header.find("'shape': (");
  if (header.find("'<f4'") == std::string::npos || header.find("False") == std::string::npos ||
      open == std::string::npos) {
    throw Refusal{"error", path + ": not float32 in row-major order"};
  }
  Array array;
  std::istringstream dims(header.substr(open + 10, header.find(')', open) - open - 10));
  std::size_t count = 1;
  for (std::string dim; std::getline(dims, dim, ',');) {
    if (dim.find_first_not_of(' ') == std::string::npos) continue;
    array.shape.push_back(std::stoll(dim));
    count *= static_cast<std::size_t>(array.shape.back());
  }
  if (bytes.size() - start != count * sizeof(float)) {
    throw Refusal{"error", path + ": size and shape do not agree"};
  }
  array.data.resize(count);
  std::memcpy(array.data.data(), bytes.data() + start, count * sizeof(float));
  return array;
}

/// Writes `array` as numpy.save does; throws Refusal.
inline void write_npy(const std::string& path, const Array& array) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const std::int64_t dim : array.shape) header += std::to_string(dim) + ",";
  header += "), }";
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file << "\x93NUMPY\x01" << '\0' << static_cast<char>(header.size() % 256)
       << static_cast<char>(header.size() / 256) << header;
  file.write(reinterpret_cast<const char*>(array.data.data()),
             static_cast<std::streamsize>(array.data.size() * sizeof(float)));
  if (!file.flush()) throw Refusal{"error", path + ": cannot be written"};
}

using Clock = std::chrono::steady_clock;

inline double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

/// Times call after call for about `seconds`, in microseconds each. The first tenth warms up and
/// does not count, unless a call is so slow (`last_us`) that the turn holds only a few.
inline std::vector<double> timed_calls(const std::function<void()>& call, double seconds,
                                       double last_us) {
  constexpr std::size_t kMostSamples = 100'000;
  const double turn = seconds * 1e6;
  const Clock::time_point start = Clock::now();
  if (last_us < turn / 3) {
    do call();
    while (microseconds(Clock::now() - start) < turn / 10);
  }
  std::vector<double> samples;
  Clock::time_point end;
  do {
    const Clock::time_point begin = Clock::now();
    call();
    end = Clock::now();
    samples.push_back(microseconds(end - begin));
  } while (microseconds(end - start) < turn && samples.size() < kMostSamples);
  return samples;
}

/// The samples as JSON, to a nanosecond.
inline std::string to_json(const std::vector<double>& samples) {
  std::string text = "[";
  char number[32];
  for (const double sample : samples) {
    std::snprintf(number, sizeof number, "%s%.3f", text.size() > 1 ? "," : "", sample);
    text += number;
  }
  return text + "]";
}

/// The loop over commands, one line each.
class Worker {
 public:
  explicit Worker(Contestant& contestant) : contestant_(contestant) {}

  int serve() {
    for (std::string line; std::getline(std::cin, line);) {
      std::string reply;
      try {
        reply = answer(line);
      } catch (const Refusal& refusal) {
        reply = refusal.word + " " + refusal.reason;
      }
      std::cout << reply << std::endl;
    }
    return 0;
  }

 private:
  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "import") return contestant_.version();
    if (command == "load") return load(words);
    if (command == "check") return check(words);
    if (command == "run") return run(words);
    if (command == "call_us") return "null";
    return contestant_.other(command, words);
  }

  std::string load(std::istream& words) {
    Request request;
    std::string x;
    if (!(words >> request.problem >> request.threads >> request.weights >> x)) {
      throw Refusal{"error", "load: wants problem, threads, weights and x"};
    }
    request.x = read_npy(x);
    for (std::string pair; words >> pair;) {
      const std::size_t equals = pair.find('=');
      request.extra[pair.substr(0, equals)] = read_npy(pair.substr(equals + 1));
    }
    contestant_.load(request);
    last_us_ = 0.0;
    return "ready " + contestant_.version();
  }

  std::string check(std::istream& words) {
    std::string path;
    words >> path;
    contestant_.call();  // the first call may pay for things that later ones do not
    const Clock::time_point begin = Clock::now();
    contestant_.call();
    last_us_ = microseconds(Clock::now() - begin);
    write_npy(path, contestant_.output());
    return "checked";
  }

  std::string run(std::istream& words) {
    double seconds = 0.0;
    words >> seconds;
    const std::vector<double> samples =
        timed_calls([this] { contestant_.call(); }, seconds, last_us_);
    last_us_ = samples.back();
    contestant_.output();  // throws if a call failed
    return to_json(samples);
  }

  Contestant& contestant_;
  double last_us_ = 0.0;
};

}  // namespace bench
