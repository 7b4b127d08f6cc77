# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: running it, files in and out, a reference model."""

import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

ITEM = {"<f4": "f", "<f8": "d", "<i4": "i", "<i8": "q", ">f4": ">f", "<f2": "e"}
BINARY = ""


def count(shape):
    return math.prod(shape)


def npy_bytes(shape, values, descr="<f4", fortran=False, version=1):
    """A whole npy file; `shape` may also be text, to write what is wrong."""
    text = shape if isinstance(shape, str) else repr(tuple(shape))
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {text}, }}"
    header = header.ljust(117) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    order = ">" if descr.startswith(">") else "<"
    code = ITEM[descr].lstrip(">")
    data = struct.pack(f"{order}{len(values)}{code}", *values)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def read_npy(path):
    """(shape, values) of a float32 file that numpy would read."""
    raw = pathlib.Path(path).read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00", raw[:8]
    (length,) = struct.unpack("<H", raw[8:10])
    assert (10 + length) % 64 == 0
    header = eval(raw[10:10 + length].decode(), {"__builtins__": {}}, {})  # a Python dict literal
    assert header["descr"] == "<f4" and header["fortran_order"] is False
    shape = header["shape"]
    values = struct.unpack(f"<{count(shape)}f", raw[10 + length:])
    return shape, list(values)


