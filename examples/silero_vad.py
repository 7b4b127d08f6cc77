# SPDX-License-Identifier: Apache-2.0
"""Finds speech in recordings with silero-vad, its LSTM run by DeepCPU.

    silero_vad.py --package FOLDER --models FOLDER --lstm PROGRAM RECORDING.wav...

Each recording goes through two paths, frame by frame with the state carried:
    whole   the package's own model silero_vad.onnx in onnxruntime
    split   front end in onnxruntime, LSTM by examples/silero_lstm.cpp, head in numpy
Fails if their speech probabilities differ by more than 1e-5 anywhere. The time per frame is printed
for both, and for the LSTM alone in DeepCPU and in onnxruntime, all with one thread. What is called
from Python includes the cost of that call: compare the LSTMs by the times for all frames in one
call.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import wave

import numpy as np
import onnxruntime

RATE = 16000
FRAME = 512  # samples: 32 ms
CONTEXT = 64  # samples of the frame before, given again
HIDDEN = 128
LIMIT = 1e-5
PASSES = 10


def load(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_frames(path):
    """The recording as [frames, CONTEXT + FRAME], zeros before the start and after the end.

    A rate that is a multiple of 16 kHz is brought down by taking every n-th sample, as the
    package's own wrapper does.
    """
    with wave.open(path) as file:
        if file.getsampwidth() != 2 or file.getnchannels() != 1 or file.getframerate() % RATE:
            sys.exit(f"{path}: must be 16-bit mono at a multiple of {RATE} Hz")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        samples = samples[:: file.getframerate() // RATE].astype(np.float32) / 32768
    count = -(-len(samples) // FRAME)
    samples = np.pad(samples, (CONTEXT, count * FRAME - len(samples)))
    return np.stack([samples[i * FRAME : (i + 1) * FRAME + CONTEXT] for i in range(count)])


def timed(call, times):
    start = time.perf_counter()
    result = call()
    times.append((time.perf_counter() - start) * 1e6)
    return result


def run_whole(session, frames, times):
    """Speech probability of each frame by the whole model."""
    state = np.zeros((2, 1, HIDDEN), np.float32)
    rate = np.array(RATE, np.int64)
    probabilities = []
    for frame in frames:
        feeds = {"input": frame[None], "state": state, "sr": rate}
        output, state = timed(lambda: session.run(None, feeds), times)
        probabilities.append(output[0, 0])
    return np.array(probabilities)


def run_front(session, frames, times):
    """The LSTM's input for each frame, [frames, 128]."""
    rows = [timed(lambda: session.run(None, {"input": frame[None]})[0], times) for frame in frames]
    return np.stack([row.reshape(HIDDEN) for row in rows])


def run_lstm_onnx(session, x, times):
    """h after each frame by onnxruntime's LSTM operator."""
    h = c = np.zeros((1, 1, HIDDEN), np.float32)
    rows = []
    for row in x:
        feeds = {"x": row[None, None], "h": h, "c": c}
        y, h, c = timed(lambda: session.run(None, feeds), times)
        rows.append(y.reshape(HIDDEN))
    return np.stack(rows)


def lstm_onnx_one_call(session, x, times):
    zero = np.zeros((1, 1, HIDDEN), np.float32)
    feeds = {"x": x[:, None], "h": zero, "c": zero}
    session.run(None, feeds)
    for _ in range(PASSES):
        timed(lambda: session.run(None, feeds), times)
    times[-PASSES:] = [elapsed / len(x) for elapsed in times[-PASSES:]]


def run_lstm_deepcpu(program, weights, x):
    """h after each frame by the C++ program, and the times it measured."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "x.f32"), os.path.join(folder, "h.f32")
        x.astype("<f4").tofile(source)
        command = [program, "--time", weights, source, target]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{program}: exit status {done.returncode}")
        h = np.fromfile(target, "<f4").reshape(-1, HIDDEN)
    if len(h) != len(x):
        sys.exit(f"{program}: wrote {len(h)} frames instead of {len(x)}")
    return h, json.loads(done.stdout)


def run_head(h, weight, bias, times):
    """Speech probability of each frame from the LSTM's output."""
    probability = lambda row: 1 / (1 + np.exp(-(np.maximum(row, 0) @ weight + bias)))
    return np.array([timed(lambda: probability(row), times) for row in h]).reshape(-1)


def report_times(times):
    median = statistics.median
    whole, front, head = (median(times[name]) for name in ("whole", "front", "head"))
    step = median(measured["median_us"] for measured in times["ours"])
    one_call = median(measured["one_call_us"] for measured in times["ours"])
    print("\nmicroseconds per 32 ms frame, one thread, median:")
    rows = [
        ("whole model, onnxruntime", whole),
        ("split: front end + DeepCPU's LSTM + head", front + step + head),
        ("  front end, onnxruntime", front),
        ("  LSTM, DeepCPU, one call per frame", step),
        ("  head, numpy", head),
        ("LSTM alone, onnxruntime, one call per frame (Python)", median(times["step"])),
        ("LSTM alone, DeepCPU, all frames in one call", one_call),
        ("LSTM alone, onnxruntime, all frames in one call", median(times["call"])),
    ]
    for name, value in rows:
        print(f"  {name:<53}{value:8.2f}")


def main():
    parser = argparse.ArgumentParser(description="silero-vad with DeepCPU's LSTM")
    parser.add_argument("--package", required=True, help="folder that holds silero_vad/")
    parser.add_argument("--models", required=True, help="what convert_silero.py wrote")
    parser.add_argument("--lstm", required=True, help="the program silero_lstm")
    parser.add_argument("recordings", nargs="+")
    arguments = parser.parse_args()

    model = lambda name: os.path.join(arguments.models, name)
    whole = load(os.path.join(arguments.package, "silero_vad", "data", "silero_vad.onnx"))
    front, lstm = load(model("front.onnx")), load(model("lstm.onnx"))
    head = dict(np.load(model("head.npz")))
    times = {name: [] for name in ("whole", "front", "ours", "head", "step", "call")}
    differences, frame_count = [], 0
    print(f"{'recording':<24}{'frames':>8}{'speech':>8}{'largest difference':>21}")
    for path in arguments.recordings:
        frames = read_frames(path)
        for _ in range(PASSES):
            expected = run_whole(whole, frames, times["whole"])
            x = run_front(front, frames, times["front"])
            run_lstm_onnx(lstm, x, times["step"])
        lstm_onnx_one_call(lstm, x, times["call"])
        h, measured = run_lstm_deepcpu(arguments.lstm, model("lstm.safetensors"), x)
        times["ours"].append(measured)
        actual = run_head(h, head["weight"], head["bias"], times["head"])
        difference = float(np.max(np.abs(actual - expected)))
        differences.append(difference)
        frame_count += len(frames)
        speech = int(np.sum(expected > 0.5))
        print(f"{os.path.basename(path):<24}{len(frames):>8}{speech:>8}{difference:>21.1e}")
    report_times(times)
    worst = np.max(differences)  # a NaN stays one, and fails below
    print(f"\n{frame_count} frames, largest difference {worst:.1e}, limit {LIMIT:.0e}")
    if not worst <= LIMIT:
        sys.exit("silero_vad: the speech probabilities differ")


if __name__ == "__main__":
    main()
