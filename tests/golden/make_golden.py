#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden vectors of tests/golden/pytorch: small recurrent models, run in float64.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 numpy safetensors
    venv/bin/python tests/golden/make_golden.py
    venv/bin/python tests/golden/make_golden.py --float32-error <build>/tests/golden_tests

Each case is a folder: weights.safetensors (float32, PyTorch's names), x, h0, c0 (float32) and
y, hn, cn (float64) as .npy, time-major, states as PyTorch orders them. cases.txt lists
`<folder> <problem string>`. The float64 model starts from the float32 numbers that are stored.

The second form measures PyTorch's own float32 error on larger generated problems and writes it to
float32_error.txt. The test program writes their weights and inputs, from its own generator.
"""
import argparse
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent

# folder, problem string, class, constructor arguments, T
CASES = [
    ("lstm", "lstm:i5h7b3", torch.nn.LSTM, dict(input_size=5, hidden_size=7), 9),
    ("lstm_wide", "lstm:i17h19b2", torch.nn.LSTM, dict(input_size=17, hidden_size=19), 4),
    ("lstm_stack", "lstm:i6h9l2b2", torch.nn.LSTM,
     dict(input_size=6, hidden_size=9, num_layers=2), 7),
    ("lstm_bi", "lstm:i5h6l2bib2", torch.nn.LSTM,
     dict(input_size=5, hidden_size=6, num_layers=2, bidirectional=True), 6),
    ("lstm_proj", "lstm:i6h9p4l2b2", torch.nn.LSTM,
     dict(input_size=6, hidden_size=9, proj_size=4, num_layers=2), 6),
    ("gru", "gru:i5h7b3", torch.nn.GRU, dict(input_size=5, hidden_size=7), 9),
    ("gru_stack", "gru:i18h17l2b2", torch.nn.GRU,
     dict(input_size=18, hidden_size=17, num_layers=2), 4),
    ("gru_bi", "gru:i5h6bib2", torch.nn.GRU,
     dict(input_size=5, hidden_size=6, bidirectional=True), 6),
    ("rnn_tanh", "rnn:i4h9l2b2", torch.nn.RNN,
     dict(input_size=4, hidden_size=9, num_layers=2), 8),
    ("rnn_relu", "rnn:i4h9b2,act=relu", torch.nn.RNN,
     dict(input_size=4, hidden_size=9, nonlinearity="relu"), 8),
]

FLOAT32_PROBLEMS = ["lstm:i256h256", "gru:i256h256", "rnn:i256h256"]
FLOAT32_CLASSES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def save(folder, name, tensor):
    np.save(folder / f"{name}.npy", np.ascontiguousarray(tensor.detach().numpy()))


def make_case(number, folder_name, module_class, arguments, steps, batch):
    torch.manual_seed(1000 + number)
    folder = HERE / "pytorch" / folder_name
    folder.mkdir(parents=True, exist_ok=True)
    model = module_class(**arguments)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              str(folder / "weights.safetensors"))
    rows = arguments.get("num_layers", 1) * (2 if arguments.get("bidirectional") else 1)
    x = torch.rand(steps, batch, arguments["input_size"]) * 4 - 2
    h0 = torch.rand(rows, batch, arguments.get("proj_size") or arguments["hidden_size"]) * 2 - 1
    save(folder, "x", x)
    save(folder, "h0", h0)
    states = h0.double()
    if module_class is torch.nn.LSTM:
        c0 = torch.rand(rows, batch, arguments["hidden_size"]) * 2 - 1
        save(folder, "c0", c0)
        states = (states, c0.double())
    y, final = model.double()(x.double(), states)
    save(folder, "y", y)
    if module_class is torch.nn.LSTM:
        save(folder, "hn", final[0])
        save(folder, "cn", final[1])
    else:
        save(folder, "hn", final)


def make_cases():
    lines = []
    for number, (folder, problem, module_class, arguments, steps) in enumerate(CASES):
        batch = int(problem.split(",")[0].split("b")[-1])
        make_case(number, folder, module_class, arguments, steps, batch)
        lines.append(f"{folder} {problem}")
    (HERE / "pytorch" / "cases.txt").write_text("\n".join(lines) + "\n")


def float32_error(program, problem):
    """Largest and root mean square error of y of PyTorch's float32 model, zero initial states."""
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "export.safetensors"
        subprocess.run([program, "[.export]"], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "DEEPCPU_EXPORT": str(path), "DEEPCPU_PROBLEM": problem})
        tensors = load_file(str(path))
    x = tensors.pop("x")[:, None, :]
    model = FLOAT32_CLASSES[problem.split(":")[0]](256, 256)
    model.load_state_dict(tensors)
    with torch.no_grad():
        single = model(x)[0].double()
        exact = model.double()(x.double())[0]
    error = (single - exact).abs()
    return error.max().item(), error.pow(2).mean().sqrt().item()


def measure_float32(program):
    torch.set_num_threads(1)
    lines = [
        "# Error of PyTorch's float32 against float64 at T=100, zero initial states, from",
        "# make_golden.py --float32-error, torch " + torch.__version__ + ".",
        "# problem, largest error of y, root mean square error of y",
    ]
    for problem in FLOAT32_PROBLEMS:
        largest, mean = float32_error(program, problem)
        lines.append(f"{problem} {largest:.6e} {mean:.6e}")
    (HERE / "pytorch" / "float32_error.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float32-error", metavar="PROGRAM", help="the built golden tests")
    program = parser.parse_args().float32_error
    if program:
        measure_float32(program)
    else:
        make_cases()


if __name__ == "__main__":
    main()
