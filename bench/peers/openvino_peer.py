# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's CPU device: one LSTMSequence, GRUSequence or RNNSequence per layer, compiled for
latency in float32, x and y in place.

Its operations want the batch first. `batch first` gives x and takes y that way; `steps first`
transposes inside the model, which the library may merge with transpositions of its own. For a batch
of one both are the same arrays. The faster form is used; `versions` in the JSON says which.
"""
import numpy as np

import problem as problems
import worker

# PyTorch's blocks in OpenVINO's order: i f g o -> f i c o, r z n -> z r h.
GATES = {"lstm": [1, 0, 2, 3], "gru": [1, 0, 2], "rnn": [0]}
# Options of PyTorch-like cells that its operations do not have: only these values are the same.
SAME = {"peephole": "0", "coupled": "0"}


def check_support(problem):
    if problem.cell not in GATES:
        raise worker.unsupported(f"OpenVINO has no {problem.cell} operation")
    if problem.projection:
        raise worker.unsupported("OpenVINO has no projection")
    for key, value in problem.options.items():
        if SAME.get(key, value) != value:
            raise worker.unsupported(f"OpenVINO has no {key}={value}")


def layer_weights(problem, layer, weights):
    """W, R and B, a row of blocks per direction."""
    order = GATES[problem.cell]

    def stacked(name, wanted):
        return np.stack([problems.reorder(weights[name + suffix], wanted)
                         for suffix in problem.suffixes(layer)])

    b_ih, b_hh = stacked("bias_ih", order), stacked("bias_hh", order)
    bias = b_ih + b_hh
    if problem.options.get("reset") == "after":  # r multiplies the candidate's bias of U·h
        split = 2 * problem.hidden[layer]
        bias = np.concatenate([bias[:, :split], b_ih[:, split:], b_hh[:, split:]], axis=1)
    return stacked("weight_ih", order), stacked("weight_hh", order), bias


def sequence(ops, problem, layer, weights, x):
    """The node of one layer: x [B,T,width] -> y [B,D,T,H]."""
    hidden, batch = problem.hidden[layer], problem.batch
    state = ops.constant(np.zeros((batch, problem.directions, hidden), np.float32))
    lengths = ops.constant(np.full(batch, problem.steps, np.int64))
    tensors = [ops.constant(each) for each in layer_weights(problem, layer, weights)]
    options = problem.options
    common = {"hidden_size": hidden, "direction": problem.direction}
    if problem.cell == "lstm":
        if float(options["clip"]) > 0:
            common["clip"] = float(options["clip"])
        return ops.lstm_sequence(x, state, state, lengths, *tensors, **common).output(0)
    if problem.cell == "gru":
        return ops.gru_sequence(x, state, lengths, *tensors, **common,
                                linear_before_reset=options["reset"] == "after").output(0)
    return ops.rnn_sequence(x, state, lengths, *tensors, **common,
                            activations=[options["act"]]).output(0)


def build_model(ov, problem, weights, steps_first):
    """x [B,T,I] -> y [B,D,T,H], or x [T,B,I] -> y [T,B,D,H]."""
    ops = ov.opset13
    shape = [problem.batch, problem.steps, problem.input]
    if steps_first:
        shape[:2] = shape[1::-1]
    parameter = ops.parameter(shape, np.float32, name="x")
    value = parameter.output(0)
    if steps_first:
        value = ops.transpose(value, [1, 0, 2])
    for layer in range(problem.layers):
        y = sequence(ops, problem, layer, weights, value)
        width = problem.hidden[layer] * problem.directions
        value = ops.reshape(ops.transpose(y, [0, 2, 1, 3]), [problem.batch, problem.steps, width],
                            False)
    y = ops.transpose(y, [2, 0, 1, 3]).output(0) if steps_first else y
    return ov.Model([ops.result(y)], [parameter], "bench")


class Bound:
    """A compiled model with x and y in place. Arrays are kept, since the library shares them."""

    def __init__(self, ov, model, threads, x):
        hint = ov.properties.hint
        compiled = ov.Core().compile_model(model, "CPU", {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: ov.Type.f32,
            hint.execution_mode: hint.ExecutionMode.ACCURACY,
            ov.properties.inference_num_threads: threads,
            ov.properties.num_streams: 1,
            # Denormals cost time; our kernels do not produce them either.
            "CPU_DENORMALS_OPTIMIZATION": "YES",
        })
        self.x = np.ascontiguousarray(x)
        self.y = np.zeros(tuple(compiled.output(0).shape), np.float32)
        self.request = compiled.create_infer_request()
        self.request.set_input_tensor(ov.Tensor(self.x, shared_memory=True))
        self.request.set_output_tensor(ov.Tensor(self.y, shared_memory=True))

    def caller(self):
        """The method below InferRequest.infer, which would look at its inputs and wrap its outputs
        in every call."""
        run = super(type(self.request), self.request).infer
        nothing = {}
        return lambda: run(nothing, True, False)


class OpenVino(worker.Peer):
    way = None

    def version(self):
        (ov,) = worker.require("openvino")
        name = f"openvino {ov.__version__.partition('-')[0]}"
        return name + (f" ({self.way})" if self.way else "")

    def load(self, problem, threads, weights, x, extra):
        (ov,) = worker.require("openvino")
        check_support(problem)
        self.problem, self.bound = problem, None  # frees the model before
        forms = {
            "batch first": Bound(ov, build_model(ov, problem, weights, False), threads,
                                 x.transpose(1, 0, 2)),
            "steps first": Bound(ov, build_model(ov, problem, weights, True), threads, x),
        }
        calls = {way: bound.caller() for way, bound in forms.items()}
        self.way = worker.fastest(calls)
        self.bound, self.call = forms[self.way], calls[self.way]

    def output(self):
        p = self.problem
        axes = (0, 1, 2, 3) if self.way == "steps first" else (2, 0, 1, 3)
        return self.bound.y.transpose(axes).reshape(p.steps, p.batch, p.output)

    def call_us(self):
        """A model that negates one number."""
        (ov,) = worker.require("openvino")
        ops = ov.opset13
        parameter = ops.parameter([1], np.float32)
        model = ov.Model([ops.result(ops.negative(parameter))], [parameter], "call")
        return worker.cost_of(Bound(ov, model, 1, np.zeros(1, np.float32)).caller())


if __name__ == "__main__":
    worker.serve(OpenVino())
