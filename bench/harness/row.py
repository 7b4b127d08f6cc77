# SPDX-License-Identifier: Apache-2.0
"""One row: one problem at one thread count, all contestants interleaved."""
import dataclasses
import os
import time
import zlib

import numpy as np

from harness.workers import OURS, WorkerError

SEED = 1
LEAST_ROUNDS = 5
MOST_ROUNDS = 20
LEAST_TURN = 0.03  # seconds
CALLS_PER_TURN = 5  # what a turn should hold of the slowest contestant's calls
# Of a row's time. The rest goes to loading, checking and looking whether the machine is quiet.
SHARE_OF_TURNS = 0.75
# Largest difference between two outputs over the largest value (at least 1). Summation order and
# approximations of tanh make 1e-6 to 1e-5; a gate in the wrong place makes 1e-2.
TOLERANCE = 1e-4
# A loop as long as our call is timed beside it, for p99 on this machine, if a call takes this long.
SPIN_RANGE_US = (10.0, 10_000.0)
LOADED = 0.10
SECONDS_BETWEEN_LOOKS = 0.2
LOOKS_TO_LEARN = 15
SPIN = "spin"  # among the samples: the loop beside our calls
REFUSALS = ("unsupported", "missing", "error")


@dataclasses.dataclass
class Data:
    """What all contestants get for a problem: files in the workers' folder."""

    problem: str  # canonical
    cell: str
    output_shape: tuple
    load_arguments: list


def make_data(crew, problem):
    """Random weights and inputs, the same in every run."""
    info = crew.get(OURS, 1).ask_json("make", problem, SEED, "weights.safetensors")
    random = np.random.default_rng(SEED)
    steps, batch = info["steps"], info["batch"]

    def save(name, array):
        np.save(os.path.join(crew.folder, name), array.astype(np.float32))
        return name

    files = [save("x.npy", random.standard_normal((steps, batch, info["input"])))]
    for name, width in info["extra"].items():
        array = random.uniform(size=(steps, batch, width))
        files.append(f"{name}={save(f'extra-{name}.npy', array)}")
    return Data(info["problem"], info["cell"], (steps, batch, info["output"]),
                ["weights.safetensors", *files])


class QuietGauge:
    """Whether something else takes time from the machine: a loop of known length before and after
    each round."""

    def __init__(self, patience=0.0):
        self.patience = patience  # seconds that a row may wait and repeat rounds
        self.least = {}  # per thread count, over the whole run

    def measure(self, worker, threads):
        """How much slower than the best seen; 0 = not at all."""
        spun = worker.ask_json("spin", threads)
        self.least[threads] = min(spun["piece_us"], self.least.get(threads, spun["piece_us"]))
        return max(spun["piece_us"] / self.least[threads], spun["share"]) - 1.0

    def learn(self, worker, threads):
        """Looks for a while, so that the best is known before the first row."""
        for _ in range(LOOKS_TO_LEARN):
            self.measure(worker, threads)
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def settle(self, worker, threads, until):
        """What measure() says once the machine is quiet or that time has come, and the seconds
        waited for it."""
        drift = self.measure(worker, threads)
        begin = time.monotonic()
        waited = 0.0
        while drift > LOADED and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            drift = self.measure(worker, threads)
            waited = time.monotonic() - begin
        return drift, waited


def difference(y, reference):
    """Largest difference over the largest value; infinite for another shape or for NaN."""
    if y.shape != reference.shape or not np.isfinite(y).all():
        return float("inf")
    scale = max(1.0, float(np.abs(reference).max()))
    return float(np.abs(y.astype(np.float64) - reference).max()) / scale


