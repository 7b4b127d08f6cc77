# SPDX-License-Identifier: Apache-2.0
"""PyTorch in inference mode, called in the fastest of the ways that it offers.

`function` is what torch.nn.LSTM, GRU and RNN call, without the module's checks. `packed` is what
torch.compile makes of an LSTM with frozen weights: oneDNN's layer with weights that were packed
once; the function packs them in every call.
"""
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
    way = None

    def version(self):
        (torch,) = worker.require("torch")
        return f"torch {torch.__version__}" + (f" ({self.way})" if self.way else "")

    def load(self, problem, threads, weights, x, extra):
        (self.torch,) = worker.require("torch")
        check_support(problem)
        torch = self.torch
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        if not torch.is_inference_mode_enabled():
            self.inference = torch.inference_mode()
            self.inference.__enter__()  # for the life of this process
        self.module = build_module(torch, problem, weights)
        self.x = torch.from_numpy(x)
        self.y = None
        ways = {"function": self.function(problem)}
        if problem.cell == "lstm" and not problem.projection:
            ways["packed"] = self.packed(problem)
        self.way = worker.fastest(ways)
        self.call = ways[self.way]

    def function(self, problem):
        """Zero states are made once."""
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

    def packed(self, problem):
        """One call of oneDNN's layer per layer and direction."""
        torch, x = self.torch, self.x
        run = torch.ops.aten.mkldnn_rnn_layer.default
        layers = [self.packed_layer(problem, layer) for layer in range(problem.layers)]
        concatenate = torch.cat

        def call():
            value = x
            for directions in layers:
                outputs = [run(value, *arguments)[0] for arguments in directions]
                value = outputs[0] if len(outputs) == 1 else concatenate(outputs, -1)
            self.y = value

        return call

    def packed_layer(self, problem, layer):
        """Arguments of the layer's calls but the input, a direction each."""
        torch, hidden = self.torch, problem.hidden[0]
        pack = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight
        width = problem.input if layer == 0 else hidden * problem.directions
        zeros = torch.zeros(problem.batch, hidden)
        lstm_mode = 2
        calls = []
        for reverse, suffix in enumerate(problem.suffixes(layer)):
            w_ih, w_hh, b_ih, b_hh = (
                getattr(self.module, name + suffix).detach()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            packed = pack(w_ih, w_hh, hidden, bool(reverse), True, False,
                          [problem.steps, problem.batch, width])
            calls.append((*packed, b_ih, b_hh, zeros, zeros, bool(reverse), [], lstm_mode, hidden,
                          1, True, False, False, False))
        return calls

    def output(self):
        return self.y.detach().numpy()

    def call_us(self):
        """torch.neg of one number."""
        torch = self.torch
        one = torch.zeros(1)
        return worker.cost_of(lambda: torch.neg(one))


if __name__ == "__main__":
    worker.serve(PyTorch())
