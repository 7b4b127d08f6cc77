# SPDX-License-Identifier: Apache-2.0
"""onnxruntime: one LSTM, GRU or RNN node per layer, called with bound inputs and outputs."""
import numpy as np

import problem as problems
import worker

# PyTorch's blocks in the order in which ONNX wants them: i f g o -> i o f c, r z n -> z r h, and
# peepholes i f o -> i o f.
GATES = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}
PEEPHOLES = [0, 2, 1]
NODES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}
OPSET = 14


def attributes(problem, layer):
    found = {"hidden_size": problem.hidden[layer], "direction": problem.direction}
    options = problem.options
    if problem.cell == "gru":
        found["linear_before_reset"] = int(options["reset"] == "after")
    if problem.cell == "rnn":
        found["activations"] = [ACTIVATIONS[options["act"]]] * problem.directions
    if problem.cell == "lstm":
        found["input_forget"] = int(options["coupled"] == "1")
        if float(options["clip"]) > 0:
            found["clip"] = float(options["clip"])
    return found


def layer_weights(problem, layer, weights):
    """The node's inputs W, R, B and, if the cell has them, P; a row of blocks per direction."""
    order = GATES[problem.cell]

    def stacked(name, wanted):
        return np.stack([problems.reorder(weights[name + suffix], wanted)
                         for suffix in problem.suffixes(layer)])

    inputs = {
        "W": stacked("weight_ih", order),
        "R": stacked("weight_hh", order),
        "B": np.concatenate([stacked("bias_ih", order), stacked("bias_hh", order)], axis=1),
    }
    if problem.options.get("peephole") == "1":
        inputs["P"] = stacked("weight_peephole", PEEPHOLES)
    return inputs


def build_model(onnx, problem, weights):
    """The stack of layers. Y of the last one stays in the node's own layout [T,D,B,H]."""
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants, value = [], [], "x"
    for layer in range(problem.layers):
        names = {"X": value}
        for name, tensor in layer_weights(problem, layer, weights).items():
            names[name] = f"{name}{layer}"
            constants.append(to_tensor(tensor, names[name]))
        inputs = [names["X"], names["W"], names["R"], names["B"]]
        if "P" in names:
            inputs += ["", "", "", names["P"]]
        value = "y" if layer == problem.layers - 1 else f"y{layer}"
        nodes.append(helper.make_node(NODES[problem.cell], inputs, [value],
                                      **attributes(problem, layer)))
        if value == "y":
            break
        width = problem.hidden[layer] * problem.directions
        constants.append(to_tensor(np.array([problem.steps, problem.batch, width]), f"s{layer}"))
        if problem.directions == 2:
            nodes.append(helper.make_node("Transpose", [value], [f"t{layer}"], perm=[0, 2, 1, 3]))
            value = f"t{layer}"
        nodes.append(helper.make_node("Reshape", [value, f"s{layer}"], [f"x{layer + 1}"]))
        value = f"x{layer + 1}"
    shape_x = [problem.steps, problem.batch, problem.input]
    shape_y = [problem.steps, problem.directions, problem.batch, problem.hidden[-1]]
    return finish_model(onnx, nodes, constants, shape_x, shape_y)


def finish_model(onnx, nodes, constants, shape_x, shape_y):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(nodes, "bench", [helper.make_tensor_value_info("x", kind, shape_x)],
                              [helper.make_tensor_value_info("y", kind, shape_y)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return model.SerializeToString()


class Bound:
    """A session with x and y in place."""

    def __init__(self, ort, model, threads, x, shape_y):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Its helpers may spin: a worker is stopped while others have their turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        # Denormals cost time; our kernels do not produce them either.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.x = ort.OrtValue.ortvalue_from_numpy(x)
        self.y = ort.OrtValue.ortvalue_from_shape_and_type(shape_y, np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("x", self.x)
        self.binding.bind_ortvalue_output("y", self.y)

    def caller(self):
        run, binding = self.session.run_with_iobinding, self.binding
        return lambda: run(binding)


class OnnxRuntime(worker.Peer):
    def version(self):
        (ort,) = worker.require("onnxruntime")
        return f"onnxruntime {ort.__version__}"

    def load(self, problem, threads, weights, x, extra):
        ort, onnx = worker.require("onnxruntime", "onnx")
        if problem.cell not in NODES:
            raise worker.unsupported(f"ONNX has no {problem.cell} node")
        if problem.projection:
            raise worker.unsupported("ONNX has no projection")
        self.problem, self.bound = problem, None  # frees the model before
        shape_y = [problem.steps, problem.directions, problem.batch, problem.hidden[-1]]
        model = build_model(onnx, problem, weights)
        self.bound = Bound(ort, model, threads, x, shape_y)
        self.call = self.bound.caller()

    def output(self):
        p = self.problem
        return self.bound.y.numpy().transpose(0, 2, 1, 3).reshape(p.steps, p.batch, p.output)

    def call_us(self):
        """A model of one Identity node over one number."""
        ort, onnx = worker.require("onnxruntime", "onnx")
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        model = finish_model(onnx, [node], [], [1], [1])
        return worker.cost_of(Bound(ort, model, 1, np.zeros(1, np.float32), [1]).caller())


if __name__ == "__main__":
    worker.serve(OnnxRuntime())
