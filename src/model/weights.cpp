// SPDX-License-Identifier: Apache-2.0
#include "src/model/weights.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "src/guard_memory.hpp"
#include "src/io/checked.hpp"
#include "src/io/quote.hpp"
#include "src/io/safetensors.hpp"
#include "src/model/random_numbers.hpp"

namespace deepcpu {
namespace {

/// Most sentences that one error puts together.
constexpr std::size_t kMostComplaints = 10;

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::vector<std::int64_t> tensor_shape(const ModelSpec& spec, const Parameter& parameter,
                                       int layer) {
  std::vector<std::int64_t> shape = {parameter.blocks * spec.width(parameter.rows, layer)};
  if (parameter.is_matrix) shape.push_back(spec.width(parameter.cols, layer));
  return shape;
}

/// Collects complaints into one sentence.
class Complaints {
 public:
  void add(std::string text) {
    if (++count_ <= kMostComplaints) texts_.push_back(std::move(text));
  }
  Status status() const {
    if (count_ == 0) return {};
    std::string text = fmt::format("{}", fmt::join(texts_, "; "));
    if (count_ > texts_.size()) text += fmt::format("; and {} more", count_ - texts_.size());
    return Error(std::move(text));
  }

 private:
  std::size_t count_ = 0;
  std::vector<std::string> texts_;
};

void check_tensor(const RequiredTensor& required, const Weights& weights, Complaints& complaints) {
  const std::string wanted = shape_text(required.shape);
  if (const auto found = weights.tensors().find(required.name); found != weights.tensors().end()) {
    if (found->second.shape == required.shape) return;
    complaints.add(fmt::format("tensor {}: has shape {}, must have {}", required.name,
                               shape_text(found->second.shape), wanted));
  } else if (const auto other = weights.skipped().find(required.name);
             other != weights.skipped().end()) {
    complaints.add(
        fmt::format("tensor {}: has dtype {}, must be F32", required.name, other->second));
  } else {
    complaints.add(fmt::format("tensor {}: is missing, must have shape {}", required.name, wanted));
  }
}

}  // namespace

std::string tensor_name(std::string_view tensor, int layer, int direction) {
  return fmt::format("{}_l{}{}", tensor, layer, direction == 1 ? "_reverse" : "");
}

std::vector<RequiredTensor> required_tensors(const ModelSpec& spec) {
  std::vector<RequiredTensor> required;
  for (int layer = 0; layer < spec.layers(); ++layer) {
    for (int direction = 0; direction < spec.directions(); ++direction) {
      std::set<std::string_view> seen;
      for (const Parameter& parameter : spec.cell.parameters()) {
        if (!seen.insert(parameter.tensor).second) continue;
        required.push_back({tensor_name(parameter.tensor, layer, direction),
                            tensor_shape(spec, parameter, layer), layer, direction});
      }
    }
  }
  return required;
}

Status check_weights(const ModelSpec& spec, const Weights& weights) {
  Complaints complaints;
  std::set<std::string> names;
  for (const auto& required : required_tensors(spec)) {
    check_tensor(required, weights, complaints);
    names.insert(required.name);
  }
  const auto check_surplus = [&](const std::string& name) {
    if (names.contains(name)) return;
    complaints.add(fmt::format("tensor {}: is not a tensor of {}", quote(name), spec.str()));
  };
  for (const auto& [name, tensor] : weights.tensors()) check_surplus(name);
  for (const auto& [name, dtype] : weights.skipped()) check_surplus(name);
  return complaints.status();
}

Status Weights::add(std::string name, std::vector<std::int64_t> shape,
                    std::span<const float> data) {
  return guard_memory("add the tensor",
                      [&] { return add_view(std::move(name), std::move(shape), data); });
}

Status Weights::add_view(std::string name, std::vector<std::int64_t> shape,
                         std::span<const float> data) {
  const auto fail = [&](std::string_view what) {
    return Error(fmt::format("tensor {}: {}", quote(name), what));
  };
  if (name.empty()) return Error("tensor name: must not be empty");
  for (const std::int64_t dim : shape) {
    if (dim < 1)
      return fail(fmt::format("has shape {}, dimensions must be positive", shape_text(shape)));
  }
  if (element_count(shape) != data.size()) {
    return fail(fmt::format("shape {} does not have {} elements", shape_text(shape), data.size()));
  }
  if (tensors_.contains(name) || skipped_.contains(name)) return fail("is given twice");
  tensors_.emplace(std::move(name), Tensor{std::move(shape), data});
  return {};
}

Status Weights::add_owned(std::string name, std::vector<std::int64_t> shape,
                          std::vector<float> data) {
  // The place first, so that nothing can fail once the tensor shows the numbers.
  if (owned_.size() == owned_.capacity()) owned_.reserve(2 * owned_.size() + 8);
  auto owned = std::make_shared<const std::vector<float>>(std::move(data));
  if (auto st = add_view(std::move(name), std::move(shape), *owned); !st) return st;
  owned_.push_back(std::move(owned));
  return {};
}

Result<Weights> Weights::from_safetensors(const std::string& path, std::string_view prefix) {
  return guard_memory("read the weights", [&]() -> Result<Weights> {
    const auto file = SafetensorsFile::open(path);
    if (!file) return file.error();
    Weights weights;
    for (const auto& entry : file->entries()) {
      if (!entry.name.starts_with(prefix)) continue;
      if (!prefix.empty() && entry.name.size() == prefix.size()) continue;  // none left of it
      std::string name = entry.name.substr(prefix.size());
      if (entry.dtype != "F32") {
        weights.skipped_.emplace(std::move(name), entry.dtype);
        continue;
      }
      auto values = file->read_f32(entry);
      if (!values) return values.error();
      auto status = weights.add_owned(std::move(name), entry.shape, std::move(*values));
      if (!status) return Error(fmt::format("{}: {}", path, status.error().message()));
    }
    if (!prefix.empty() && weights.tensors_.empty() && weights.skipped_.empty()) {
      return Error(fmt::format("{}: no tensor's name begins with {}", path, quote(prefix)));
    }
    return weights;
  });
}

Status Weights::to_safetensors(const std::string& path) const {
  return guard_memory("write the weights", [&] {
    std::vector<SafetensorsTensor> tensors;
    for (const auto& [name, tensor] : tensors_)
      tensors.push_back({name, tensor.shape, tensor.data});
    return write_safetensors(path, tensors);
  });
}

Result<Weights> Weights::random(const ModelSpec& spec, std::uint64_t seed) {
  return guard_memory("make random weights", [&]() -> Result<Weights> {
    if (auto status = spec.validate(); !status) return status.error();
    Weights weights;
    for (auto& required : required_tensors(spec)) {
      const auto hidden = static_cast<double>(spec.width(Dim::hidden, required.layer));
      const auto count = element_count(required.shape).value_or(0);
      auto values = random_numbers(required.name, static_cast<std::size_t>(count),
                                   static_cast<float>(1.0 / std::sqrt(hidden)), seed);
      auto status =
          weights.add_owned(std::move(required.name), std::move(required.shape), std::move(values));
      if (!status) return status.error();
    }
    return weights;
  });
}

}  // namespace deepcpu
