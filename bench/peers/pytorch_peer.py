# SPDX-License-Identifier: Apache-2.0
"""PyTorch: the function under torch.nn.LSTM, GRU and RNN, in inference mode."""
import problem as problems  # noqa: F401  (the type of load's first argument)
import worker

# Options that PyTorch's modules do not have: only these values are the same cell.
SAME = {"peephole": "0", "clip": "0", "coupled": "0", "reset": "after"}


def check_support(problem):
    if problem.cell not in ("lstm", "gru", "rnn"):
        raise worker.unsupported(f"torch.nn has no {problem.cell}")
    if problem.direction == "reverse":
        raise worker.unsupported("torch.nn has no layer that only runs in reverse")
    if len(set(problem.hidden)) > 1:
        raise worker.unsupported("torch.nn has one hidden size for all layers")
    for key, value in problem.options.items():
        if key == "act" and value == "sigmoid" or SAME.get(key, value) != value:
            raise worker.unsupported(f"torch.nn has no {key}={value}")


def build_module(torch, problem, weights):
    sizes = {"input_size": problem.input, "hidden_size": problem.hidden[0],
             "num_layers": problem.layers, "bidirectional": problem.directions == 2}
    if problem.cell == "lstm":
        module = torch.nn.LSTM(proj_size=problem.projection, **sizes)
    elif problem.cell == "gru":
        module = torch.nn.GRU(**sizes)
    else:
        module = torch.nn.RNN(nonlinearity=problem.options["act"], **sizes)
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in weights.items()}
    module.load_state_dict(state)  # strict: every tensor is used
    return module.eval()


class PyTorch(worker.Peer):
    def version(self):
        (torch,) = worker.require("torch")
        return f"torch {torch.__version__}"

    def load(self, problem, threads, weights, x, extra):
        (self.torch,) = worker.require("torch")
        check_support(problem)
        torch = self.torch
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        torch.autograd.grad_mode._enter_inference_mode(True)
        self.module = build_module(torch, problem, weights)
        self.x = torch.from_numpy(x)
        self.y = None
        self.call = self.caller(problem)

    def caller(self, problem):
        """The module's forward without its checks of shapes, with zero states made once."""
        torch, module, x = self.torch, self.module, self.x
        rows = problem.layers * problem.directions
        h = torch.zeros(rows, problem.batch, problem.projection or problem.hidden[0])
        c = torch.zeros(rows, problem.batch, problem.hidden[0])
        weights = module._flat_weights
        tail = (True, problem.layers, 0.0, False, problem.directions == 2, False)
        name = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}
        function = getattr(torch._VF, name[module.mode])
        states = (h, c) if module.mode == "LSTM" else h

        def call():
            self.y = function(x, states, weights, *tail)[0]

        return call

    def output(self):
        return self.y.numpy()

    def call_us(self):
        """torch.neg of one number."""
        torch = self.torch
        one = torch.zeros(1)
        return worker.cost_of(lambda: torch.neg(one))


if __name__ == "__main__":
    worker.serve(PyTorch())
