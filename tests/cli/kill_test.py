#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu tune, killed at any moment: its wisdom file stays whole and loses nothing.

DEEPCPU_KILL_ROUNDS is how often (10)."""

import json
import os
import random
import subprocess
import time

import cli

ROUNDS = int(os.environ.get("DEEPCPU_KILL_ROUNDS", "10"))
PROBLEMS = 40


class Kill(cli.CliTest):
    def keys(self):
        """The problems of the file, which must be a whole one; none without a file."""
        path = self.folder / "w.json"
        if not path.exists():
            return set()
        self.ok("wisdom", "verify", "w.json", stderr=None)
        return {e["key"]["problem"] for e in json.loads(path.read_text())["entries"]}

    def start(self, first):
        # Another list each time, so that every run has something new to save.
        problems = [f"rnn:i{first + n}h3t2" for n in range(PROBLEMS)]
        return subprocess.Popen(
            [cli.BINARY, "tune", *problems, "--seconds", "0.01", "--candidates", "2",
             "--output", "w.json"],
            cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_a_tuner_that_is_killed(self):
        moments = random.Random(5)
        began = time.monotonic()
        self.ok("tune", "rnn:i1h3t2", "--seconds", "0.01", "--output", "w.json", stderr=None)
        longest_life = time.monotonic() - began + 0.2  # less than a whole list takes
        known, killed = self.keys(), 0
        for turn in range(ROUNDS):
            process = self.start(1 + turn % 7 * PROBLEMS)
            try:
                process.wait(moments.uniform(0.0, longest_life))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.wait()
            now = self.keys()
            self.assertLessEqual(known, now, "entries were lost")
            known = now
        self.assertGreater(killed, ROUNDS // 2)
        self.assertGreater(len(known), 1)
        # The next save clears what the killed ones left beside the file.
        self.ok("tune", "rnn:i3h3t2", "--seconds", "0.01", "--output", "w.json", stderr=None)
        left = sorted(p.name for p in self.folder.iterdir())
        self.assertEqual(left, ["w.json", "w.json.lock"])


if __name__ == "__main__":
    cli.main()
