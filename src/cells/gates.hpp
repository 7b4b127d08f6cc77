// SPDX-License-Identifier: Apache-2.0
/// What the cells with PyTorch's tensors share: one gate's part of weight_ih, weight_hh, bias_ih
/// and bias_hh.
#pragma once

#include <string>

#include "deepcpu/cell.hpp"

namespace deepcpu {

/// Gate `letter`: block `block` of `blocks` of each of the four tensors. An empty letter: the
/// whole tensors.
class Gate {
 public:
  Gate(CellBuilder& builder, std::string letter, int block, int blocks)
      : builder_(builder), letter_(std::move(letter)), block_(block), blocks_(blocks) {}

  Value bias_ih() { return builder_.bias(name("bias_ih"), at("bias_ih")); }
  Value bias_hh() { return builder_.bias(name("bias_hh"), at("bias_hh")); }
  Value input(Value x) { return builder_.matmul(name("weight_ih"), x, at("weight_ih")); }
  Value recurrent(Value h) { return builder_.matmul(name("weight_hh"), h, at("weight_hh")); }

  /// b + r + W x + U h, one chain of additions that starts at the biases.
  Value sum(Value x, Value h) { return bias_ih() + bias_hh() + input(x) + recurrent(h); }

 private:
  TensorBlock at(const char* tensor) const { return {tensor, block_, blocks_}; }
  std::string name(const char* tensor) const {
    return letter_.empty() ? std::string(tensor) : std::string(tensor) + "_" + letter_;
  }

  CellBuilder& builder_;
  std::string letter_;
  int block_;
  int blocks_;
};

}  // namespace deepcpu
