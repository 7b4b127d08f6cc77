# SPDX-License-Identifier: Apache-2.0
"""The contestant's side of the protocol of bench/compare, for peers written in Python.

The protocol and the rules for timing stand in bench/README.md; worker.hpp is the same in C++.
"""
import array
import gc
import importlib
import json
import os
import statistics
import sys
import time

import numpy as np

import problem as problems

MOST_SAMPLES = 100_000


class Refusal(Exception):
    """An answer that is not the wanted one. `word` is unsupported, missing or error."""

    def __init__(self, word, reason):
        super().__init__(f"{word} {reason}".replace("\n", " "))


def unsupported(reason):
    return Refusal("unsupported", reason)


def require(*modules):
    """Imports the library that a peer stands for; without it the peer is missing."""
    try:
        return [importlib.import_module(module) for module in modules]
    except Exception as error:  # a broken installation is as good as none
        raise Refusal("missing", f"{modules[0]} cannot be imported: {error}") from error


class Peer:
    """What a peer's file implements."""

    def version(self):
        raise NotImplementedError

    def load(self, problem, threads, weights, x, extra):
        """Everything that is done once. Sets self.call: no arguments, one inference of the whole
        sequence from zero states; this is what is timed. weights: {name: array}; x: [T,B,I];
        extra: {name: array}."""
        raise NotImplementedError

    def output(self):
        """y of the last call, [T,B,width]."""
        raise NotImplementedError

    def call_us(self):
        """What a call costs that computes nothing, made the same way as self.call."""
        return None


def timed_calls(call, seconds, last_us):
    """As timed_calls of worker.hpp."""
    now = time.perf_counter_ns
    turn = int(seconds * 1e9)
    samples = array.array("q")
    start = now()
    if last_us * 1e3 < turn / 3:
        call()
        while now() - start < turn // 10:
            call()
    while True:
        begin = now()
        call()
        end = now()
        samples.append(end - begin)
        if end - start >= turn or len(samples) >= MOST_SAMPLES:
            return samples


def cost_of(call):
    """Median time of `call` in microseconds; for calls that compute nothing."""
    return statistics.median(timed_calls(call, 0.05, 0.0)) / 1e3


def fastest(calls):
    """The name of the fastest of {name: call}; for a library that offers several ways."""
    least = {}
    for name, call in calls.items():
        call()  # warm
        least[name] = min(timed_calls(call, 0.1, 1e9))
    return min(least, key=least.get)


class Worker:
    def __init__(self, peer):
        self.peer = peer
        self.last_us = 0.0

    def answer(self, command, *arguments):
        handlers = {"import": self.import_library, "load": self.load, "check": self.check,
                    "run": self.run, "call_us": self.cost}
        if command not in handlers:
            raise Refusal("error", f"unknown command {command}")
        return handlers[command](*arguments)

    def import_library(self):
        return self.peer.version()

    def load(self, problem, threads, weights, x, *extra):
        pairs = [pair.split("=", 1) for pair in extra]
        self.peer.load(problems.parse(problem), int(threads), problems.read_safetensors(weights),
                       np.load(x), {name: np.load(path) for name, path in pairs})
        self.last_us = 0.0
        return f"ready {self.peer.version()}"

    def check(self, path):
        self.peer.call()  # the first call may pay for things that later ones do not
        begin = time.perf_counter_ns()
        self.peer.call()
        self.last_us = (time.perf_counter_ns() - begin) / 1e3
        np.save(path, np.ascontiguousarray(self.peer.output(), dtype=np.float32))
        return "checked"

    def run(self, seconds):
        samples = timed_calls(self.peer.call, float(seconds), self.last_us)
        self.last_us = samples[-1] / 1e3
        return "[" + ",".join(f"{ns / 1e3:.3f}" for ns in samples) + "]"

    def cost(self):
        return json.dumps(self.peer.call_us())


def serve(peer):
    """Answers commands until the input ends. What a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(peer)
    gc.disable()
    for line in sys.stdin:
        gc.collect()
        try:
            reply = worker.answer(*line.split())
        except Refusal as refusal:
            reply = str(refusal)
        except Exception as error:  # the harness reports it and goes on with the others
            reply = f"error {type(error).__name__}: {error}".replace("\n", " ")
        answers.write(reply + "\n")
        answers.flush()
