#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden vectors of tests/golden/onnx: cell options that PyTorch does not have, run by
onnxruntime in float32.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 onnxruntime==1.32.0 numpy safetensors
    venv/bin/python tests/golden/make_golden_onnx.py

Each case is a folder: weights.safetensors (float32, our names and gate order), x, h0, c0 (float32),
lengths (int32, if ragged) and y, hn, cn (float32) as .npy, time-major [T,B,D*H] and [D,B,H].
cases.txt lists `<folder> <problem string>`.
"""
import pathlib

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent

# Our blocks in the order of ONNX's: ONNX has LSTM gates i o f c, GRU gates z r h; ours are i f g o
# and r z n. Peepholes: ONNX i o f, ours i f o.
GATES = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
PEEPHOLES = [0, 2, 1]

# folder, problem string, operator, attributes, peephole, sequence lengths, direction, T
CASES = [
    ("lstm_peephole", "lstm:i5h7b2,peephole=1", "LSTM", {}, True, None, "forward", 7),
    ("lstm_clip", "lstm:i5h7b2,clip=0.5", "LSTM", {"clip": 0.5}, False, None, "forward", 7),
    ("lstm_coupled", "lstm:i5h7b2,coupled=1", "LSTM", {"input_forget": 1}, False, None,
     "forward", 7),
    ("lstm_options", "lstm:i6h19b2,clip=1,coupled=1,peephole=1", "LSTM",
     {"clip": 1.0, "input_forget": 1}, True, None, "forward", 5),
    ("lstm_reverse", "lstm:i5h7revb2", "LSTM", {}, False, None, "reverse", 6),
    ("lstm_bi", "lstm:i5h7bib2", "LSTM", {}, False, None, "bidirectional", 6),
    ("lstm_ragged", "lstm:i5h7b4", "LSTM", {}, False, [6, 2, 6, 1], "forward", 6),
    ("lstm_ragged_bi", "lstm:i5h7bib4", "LSTM", {}, False, [3, 6, 1, 5], "bidirectional", 6),
    ("gru_before", "gru:i5h7b2,reset=before", "GRU", {"linear_before_reset": 0}, False, None,
     "forward", 7),
    ("gru_after", "gru:i5h7b2", "GRU", {"linear_before_reset": 1}, False, None, "forward", 7),
    ("gru_ragged_rev", "gru:i5h7revb4,reset=before", "GRU", {"linear_before_reset": 0}, False,
     [4, 6, 2, 1], "reverse", 6),
]


def blocks(array, order):
    """Row blocks of an ONNX tensor of one direction, in our order."""
    parts = np.split(array, len(order), axis=0)
    return np.ascontiguousarray(np.concatenate([parts[i] for i in order]))


def our_weights(operator, tensors):
    order = GATES[operator]
    out = {}
    for d in range(tensors["W"].shape[0]):
        suffix = "_l0" + ("_reverse" if d == 1 else "")
        half = tensors["B"].shape[1] // 2
        out["weight_ih" + suffix] = blocks(tensors["W"][d], order)
        out["weight_hh" + suffix] = blocks(tensors["R"][d], order)
        out["bias_ih" + suffix] = blocks(tensors["B"][d, :half], order)
        out["bias_hh" + suffix] = blocks(tensors["B"][d, half:], order)
        if "P" in tensors:
            out["weight_peephole" + suffix] = blocks(tensors["P"][d], PEEPHOLES)
    return out


def run_onnx(operator, attributes, direction, tensors):
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    names = names if operator == "LSTM" else names[:6]
    given = [n if n in tensors else "" for n in names]
    while given[-1] == "":
        given.pop()
    outputs = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    hidden = tensors["R"].shape[2]
    node = helper.make_node(operator, given, outputs, hidden_size=hidden, direction=direction,
                            **attributes)
    kind = {n: TensorProto.INT32 if n == "sequence_lens" else TensorProto.FLOAT for n in given if n}
    graph = helper.make_graph(
        [node], "golden",
        [helper.make_tensor_value_info(n, kind[n], tensors[n].shape) for n in given if n],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(outputs, {n: tensors[n] for n in given if n})


def make_tensors(random, operator, hidden, width, batch, directions, steps, peephole):
    gates = len(GATES[operator])

    def uniform(scale, *shape):
        return random.uniform(-scale, scale, shape).astype(np.float32)

    tensors = {
        "X": uniform(2, steps, batch, width),
        "W": uniform(0.8, directions, gates * hidden, width),
        "R": uniform(0.8, directions, gates * hidden, hidden),
        "B": uniform(0.5, directions, 2 * gates * hidden),
        "initial_h": uniform(1, directions, batch, hidden),
    }
    if operator == "LSTM":
        tensors["initial_c"] = uniform(1, directions, batch, hidden)
    if peephole:
        tensors["P"] = uniform(0.7, directions, 3 * hidden)
    return tensors


def make_case(number, case):
    name, problem, operator, attributes, peephole, lengths, direction, steps = case
    random = np.random.default_rng(2000 + number)
    directions = 2 if direction == "bidirectional" else 1
    batch = int(problem.split(",")[0].split("b")[-1])
    hidden, width = (19, 6) if "h19" in problem else (7, 5)
    tensors = make_tensors(random, operator, hidden, width, batch, directions, steps, peephole)
    if lengths:
        tensors["sequence_lens"] = np.array(lengths, dtype=np.int32)
    results = run_onnx(operator, attributes, direction, tensors)
    folder = HERE / "onnx" / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(our_weights(operator, tensors), str(folder / "weights.safetensors"))
    # ONNX: Y [T,D,B,H]; ours [T,B,D*H].
    y = results[0].transpose(0, 2, 1, 3).reshape(steps, batch, directions * hidden)
    arrays = {"x": tensors["X"], "h0": tensors["initial_h"], "y": y, "hn": results[1]}
    if operator == "LSTM":
        arrays |= {"c0": tensors["initial_c"], "cn": results[2]}
    if lengths:
        arrays["lengths"] = tensors["sequence_lens"]
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", np.ascontiguousarray(array))
    return f"{name} {problem}"


def main():
    (HERE / "onnx").mkdir(exist_ok=True)
    lines = [make_case(number, case) for number, case in enumerate(CASES)]
    (HERE / "onnx" / "cases.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
