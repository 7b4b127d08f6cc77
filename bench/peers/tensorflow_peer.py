# SPDX-License-Identifier: Apache-2.0
"""TensorFlow in the fastest of the ways that it offers, as one tf.function over the whole sequence.

`keras` is keras.layers.LSTM, GRU and SimpleRNN (unroll off), `keras xla` the same compiled by XLA.
`loop xla` is a tf.while_loop over U·h with x·W of all steps before it, compiled by XLA. `block` is
TensorFlow's fused operation for LSTM layers. `versions` in the JSON says which one was used.

A traced function is called below ConcreteFunction's look at its arguments, as a program in C would:
that look alone takes more than 100 microseconds per call.
"""
import os

import numpy as np

import problem as problems
import worker

# PyTorch's blocks in the order in which Keras wants them: r z n -> z r h.
GATES = {"lstm": [0, 1, 2, 3], "gru": [1, 0, 2], "rnn": [0]}
# Options that Keras does not have: only these values are the same cell.
SAME = {"peephole": "0", "clip": "0", "coupled": "0"}


def check_support(problem):
    if problem.cell not in GATES:
        raise worker.unsupported(f"TensorFlow has no {problem.cell}")
    if problem.projection:
        raise worker.unsupported("Keras has no projection")
    for key, value in problem.options.items():
        if SAME.get(key, value) != value:
            raise worker.unsupported(f"Keras has no {key}={value}")


class Direction:
    """Weights of one direction of one layer, as TensorFlow's matrices stand: [inputs, outputs]."""

    def __init__(self, problem, layer, suffix, weights):
        order = GATES[problem.cell]

        def tensor(name):
            return problems.reorder(weights[name + suffix], order)

        self.problem, self.hidden = problem, problem.hidden[layer]
        self.reverse = problem.direction == "reverse" or suffix.endswith("_reverse")
        self.w = np.ascontiguousarray(tensor("weight_ih").T)
        self.u = np.ascontiguousarray(tensor("weight_hh").T)
        self.b_w, self.b_u = tensor("bias_ih"), tensor("bias_hh")
        self.reset_after = problem.options.get("reset") == "after"


def keras_layer(tf, d):
    """x [T,B,I] -> y [T,B,H]; Keras itself wants [B,T,I]."""
    settings = {"return_sequences": True, "go_backwards": d.reverse, "unroll": False}
    layers = tf.keras.layers
    if d.problem.cell == "lstm":
        layer = layers.LSTM(d.hidden, **settings)
    elif d.problem.cell == "gru":
        layer = layers.GRU(d.hidden, reset_after=d.reset_after, **settings)
    else:
        layer = layers.SimpleRNN(d.hidden, activation=d.problem.options["act"], **settings)
    layer.build((d.problem.batch, d.problem.steps, d.w.shape[0]))
    bias = np.stack([d.b_w, d.b_u]) if d.reset_after else d.b_w + d.b_u
    layer.set_weights([d.w, d.u, bias])

    def run(x):
        y = layer(tf.transpose(x, [1, 0, 2]))
        return tf.transpose(tf.reverse(y, [1]) if d.reverse else y, [1, 0, 2])

    return run


def block_layer(tf, d):
    """x [T,B,I] -> y [T,B,H] by the operation that runs a whole layer of LSTM."""
    w = tf.constant(np.concatenate([d.w, d.u]))
    bias = tf.constant(d.b_w + d.b_u)
    state = tf.zeros([d.problem.batch, d.hidden])
    peephole = tf.zeros([d.hidden])
    steps = tf.constant(d.problem.steps, tf.int64)

    def run(x):
        x = tf.reverse(x, [0]) if d.reverse else x
        y = tf.raw_ops.BlockLSTMV2(seq_len_max=steps, x=x, cs_prev=state, h_prev=state, w=w,
                                   wci=peephole, wcf=peephole, wco=peephole, b=bias,
                                   use_peephole=False).h
        return tf.reverse(y, [0]) if d.reverse else y

    return run