class Row:
    def __init__(self, crew, data, threads, gauge, budget, rounds):
        self.crew, self.data, self.threads, self.gauge = crew, data, threads, gauge
        self.budget, self.least_rounds = budget, rounds
        self.contestants = {}
        self.refused = {word: {} for word in REFUSALS}
        self.differences = {}
        self.samples = {}
        self.slowest = 0.0
        self.drift = 0.0
        self.repeated = 0

    def measure(self):
        """The row as an object for the JSON file."""
        start = time.monotonic()
        start += self.start_all()
        self.load_all()
        if OURS in self.contestants:
            self.check_all()
        agree = all(each <= TOLERANCE for each in self.differences.values())
        rounds = 0
        if OURS in self.contestants and agree:
            rounds = self.run_rounds(start + self.budget)
        return self.result(agree, rounds)

    def start_all(self):
        """Starts processes of contestants that have none; their first answer waits until their
        libraries are imported. Returns the seconds that took, once per run and thread count."""
        begin = time.monotonic()
        for name in self.crew.names():
            worker = self.crew.get(name, self.threads)
            if self.crew.is_built(name) and worker.process is None:
                try:
                    worker.ask("import")
                except WorkerError:
                    pass  # load says what is wrong
        return time.monotonic() - begin

    def load_all(self):
        for name in self.crew.names():
            if not self.crew.is_built(name):
                program = os.path.basename(self.crew.commands[name][0])
                self.refused["missing"][name] = (
                    f"{program} is not built; CMake leaves it out if its library is not there "
                    "(see bench/README.md)")
                continue
            worker = self.crew.get(name, self.threads)
            try:
                answer = worker.ask("load", self.data.problem, self.threads,
                                    *self.data.load_arguments)
                word, _, rest = answer.partition(" ")
                if word == "ready":
                    worker.version = rest
                    self.contestants[name] = worker
                else:
                    kind = word if word in REFUSALS else "error"
                    self.refused[kind][name] = rest if kind == word else answer
            except WorkerError as error:
                self.refused["error"][name] = str(error)

    def drop(self, name, error):
        self.contestants.pop(name, None)
        self.samples.pop(name, None)
        self.refused["error"][name] = str(error)

    def check_all(self):
        """Every output against ours. ours is the first of the contestants."""
        reference = None
        for name, worker in list(self.contestants.items()):
            try:
                if worker.call_us is None:
                    worker.call_us = worker.ask_json("call_us")
                begin = time.monotonic()
                answer = worker.ask("check", f"y-{name}.npy")
                if answer != "checked":
                    raise WorkerError(answer)
                self.slowest = max(self.slowest, (time.monotonic() - begin) / 2)
            except WorkerError as error:
                self.drop(name, error)
                continue
            y = np.load(os.path.join(self.crew.folder, f"y-{name}.npy"))
            if name == OURS:
                reference = y
                if y.shape != self.data.output_shape or not np.isfinite(y).all():
                    self.differences[OURS] = float("inf")
            elif reference is not None:
                self.differences[name] = difference(y, reference)

    def run_rounds(self, deadline):
        turns = len(self.contestants) + 1  # and the loop beside ours
        available = max(0.0, min(self.budget * SHARE_OF_TURNS, deadline - time.monotonic()))
        turn = max(LEAST_TURN, CALLS_PER_TURN * self.slowest)
        wanted = max(self.least_rounds, min(MOST_ROUNDS, int(available / (turns * turn))))
        turn = max(available / (turns * wanted), 1e-3)
        patience = self.gauge.patience
        rounds = 0
        while rounds < wanted and (rounds < self.least_rounds or time.monotonic() < deadline):
            begin = time.monotonic()
            before, spent = self.look(begin + patience)
            samples = self.round(rounds, turn)
            after, _ = self.look(0.0)
            if OURS not in self.contestants:
                break
            seconds = time.monotonic() - begin
            repeat = after > LOADED and seconds <= patience
            if repeat:
                spent = seconds
            # What is spent on waiting is not time of the row.
            patience -= spent
            deadline += spent
            if repeat:
                self.repeated += 1
                continue
            self.drift = max(self.drift, before, after)
            self.keep(samples)
            rounds += 1
        return rounds

    def keep(self, samples):
        for name, each in samples.items():
            if name in self.contestants or name == SPIN:
                self.samples.setdefault(name, []).extend(each)

    def round(self, index, turn):
        """One turn for each, beginning with another one every time, and with another one per row:
        who is next to a look at the machine has had a quiet one. Returns the samples."""
        samples = {}
        names = list(self.contestants)
        row = f"{self.data.problem} {self.threads}".encode()
        shift = (zlib.crc32(row) + index) % len(names)
        for name in names[shift:] + names[:shift]:
            try:
                samples[name] = self.contestants[name].ask_json("run", f"{turn:.6f}")
                if name == OURS:
                    samples.update(self.spin_beside(samples[name], turn))
            except WorkerError as error:
                self.drop(name, error)
        return samples

    def look(self, quiet_until):
        """What the gauge says, and the seconds until it said so."""
        try:
            ours = self.contestants.get(OURS)
            return self.gauge.settle(ours, self.threads, quiet_until) if ours else (0.0, 0.0)
        except WorkerError as error:
            self.drop(OURS, error)
            return 0.0, 0.0

    def spin_beside(self, samples, turn):
        length = float(np.median(samples))
        if not SPIN_RANGE_US[0] <= length <= SPIN_RANGE_US[1]:
            return {}
        spun = self.contestants[OURS].ask_json("spinrun", f"{length:.3f}", f"{turn:.6f}")
        # Each round has a length of its own, so what is kept is relative to its median.
        return {SPIN: list(np.array(spun) / np.median(spun))}

    def result(self, agree, rounds):
        medians = {name: round(float(np.median(each)), 3) for name, each in self.samples.items()}
        ours = self.samples.get(OURS)
        info = self.info()
        row = {
            "problem": self.data.problem,
            "cell": self.data.cell,
            "threads": self.threads,
            "ours_us": medians.get(OURS),
            "ours_p99_us": round(float(np.percentile(ours, 99)), 3) if ours else None,
            "ours_samples": len(ours) if ours else 0,
            "ours_threads": info.get("schedule", {}).get("threads"),
            "limit_us": info.get("limit_us"),
            "floor_us": info.get("floor_us"),
            "fraction": None,  # limit over ours
            "peers": {name: us for name, us in medians.items() if name not in (OURS, SPIN)},
            "call_us": {name: worker.call_us for name, worker in self.contestants.items()
                        if worker.call_us is not None},
            "best_peer": None,  # see compare_with_best
            "best_peer_us": None,
            "best_peer_threads": None,
            "ratio": None,
            "agree": agree,
            "differences": {name: each if np.isfinite(each) else None
                            for name, each in self.differences.items()},
            "rounds": rounds,
            "repeated_rounds": self.repeated,
            "drift": round(self.drift, 4),
            "loaded": self.drift > LOADED,
            "spin_p99_ratio": None,
            "versions": {name: worker.version for name, worker in self.contestants.items()},
            "schedule": info.get("schedule"),
            "notes": info.get("notes", []),
            **{word: self.refused[word] for word in REFUSALS},
        }
        if row["limit_us"] and row["ours_us"]:
            row["fraction"] = round(row["limit_us"] / row["ours_us"], 4)
        if SPIN in self.samples:
            row["spin_p99_ratio"] = round(float(np.percentile(self.samples[SPIN], 99)), 4)
        return row

    def info(self):
        try:
            return self.contestants[OURS].ask_json("info") if OURS in self.contestants else {}
        except WorkerError as error:
            self.drop(OURS, error)
            return {}


def compare_with_best(row, earlier):
    """Fills in the fastest peer at this thread count or fewer; `earlier` are rows of this run."""
    candidates = []
    for other in [row, *earlier]:
        if other["problem"] == row["problem"] and other["threads"] <= row["threads"]:
            candidates += [(us, name, other["threads"]) for name, us in other["peers"].items()]
    if not candidates:
        return
    row["best_peer_us"], row["best_peer"], row["best_peer_threads"] = min(candidates)
    if row["ours_us"]:
        row["ratio"] = round(row["best_peer_us"] / row["ours_us"], 4)


def failed(row):
    """Whether the row makes the run fail."""
    return not row["agree"] or bool(row["error"]) or row["ours_us"] is None
