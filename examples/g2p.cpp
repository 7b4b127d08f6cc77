// SPDX-License-Identifier: Apache-2.0
/// Spells English words as phonemes with the GRU encoder and decoder of g2p_en.
///
///     g2p [--models FOLDER] [--file WORDS] [--time] [WORD...]
///
/// Words come from the command line, from a file, or from standard input. Prints
/// `word<TAB>phonemes`, one line per word. FOLDER holds encoder.safetensors, decoder.safetensors
/// and head.safetensors as examples/convert_g2p.py writes them. With --time it also prints on
/// stderr the microseconds per word: the median over passes over all words, after one pass to
/// warm up.
///
/// The encoder reads the letters of a word in one run. The decoder starts from the encoder's last
/// state and says one phoneme per step, reading the phoneme it said before. Both GRUs run on
/// DeepCPU; the embedding tables and the output layer are plain C++.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deepcpu/deepcpu.hpp"

namespace {

using deepcpu::Error;
using deepcpu::Model;
using deepcpu::ModelSpec;
using deepcpu::Result;
using deepcpu::Session;
using deepcpu::Tensor;
using deepcpu::Weights;

// The symbols in the order of the rows of the embedding tables, from g2p_en's g2p.py.
constexpr std::size_t kUnknownLetter = 1;
constexpr std::size_t kEndOfWord = 2;
constexpr std::size_t kFirstLetter = 3;  // a, then b to z
constexpr std::size_t kLetters = 29;
constexpr std::size_t kStart = 2;  // <s>, what the decoder reads first
constexpr std::size_t kStop = 3;   // </s>, what it says last
constexpr std::array<std::string_view, 74> kPhonemes = {
    "<pad>", "<unk>", "<s>", "</s>", "AA0", "AA1", "AA2", "AE0", "AE1", "AE2", "AH0", "AH1", "AH2",
    "AO0",   "AO1",   "AO2", "AW0",  "AW1", "AW2", "AY0", "AY1", "AY2", "B",   "CH",  "D",   "DH",
    "EH0",   "EH1",   "EH2", "ER0",  "ER1", "ER2", "EY0", "EY1", "EY2", "F",   "G",   "HH",  "IH0",
    "IH1",   "IH2",   "IY0", "IY1",  "IY2", "JH",  "K",   "L",   "M",   "N",   "NG",  "OW0", "OW1",
    "OW2",   "OY0",   "OY1", "OY2",  "P",   "R",   "S",   "SH",  "T",   "TH",  "UH0", "UH1", "UH2",
    "UW",    "UW0",   "UW1", "UW2",  "V",   "W",   "Y",   "Z",   "ZH"};
constexpr int kMaxPhonemes = 20;
constexpr int kPasses = 5;

/// Tensor `name` of `weights` with `rows` rows and any second dimension (none if `rank` is 1).
Result<Tensor> find(const Weights& weights, const std::string& name, std::size_t rows,
                    std::size_t rank) {
  const auto found = weights.tensors().find(name);
  if (found == weights.tensors().end()) return Error("tensor " + name + ": missing");
  const Tensor& tensor = found->second;
  if (tensor.shape.size() != rank || tensor.shape[0] != static_cast<std::int64_t>(rows)) {
    return Error("tensor " + name + ": must have " + std::to_string(rows) + " rows and rank " +
                 std::to_string(rank));
  }
  return tensor;
}

/// One row of a table per symbol.
class Embedding {
 public:
  static Result<Embedding> load(const Weights& weights, const std::string& name,
                                std::size_t symbols) {
    auto table = find(weights, name, symbols, 2);
    if (!table) return table.error();
    return Embedding(*table);
  }
  std::size_t width() const { return width_; }
  std::span<const float> row(std::size_t symbol) const {
    return table_.subspan(symbol * width_, width_);
  }