def step_of(tf, d):
    """(gates of W·x with biases, states) -> states; the first state is h."""
    u, b_u = tf.constant(d.u), tf.constant(d.b_u)

    def lstm(g, h, c):
        i, f, n, o = tf.split(g + tf.matmul(h, u), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(n)
        return tf.sigmoid(o) * tf.tanh(c), c

    def gru_after(g, h):
        z_x, r_x, n_x = tf.split(g, 3, axis=1)
        z_h, r_h, n_h = tf.split(tf.matmul(h, u) + b_u, 3, axis=1)
        z = tf.sigmoid(z_x + z_h)
        return (z * h + (1.0 - z) * tf.tanh(n_x + tf.sigmoid(r_x + r_h) * n_h),)

    u_zr, u_n = tf.constant(d.u[:, : 2 * d.hidden]), tf.constant(d.u[:, 2 * d.hidden :])

    def gru_before(g, h):
        z_x, r_x, n_x = tf.split(g, 3, axis=1)
        z_h, r_h = tf.split(tf.matmul(h, u_zr), 2, axis=1)
        z = tf.sigmoid(z_x + z_h)
        n = tf.tanh(n_x + tf.matmul(tf.sigmoid(r_x + r_h) * h, u_n))
        return (z * h + (1.0 - z) * n,)

    def rnn(g, h):
        activate = {"tanh": tf.tanh, "relu": tf.nn.relu, "sigmoid": tf.sigmoid}
        return (activate[d.problem.options["act"]](g + tf.matmul(h, u)),)

    return {"lstm": lstm, "gru": gru_after if d.reset_after else gru_before,
            "rnn": rnn}[d.problem.cell]


def loop_layer(tf, d):
    """x [T,B,I] -> y [T,B,H] by a loop of our own; to be compiled by XLA."""
    step = step_of(tf, d)
    w = tf.constant(d.w)
    bias = tf.constant(d.b_w if d.reset_after else d.b_w + d.b_u)
    steps, batch = d.problem.steps, d.problem.batch

    def run(x):
        gates = tf.matmul(tf.reshape(x, [steps * batch, -1]), w) + bias
        gates = tf.reshape(gates, [steps, batch, -1])
        zeros = tf.zeros([batch, d.hidden])
        states = (zeros, zeros) if d.problem.cell == "lstm" else (zeros,)
        y = tf.TensorArray(tf.float32, steps, element_shape=[batch, d.hidden])

        def body(i, y, *states):
            t = steps - 1 - i if d.reverse else i
            states = step(gates[t], *states)
            return (i + 1, y.write(t, states[0]), *states)

        _, y, *_ = tf.while_loop(lambda i, *_: i < steps, body, (0, y, *states),
                                 parallel_iterations=1, maximum_iterations=steps)
        return y.stack()

    return run


WAYS = {  # name: (layer, compiled by XLA, cells)
    "keras": (keras_layer, False, ("lstm", "gru", "rnn")),
    "keras xla": (keras_layer, True, ("lstm", "gru", "rnn")),
    "loop xla": (loop_layer, True, ("lstm", "gru", "rnn")),
    "block": (block_layer, False, ("lstm",)),
}


def traced(function, x):
    """The function for tensors like x, without a look at its arguments: x -> list of outputs."""
    concrete = function.get_concrete_function(x)
    run, captured = concrete._inference_function.call_flat, tuple(concrete.captured_inputs)

    return lambda x, owner=concrete: run(x, *captured)


class TensorFlow(worker.Peer):
    way = None
    threads = None

    def version(self):
        (tf,) = worker.require("tensorflow")
        return f"tensorflow {tf.__version__}" + (f" ({self.way})" if self.way else "")

    def load(self, problem, threads, weights, x, extra):
        (tf,) = worker.require("tensorflow")
        check_support(problem)
        if self.threads is None:  # cannot be changed once operations ran
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            self.threads = threads
        self.x = tf.constant(x)
        calls = {name: self.caller(tf, problem, weights, layer, xla)
                 for name, (layer, xla, cells) in WAYS.items() if problem.cell in cells}
        self.way = worker.fastest(calls)
        self.call = calls[self.way]

    def caller(self, tf, problem, weights, make_layer, xla):
        """A function of x, traced once. Weights are captured; x is an argument, so that nothing of
        the sequence is computed beforehand."""
        layers = [[make_layer(tf, Direction(problem, layer, suffix, weights))
                   for suffix in problem.suffixes(layer)] for layer in range(problem.layers)]

        @tf.function(jit_compile=xla, autograph=False)
        def network(x):
            for directions in layers:
                outputs = [run(x) for run in directions]
                x = outputs[0] if len(outputs) == 1 else tf.concat(outputs, 2)
            return x

        run, x = traced(network, self.x), self.x

        def call():
            self.y = run(x)

        return call

    def output(self):
        return self.y[0].numpy()

    def call_us(self):
        """A function that negates one number, compiled by XLA or not as the one in use."""
        (tf,) = worker.require("tensorflow")
        one = tf.zeros(1)
        negative = tf.function(tf.negative, jit_compile=self.way.endswith("xla"), autograph=False)
        run = traced(negative, one)
        return worker.cost_of(lambda: run(one))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # no search for one
    worker.serve(TensorFlow())
