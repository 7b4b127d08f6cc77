// SPDX-License-Identifier: Apache-2.0
/// The table of built-in cells. Each entry builds an expression graph with the public builder.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "deepcpu/cell.hpp"
#include "deepcpu/result.hpp"

namespace deepcpu {

using CellOptions = std::map<std::string, std::string>;

struct CellOption {
  std::string_view key;
  std::vector<std::string_view> values;  ///< empty: a finite real number, at least 0
  std::string_view fallback;             ///< the value when the option is not given
  std::string_view help;                 ///< one line
};

struct CellEntry {
  std::string_view name;
  std::string_view summary;  ///< one line
  std::vector<CellOption> options;
  /// `options` as `key=value`, any subset; unknown keys and values are errors. `projection`: the
  /// spec has a projection size. A cell that has no projection ignores it, and ModelSpec::validate
  /// refuses the spec.
  Result<Cell> (*build)(const CellOptions& options, bool projection);
};

/// In the order in which `deepcpu cells` lists them. Thread-safe.
const std::vector<CellEntry>& cell_table();

/// Entry `name`, or null.
const CellEntry* find_cell(std::string_view name);

/// The canonical spelling of an option's value ("5.0" -> "5"), or an error
/// "reset=never: must be after or before".
Result<std::string> normal_value(const CellOption& option, std::string_view value);

/// The number that a canonical value spells, whatever the locale.
float number_of(std::string_view value) noexcept;

/// Every option of `entry`, canonical, fallbacks filled in.
Result<CellOptions> complete_options(const CellEntry& entry, const CellOptions& options);

/// Long short-term memory. Tensors as PyTorch's LSTM, gate order i, f, g, o:
/// weight_ih [4H, I], weight_hh [4H, H], bias_ih [4H], bias_hh [4H]. States h, c.
///   i = sigmoid(W_i x + U_i h + b_i + r_i)          f, o alike; g with tanh
///   c' = f * c + i * g
///   h' = o * tanh(c')
/// peephole=1: tensor weight_peephole [3H], order i, f, o (the order of the gates above, as oneDNN;
/// ONNX's P is i, o, f): i and f add p * c, o adds p * c'.
/// clip=v, v > 0: the sums under i, f, g and o, bias and peephole included, are cut to [-v, v]
/// (ONNX's clip as onnxruntime computes it; c' itself is not clipped).
/// coupled=1: f = 1 - i (ONNX's input_forget). The tensors keep all their blocks as in ONNX; those
/// of f are never read.
/// projection: h' = weight_hr (o * tanh(c')), tensor weight_hr [P, H], weight_hh [4H, P]; state h
/// has P numbers (PyTorch's proj_size).
Result<Cell> build_lstm(const CellOptions& options, bool projection);

/// Gated recurrent unit. Tensors as PyTorch's GRU, gate order r, z, n: weight_ih [3H, I],
/// weight_hh [3H, H], bias_ih [3H], bias_hh [3H]. State h.
///   r = sigmoid(W_r x + U_r h + b_r + s_r)          z alike
///   reset=after:  n = tanh(W_n x + b_n + r * (U_n h + s_n))      (PyTorch; ONNX's
///                                                                linear_before_reset=1)
///   reset=before: n = tanh(W_n x + U_n (r * h) + b_n + s_n)      (ONNX's default)
///   h' = n + z * (h - n)
Result<Cell> build_gru(const CellOptions& options, bool projection);

/// GRU with attentional update gate (DIEN, arXiv:1809.03672; equations of oneDNN's AUGRU). As gru,
/// with a second input `attention` of one number a per row and step: z' = (1 - a) * z,
/// h' = n + z' * (h - n). reset=before is oneDNN's AUGRU, reset=after its linear-before-reset
/// AUGRU.
Result<Cell> build_augru(const CellOptions& options, bool projection);

/// Elman's network: h' = act(W x + U h + b + r). Tensors as PyTorch's RNN: weight_ih [H, I],
/// weight_hh [H, H], bias_ih [H], bias_hh [H].
Result<Cell> build_rnn(const CellOptions& options, bool projection);

}  // namespace deepcpu