 private:
  explicit Embedding(const Tensor& table)
      : table_(table.data), width_(static_cast<std::size_t>(table.shape[1])) {}
  std::span<const float> table_;
  std::size_t width_;
};

/// The output layer: W h + b over the phonemes. W is kept transposed and padded, so that the inner
/// loop runs over a fixed number of adjacent outputs and the C++ compiler vectorises it.
class OutputLayer {
 public:
  static Result<OutputLayer> load(const Weights& weights) {
    auto w = find(weights, "fc_w", kPhonemes.size(), 2);
    if (!w) return w.error();
    auto b = find(weights, "fc_b", kPhonemes.size(), 1);
    if (!b) return b.error();
    return OutputLayer(*w, *b);
  }
  std::size_t width() const { return width_; }

  /// The phoneme with the largest output, the first one if several are equal.
  std::size_t best(std::span<const float> h) const {
    std::array<float, kPadded> sums = bias_;
    for (std::size_t k = 0; k < width_; ++k) {
      const float* column = &transposed_[k * kPadded];
      for (std::size_t j = 0; j < kPadded; ++j) sums[j] += h[k] * column[j];
    }
    const auto end = sums.begin() + kPhonemes.size();
    return static_cast<std::size_t>(std::max_element(sums.begin(), end) - sums.begin());
  }

 private:
  static constexpr std::size_t kPadded = 80;
  static_assert(kPadded >= kPhonemes.size());

  OutputLayer(const Tensor& w, const Tensor& b) : width_(static_cast<std::size_t>(w.shape[1])) {
    transposed_.resize(width_ * kPadded);
    for (std::size_t j = 0; j < kPhonemes.size(); ++j) {
      bias_[j] = b.data[j];
      for (std::size_t k = 0; k < width_; ++k) {
        transposed_[k * kPadded + j] = w.data[j * width_ + k];
      }
    }
  }
  std::size_t width_;
  std::array<float, kPadded> bias_{};
  std::vector<float> transposed_;
};

/// The GRU whose weights stand in `path`.
Result<Session> load_gru(const std::string& path, std::size_t input, std::size_t hidden) {
  auto spec = ModelSpec::parse("gru:i" + std::to_string(input) + "h" + std::to_string(hidden));
  if (!spec) return spec.error();
  auto weights = Weights::from_safetensors(path);
  if (!weights) return weights.error();
  auto model = Model::compile(*spec, *weights);
  if (!model) return Error(path + ": " + model.error().message());
  return model->session();
}

class Speller {
 public:
  static Result<Speller> load(const std::string& folder) {
    auto head = Weights::from_safetensors(folder + "/head.safetensors");
    if (!head) return head.error();
    auto letters = Embedding::load(*head, "enc_emb", kLetters);
    if (!letters) return letters.error();
    auto phonemes = Embedding::load(*head, "dec_emb", kPhonemes.size());
    if (!phonemes) return phonemes.error();
    auto output = OutputLayer::load(*head);
    if (!output) return output.error();
    const std::size_t hidden = output->width();
    auto encoder = load_gru(folder + "/encoder.safetensors", letters->width(), hidden);
    if (!encoder) return encoder.error();
    auto decoder = load_gru(folder + "/decoder.safetensors", phonemes->width(), hidden);
    if (!decoder) return decoder.error();
    return Speller(std::move(*head), *letters, *phonemes, std::move(*output), std::move(*encoder),
                   std::move(*decoder));
  }

  /// The phonemes of a word of letters a to z; any other character counts as an unknown letter.
  Result<std::vector<std::size_t>> spell(std::string_view word) {
    const std::size_t hidden = output_.width();
    if (auto status = encode(word); !status) return status.error();
    const std::span<const float> last = std::span(states_).last(hidden);
    if (auto status = decoder_.set_state("h", last); !status) return status.error();

    std::vector<std::size_t> said;
    std::size_t previous = kStart;
    const std::span<float> h = std::span(states_).first(hidden);
    for (int step = 0; step < kMaxPhonemes; ++step) {
      if (auto status = decoder_.run(phonemes_.row(previous), h); !status) return status.error();
      previous = output_.best(h);
      if (previous == kStop) break;
      said.push_back(previous);
    }
    return said;
  }

