# SPDX-License-Identifier: Apache-2.0
"""Takes the silero-vad model apart, so that its LSTM can run elsewhere.

    convert_silero.py PACKAGE_FOLDER FOLDER

reads the 16 kHz ONNX model of the silero_vad package and writes
    front.onnx         audio [1,576] to LSTM input [1,128,1]: STFT and four convolutions
    lstm.safetensors   the LSTM, with PyTorch's tensor names and gate order
    lstm.onnx          the same LSTM as a model of its own, for a comparison in onnxruntime
    head.npz           weight and bias of what follows: sigmoid(weight · relu(h) + bias)
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import safetensors_io

MODEL = os.path.join("silero_vad", "data", "silero_vad_16k_op15.onnx")
FRONT_OUTPUT = "/model/encoder/3/activation/Relu_output_0"
LSTM_PREFIX = "model.decoder.rnn."
LSTM_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
HEAD_PREFIX = "model.decoder.decoder.2."


def front_end(model):
    """The part of the graph that FRONT_OUTPUT depends on."""
    needed, nodes = {FRONT_OUTPUT}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.insert(0, node)
            needed |= set(node.input)
    if not nodes:
        sys.exit(f"{MODEL}: has no value {FRONT_OUTPUT}")
    graph = helper.make_graph(
        nodes,
        "front",
        [value for value in model.graph.input if value.name in needed],
        [helper.make_tensor_value_info(FRONT_OUTPUT, TensorProto.FLOAT, None)],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def onnx_gates(array):
    """From PyTorch's gate order i, f, g, o to ONNX's i, o, f, c."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])


def lstm_model(tensors, opsets, ir_version):
    """x [T,1,I], h [1,1,H], c [1,1,H] to y [T,1,1,H] and the new h and c."""
    hidden = tensors["weight_hh"].shape[1]
    bias = np.concatenate([onnx_gates(tensors["bias_ih"]), onnx_gates(tensors["bias_hh"])])
    parameters = {
        "W": onnx_gates(tensors["weight_ih"])[None],
        "R": onnx_gates(tensors["weight_hh"])[None],
        "B": bias[None],
    }
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    node = helper.make_node(
        "LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y", "hn", "cn"], hidden_size=hidden
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [value(name) for name in ("x", "h", "c")],
        [value(name) for name in ("y", "hn", "cn")],
        [numpy_helper.from_array(array, name) for name, array in parameters.items()],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: convert_silero.py PACKAGE_FOLDER FOLDER")
    package, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    model = onnx.load(os.path.join(package, MODEL))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    onnx.save(front_end(model), os.path.join(folder, "front.onnx"))
    lstm = {name: arrays[LSTM_PREFIX + name] for name in LSTM_NAMES}
    safetensors_io.write(
        os.path.join(folder, "lstm.safetensors"),
        {name + "_l0": array for name, array in lstm.items()},
    )
    lstm_onnx = lstm_model(lstm, model.opset_import, model.ir_version)
    onnx.save(lstm_onnx, os.path.join(folder, "lstm.onnx"))
    np.savez(
        os.path.join(folder, "head.npz"),
        weight=arrays[HEAD_PREFIX + "weight"].reshape(-1),
        bias=arrays[HEAD_PREFIX + "bias"],
    )


if __name__ == "__main__":
    main()