def safetensors_bytes(tensors, header=None, data=None):
    """`tensors`: name -> (shape, values), all float32. `header` and `data` replace what would be
    written; a header of the type bytes is taken as it is."""
    entries, blob = {}, b""
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        entries[name] = {"dtype": "F32", "shape": list(shape),
                         "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    if not isinstance(header, bytes):
        header = json.dumps(entries if header is None else header).encode()
    return struct.pack("<Q", len(header)) + header + (blob if data is None else data)


def numbers(n, seed):
    """n numbers that float32 holds exactly."""
    generator = random.Random(seed)
    return [generator.randrange(-512, 513) / 1024 for _ in range(n)]


def torch_weights(gates, inputs, hidden, layers=1, directions=1, projection=0, seed=1):
    """Random tensors in PyTorch's names."""
    out, state = {}, projection or hidden
    for layer in range(layers):
        width = inputs if layer == 0 else state * directions
        for direction in range(directions):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            shapes = {"weight_ih": (gates * hidden, width), "weight_hh": (gates * hidden, state),
                      "bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
            if projection:
                shapes["weight_hr"] = (projection, hidden)
            for name, shape in shapes.items():
                seed += 1
                out[name + suffix] = (shape, numbers(count(shape), seed))
    return out


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def product(weights, name, vector):
    (rows, columns), values = weights[name]
    assert columns == len(vector), name
    return [sum(values[r * columns + k] * vector[k] for k in range(columns)) for r in range(rows)]


def lstm_step(weights, suffix, x, states):
    """One step of torch.nn.LSTM, gates i, f, g, o."""
    h, c = states
    n = len(c)
    sums = [a + b + p + q for a, b, p, q in zip(
        product(weights, "weight_ih" + suffix, x), product(weights, "weight_hh" + suffix, h),
        weights["bias_ih" + suffix][1], weights["bias_hh" + suffix][1])]
    i, f, o = ([sigmoid(v) for v in sums[g * n:(g + 1) * n]] for g in (0, 1, 3))
    g = [math.tanh(v) for v in sums[2 * n:3 * n]]
    c = [f[u] * c[u] + i[u] * g[u] for u in range(n)]
    h = [o[u] * math.tanh(c[u]) for u in range(n)]
    if "weight_hr" + suffix in weights:
        h = product(weights, "weight_hr" + suffix, h)
    return [h, c]


def gru_step(weights, suffix, x, states):
    """One step of torch.nn.GRU, gates r, z, n."""
    (h,) = states
    n = len(h)
    a = [s + b for s, b in zip(product(weights, "weight_ih" + suffix, x),
                               weights["bias_ih" + suffix][1])]
    b = [s + b for s, b in zip(product(weights, "weight_hh" + suffix, h),
                               weights["bias_hh" + suffix][1])]
    r = [sigmoid(a[u] + b[u]) for u in range(n)]
    z = [sigmoid(a[n + u] + b[n + u]) for u in range(n)]
    new = [math.tanh(a[2 * n + u] + r[u] * b[2 * n + u]) for u in range(n)]
    return [[(1 - z[u]) * new[u] + z[u] * h[u] for u in range(n)]]


def run_model(step, weights, x, layers, directions, states, lengths=None):
    """x[t][row][...]; states[state][layer * directions + direction][row][...], in place. Gives
    y[t][row][...], zero past a row's length."""
    steps, rows = len(x), len(x[0])
    y = [[None] * rows for _ in range(steps)]
    for row in range(rows):
        length = lengths[row] if lengths else steps
        sequence = [x[t][row] for t in range(length)]
        for layer in range(layers):
            parts = []
            for direction in range(directions):
                at = layer * directions + direction
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                now, outputs = [s[at][row] for s in states], [None] * length
                for t in reversed(range(length)) if direction else range(length):
                    now = step(weights, suffix, sequence[t], now)
                    outputs[t] = now[0]
                for s, value in zip(states, now):
                    s[at][row] = value
                parts.append(outputs)
            sequence = [sum((p[t] for p in parts), []) for t in range(length)]
        for t in range(steps):
            width = directions * len(states[0][-1][row])
            y[t][row] = sequence[t] if t < length else [0.0] * width
    return y


def nest(values, shape):
    if len(shape) == 1:
        return list(values)
    part = count(shape[1:])
    return [nest(values[i * part:(i + 1) * part], shape[1:]) for i in range(shape[0])]


def flatten(nested):
    if not isinstance(nested, list):
        return [nested]
    return [v for item in nested for v in flatten(item)]


class CliTest(unittest.TestCase):
    """A test case with a folder of its own, in which the program runs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, content):
        (self.folder / name).write_bytes(content)
        return name

    def npy(self, name, shape, values, descr="<f4"):
        return self.write(name, npy_bytes(shape, values, descr))

    def environment(self, env=None):
        """DEEPCPU variables come from `env` alone; without one there no saved calibration is
        used."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPCPU_")}
        clean["DEEPCPU_MACHINE"] = "none"
        clean.update(env or {})
        return clean

    def call(self, *arguments, env=None, **options):
        """Runs `deepcpu` in `environment(env)` with an empty stdin."""
        return subprocess.run([BINARY, *map(str, arguments)], cwd=self.folder,
                              env=self.environment(env), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, **options)

    def ok(self, *arguments, stderr="", env=None):
        """Runs `deepcpu`, which must succeed; gives its stdout. None as stderr: anything."""
        done = self.call(*arguments, env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        if stderr is not None:
            self.assertEqual(done.stderr, stderr)
        return done.stdout

    def fails(self, sentence, *arguments, status=1, env=None):
        """Runs `deepcpu`, which must give the status, one line on stderr that holds `sentence`,
        nothing on stdout and no file."""
        before = sorted(self.folder.rglob("*"))
        done = self.call(*arguments, env=env)
        where = f"{' '.join(map(str, arguments))}\n{done.stderr}"
        self.assertEqual(done.returncode, status, where)
        self.assertEqual(done.stdout, "", where)
        self.assertRegex(done.stderr, r"\Adeepcpu: [^\n]+\n\Z", where)
        self.assertIn(sentence, done.stderr, where)
        self.assertEqual(sorted(self.folder.rglob("*")), before, where)
        return done.stderr

    def close(self, actual, expected, bound=2e-6):
        expected = flatten(expected)
        self.assertEqual(len(actual), len(expected))
        worst = max((abs(a - b) for a, b in zip(actual, expected)), default=0.0)
        self.assertLessEqual(worst, bound)


def main():
    global BINARY
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} DEEPCPU [TEST...]")
    BINARY = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__")
