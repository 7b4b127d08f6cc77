# SPDX-License-Identifier: Apache-2.0
"""Contestants as processes: found, started, spoken to, and stopped while others have their turn."""
import ctypes
import glob
import json
import os
import select
import signal
import subprocess
import time

from harness.environment import BENCH, VENV

# The order of the columns; a peer that is not named here follows these.
ORDER = ["onnxruntime", "pytorch", "openblas", "onednn", "openvino", "tensorflow"]
OURS = "ours"
SECONDS_PER_ANSWER = 180
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    """A stopped process would outlive a harness that was killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class WorkerError(Exception):
    """The worker died, hung, or said what the protocol does not allow."""


def peer_commands(bin_dir):
    """{name: command} of every peer that has a file in bench/peers."""
    commands = {}
    for path in glob.glob(os.path.join(BENCH, "peers", "*_peer.*")):
        name, _, ending = os.path.basename(path).partition("_peer")
        if ending == ".py":
            commands[name] = [os.path.join(VENV, "bin", "python"), path]
        elif ending == ".cpp":
            commands[name] = [os.path.join(bin_dir, f"bench_{name}_peer")]
    order = {name: index for index, name in enumerate(ORDER)}
    return dict(sorted(commands.items(), key=lambda item: (order.get(item[0], 99), item[0])))


class Worker:
    """One contestant at one thread count. It only runs between ask() and its answer."""

    def __init__(self, name, command, threads, folder):
        self.name, self.command, self.threads, self.folder = name, command, threads, folder
        self.process = None
        self.pending = b""
        self.call_us = None
        self.version = None
        self.log = os.path.join(folder, f"{name}-{threads}.log")

    def start(self):
        # OpenMP's wait policy stays what it is by default: helpers spin for some milliseconds, so
        # in back to back calls they are awake, and one that lost its core does not block the rest
        # for a whole time slice, as with OMP_WAIT_POLICY=ACTIVE.
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.threads),
                           OPENBLAS_NUM_THREADS=str(self.threads))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=environment,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, preexec_fn=die_with_parent)

    def close(self):
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process, self.pending = None, b""

    def ask(self, *words):
        """Sends a command and returns the answer's line."""
        if self.process is None:
            self.start()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
            self.process.stdin.flush()
            answer = self.read_line()
        except (BrokenPipeError, WorkerError) as error:
            self.close()
            raise WorkerError(f"{self.name}: {error}{self.last_words()}") from error
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def ask_json(self, *words):
        answer = self.ask(*words)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise WorkerError(f"{self.name}: {words[0]}: {answer[:300]}") from error

    def read_line(self):
        deadline = time.monotonic() + SECONDS_PER_ANSWER
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise WorkerError(f"no answer within {SECONDS_PER_ANSWER} s")
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise WorkerError("ended unexpectedly")
            self.pending += chunk
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()

    def last_words(self):
        """What it wrote to stderr at the end, for the report of a failure."""
        try:
            with open(self.log, errors="replace") as file:
                lines = file.read().strip().splitlines()
        except OSError:
            return ""
        return f" ({lines[-1][:200]})" if lines else ""


class Crew:
    """All contestants, started when they are first needed and kept from row to row."""

    def __init__(self, bin_dir, peers, folder):
        self.commands = {OURS: [os.path.join(bin_dir, "bench_ours")], **peers}
        self.folder = folder
        self.workers = {}

    def names(self):
        return list(self.commands)

    def get(self, name, threads):
        key = name, threads
        if key not in self.workers:
            self.workers[key] = Worker(name, self.commands[name], threads, self.folder)
        return self.workers[key]

    def is_built(self, name):
        """False for a program that has not been built, as a peer in C++ whose library is not
        there."""
        return os.path.exists(self.commands[name][0])

    def close(self):
        for worker in self.workers.values():
            worker.close()