 private:
  Speller(Weights head, Embedding letters, Embedding phonemes, OutputLayer output, Session encoder,
          Session decoder)
      : head_(std::move(head)),
        letters_(letters),
        phonemes_(phonemes),
        output_(std::move(output)),
        encoder_(std::move(encoder)),
        decoder_(std::move(decoder)) {}

  /// Runs the encoder over the letters and the end mark; states_ then holds h after each of them.
  deepcpu::Status encode(std::string_view word) {
    inputs_.clear();
    for (const char letter : word) {
      const bool known = letter >= 'a' && letter <= 'z';
      append(known ? kFirstLetter + static_cast<std::size_t>(letter - 'a') : kUnknownLetter);
    }
    append(kEndOfWord);
    states_.resize((word.size() + 1) * output_.width());
    encoder_.reset();
    return encoder_.run(inputs_, states_);
  }
  void append(std::size_t symbol) {
    const auto row = letters_.row(symbol);
    inputs_.insert(inputs_.end(), row.begin(), row.end());
  }

  Weights head_;  // owns what the embeddings view
  Embedding letters_;
  Embedding phonemes_;
  OutputLayer output_;
  Session encoder_;
  Session decoder_;
  std::vector<float> inputs_;
  std::vector<float> states_;
};

/// The words of a text: split at white space, lower case, letters and apostrophes only.
std::vector<std::string> words_of(std::istream& text) {
  std::vector<std::string> words;
  for (std::string token; text >> token;) {
    std::string word;
    for (char c : token) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      if ((c >= 'a' && c <= 'z') || c == '\'') word += c;
    }
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

struct Arguments {
  std::string models = "build/models/g2p";
  bool time = false;
  bool usage_error = false;
  std::string unreadable;  // a file that cannot be read
  std::vector<std::string> words;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  std::string text;
  bool given = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--time") {
      arguments.time = true;
    } else if (argument == "--models" && has_value) {
      arguments.models = argv[++i];
    } else if (argument == "--file" && has_value) {
      std::ifstream file(argv[++i]);
      if (!file) arguments.unreadable = argv[i];
      text.append(std::istreambuf_iterator<char>(file), {}).append(" ");
      given = true;
    } else if (argument.starts_with("--")) {
      arguments.usage_error = true;
    } else {
      text.append(argument).append(" ");
      given = true;
    }
  }
  if (arguments.usage_error || !arguments.unreadable.empty()) return arguments;
  if (!given) text.assign(std::istreambuf_iterator<char>(std::cin), {});
  std::istringstream stream(text);
  arguments.words = words_of(stream);
  return arguments;
}

/// Median over passes, after one pass to warm up.
double microseconds_per_word(Speller& speller, const std::vector<std::string>& words) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int pass = 0; pass <= kPasses; ++pass) {
    const auto start = Clock::now();
    for (const std::string& word : words) speller.spell(word).value();
    const std::chrono::duration<double, std::micro> elapsed = Clock::now() - start;
    if (pass > 0) times.push_back(elapsed.count() / static_cast<double>(words.size()));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

int fail(const Error& error) {
  std::cerr << "g2p: " << error.message() << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  if (!arguments.unreadable.empty()) {
    return fail(Error(arguments.unreadable + ": cannot be read"));
  }
  if (arguments.usage_error || arguments.words.empty()) {
    std::cerr << "usage: g2p [--models FOLDER] [--file WORDS] [--time] [WORD...]\n";
    return 2;
  }
  auto speller = Speller::load(arguments.models);
  if (!speller) return fail(speller.error());
  for (const std::string& word : arguments.words) {
    auto said = speller->spell(word);
    if (!said) return fail(said.error());
    std::cout << word;
    char separator = '\t';
    for (const std::size_t phoneme : *said) {
      std::cout << std::exchange(separator, ' ') << kPhonemes[phoneme];
    }
    // Without a phoneme the tab still ends the word, as the reference program prints it.
    std::cout << (said->empty() ? "\t\n" : "\n");
  }
  if (arguments.time) {
    std::cerr << std::to_string(microseconds_per_word(*speller, arguments.words)) << '\n';
  }
  return 0;
}
