# SPDX-License-Identifier: Apache-2.0
"""The table, the summary and the JSON file."""
import datetime
import json
import math
import os
import platform
import statistics
import sys

FIRST_WIDTH = 36


def machine():
    """The processor's name, the cores this process may use, and the load."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file
                        if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cpu": name, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def number(value, places=1):
    return "-" if value is None else f"{value:.{places}f}"


class Table:
    def __init__(self, peers):
        self.peers = peers
        heads = ["ours us", "p99 us", *[f"{peer} us" for peer in peers], "ratio", "of limit"]
        self.widths = [max(10, len(head)) for head in heads]
        cells = " ".join(f"{head:>{width}}" for head, width in zip(heads, self.widths))
        print(f"{'problem':{FIRST_WIDTH}} {'thr':>3} {cells}  best", flush=True)

    def print(self, row):
        peers = [self.peer_cell(row, peer) for peer in self.peers]
        cells = [number(row["ours_us"]), number(row["ours_p99_us"]), *peers,
                 number(row["ratio"], 2), number(row["fraction"], 2)]
        texts = " ".join(f"{text:>{width}}" for text, width in zip(cells, self.widths))
        best = row["best_peer"] or ("no peer supports it" if row["agree"] else "")
        if row["best_peer"] and row["best_peer_threads"] != row["threads"]:
            best += f" at {row['best_peer_threads']}"
        print(f"{row['problem']:{FIRST_WIDTH}} {row['threads']:>3} {texts}  {best}", flush=True)
        for remark in remarks(row):
            print(f"    {remark}", flush=True)

    def peer_cell(self, row, peer):
        for word in ("missing", "error", "unsupported"):
            if peer in row[word]:
                return word if word != "unsupported" else "no such"
        return number(row["peers"].get(peer))


def remarks(row):
    """What a reader must know to judge the row."""
    if not row["agree"]:
        yield f"NOT TIMED, the outputs differ from ours by: {row['differences']}"
    for name, reason in row["error"].items():
        yield f"{name} FAILED: {reason}"
    if row["loaded"]:
        yield ("the machine is busy with something else: a fixed loop took up to "
               f"{row['drift']:.0%} longer")
    for note in row["notes"]:
        yield f"ours: {note}"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def print_summary(rows):
    """Geometric means of the ratios, parts of the limit, missing peers, what a call costs, and
    warnings."""
    print()
    for threads in sorted({row["threads"] for row in rows}):
        timed = [row for row in rows if row["threads"] == threads and row["ratio"]]
        print_means(threads, "best peer", [row["ratio"] for row in timed])
        for cell in ("lstm", "gru", "rnn"):
            ratios = [row["peers"]["pytorch"] / row["ours_us"] for row in timed
                      if row["cell"] == cell and "pytorch" in row["peers"]]
            print_means(threads, f"pytorch, {cell}", ratios)
        print_limits(threads, [row for row in timed if row["fraction"]])
    for word in ("missing", "unsupported"):
        found = {(name, reason) for row in rows for name, reason in row[word].items()}
        for name, reason in sorted(found):
            print(f"{word}: {name}: {reason}")
    print_calls(rows)
    loaded = sum(row["loaded"] for row in rows)
    if loaded:
        print(f"WARNING: the machine was busy with something else during {loaded} of {len(rows)} "
              "rows; their times are not to be trusted")
    for row in rows:
        if not row["agree"]:
            print(f"DISAGREE: {row['problem']} at {row['threads']} threads")


def print_means(threads, name, ratios):
    if ratios:
        print(f"{threads} threads, {name} over ours: geometric mean {geometric_mean(ratios):.2f}, "
              f"least {min(ratios):.2f}, rows {len(ratios)}")


def print_limits(threads, rows):
    if rows:
        fractions = [row["fraction"] for row in rows]
        at_limit = geometric_mean([row["best_peer_us"] / row["limit_us"] for row in rows])
        print(f"{threads} threads, of limit: median {statistics.median(fractions):.2f}, "
              f"least {min(fractions):.2f}; best peer over the limit: geometric mean "
              f"{at_limit:.2f}")


def print_calls(rows):
    calls = {}
    for row in rows:
        for name, us in row["call_us"].items():
            calls.setdefault(name, []).append(us)
    for name, us in calls.items():
        print(f"a call of {name} that computes nothing takes {sorted(us)[len(us) // 2]:.1f} us "
              "(not subtracted)")


def write_json(path, rows):
    """The file is whole at any time."""
    partial = path + ".part"
    with open(partial, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    os.replace(partial, path)


# What a row must have; the programs that read rows rely on these.
KEYS = ("problem", "cell", "threads", "ours_us", "limit_us", "peers", "agree", "loaded", "missing",
        "error", "versions", "machine")


def read_rows(path):
    """The rows of a file of bench/compare; ends the program if it is none."""
    program = f"bench/{os.path.basename(sys.argv[0])}"
    try:
        with open(path) as file:
            rows = json.load(file)
    except OSError as error:
        sys.exit(f"{program}: {path}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{program}: {path}: not JSON: {error}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        sys.exit(f"{program}: {path}: must be an array of objects, as bench/compare --json writes")
    for number, row in enumerate(rows, 1):
        absent = [key for key in KEYS if key not in row]
        if absent:
            sys.exit(f"{program}: {path}: row {number} has no {absent[0]}")
    return rows


def read_json(path):
    """The rows of an earlier run; none if there is no file."""
    return read_rows(path) if os.path.exists(path) else []
