#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu bench, dump, cells, machine and --version: what they print."""

import json
import os
import subprocess
import unittest

import cli

STAGES = ["cell", "dag", "phases", "schedule", "plan", "asm"]
ISAS = {"interpreter", "avx2", "avx512"}
INTERPRETER = {"DEEPCPU_MAX_ISA": "interpreter"}


class Bench(cli.CliTest):
    def bench(self, *arguments, env=None):
        return json.loads(self.ok("bench", *arguments, "--json", "--seconds", "0.01", env=env))

    def test_json(self):
        rows = self.bench("lstm:i16h24t10", "gru:i8h8b3l2bit7,reset=before", "augru:i4h5t3")
        self.assertEqual([r["cell"] for r in rows], ["lstm", "gru", "augru"])
        self.assertEqual(rows[0]["problem"], "lstm:i16h24b1t10")
        for row in rows:
            self.assertEqual(row["threads"], 1)
            self.assertIn(row["isa"], ISAS)
            self.assertGreater(row["limit_us"], 0)
            self.assertEqual(row["schedule"]["isa"], row["isa"])
            for key in ("median_us", "p99_us", "compile_us", "first_call_us", "gflops",
                        "gbytes_per_s"):
                self.assertGreater(row[key], 0, key)
            self.assertEqual(row["runs_alone"], 0)
            self.assertEqual(row["runs_hoist"], 0)
            self.assertLessEqual(row["min_us"], row["median_us"])
            self.assertLessEqual(row["median_us"], row["p99_us"])

    def test_rates_are_work_over_time(self):
        (row,) = self.bench("lstm:i16h24t10")
        flops = 2 * 4 * 24 * (16 + 24) * 10
        self.assertAlmostEqual(row["gflops"] * row["median_us"] * 1e3 / flops, 1, 6)
        recurrent = 4 * 4 * 24 * 24 * 10
        self.assertGreaterEqual(row["gbytes_per_s"] * row["median_us"] * 1e3, recurrent)

    @unittest.skipIf(os.environ.get("DEEPCPU_TEST_SHORT"), "a sanitizer has memory of its own")
    def test_memory(self):
        (row,) = self.bench("lstm:i512h512t2")
        self.assertGreaterEqual(row["packed_bytes"], 4 * 4 * 512 * 1024)
        if row["peak_bytes"] is None:
            self.skipTest("the system does not tell")
        self.assertGreaterEqual(row["peak_bytes"], 0.9 * row["packed_bytes"])
        # A quarter, and what code and libraries take that are touched for the first time.
        self.assertLessEqual(row["peak_bytes"], 1.25 * row["packed_bytes"] + (4 << 20))

    def test_isa(self):
        (row,) = self.bench("rnn:i4h4t5", "--isa", "interpreter")
        self.assertEqual(row["isa"], "interpreter")
        (row,) = self.bench("rnn:i4h4t5", env=INTERPRETER)
        self.assertEqual(row["isa"], "interpreter")
        self.assertTrue(row["notes"])

    def test_runs_that_go_other_ways(self):
        for problem in ("lstm:i64h64t5", "lstm:i64h64t100"):
            (row,) = self.bench(problem, "--threads", "2")
            for key, words in (("runs_alone", "went on alone"), ("runs_hoist", "shared only")):
                self.assertGreaterEqual(row[key], 0)
                self.assertLessEqual(row[key], 1)
                said = any(words in note for note in row["notes"])
                if len(os.sched_getaffinity(0)) > 1:
                    self.assertEqual(said, row["threads"] > 1 and row[key] > 0.5)
            self.assertLessEqual(row["runs_alone"] + row["runs_hoist"], 1.000001)

    def test_pause(self):
        (row,) = self.bench("rnn:i4h4t5", "--pause", "500")
        self.assertGreaterEqual(row["samples"], 11)
        self.assertLess(row["median_us"], 500)
        self.fails("--pause: Value -1 not in range", "bench", "rnn:i4h4t5", "--pause", "-1",
                   status=2)

    def test_table(self):
        text = self.ok("bench", "lstm:i4h4t5", "gru:i123h45b2t3,reset=before", "--seconds", "0.01")
        lines = text.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(len({len(line) for line in lines}), 1, text)
        self.assertEqual(lines[0].split()[:3], ["problem", "threads", "isa"])
        self.assertEqual(lines[2].split()[0], "gru:i123h45b2t3,reset=before")

    def test_file(self):
        self.write("p.txt", b"# shapes\n\nlstm:i4h4t5\n  rnn:i3h3t2  # small\r\n"
                            b"lstm:i0h4\ngru:i4h4t5")
        done = self.call("bench", "--file", "p.txt", "--json", "--seconds", "0.01")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr,
                         "deepcpu: p.txt: line 5: input=0: must be between 1 and 1048576\n")
        self.assertEqual([r["problem"] for r in json.loads(done.stdout)],
                         ["lstm:i4h4b1t5", "rnn:i3h3b1t2", "gru:i4h4b1t5"])
        self.fails("nowhere.txt: cannot be read: No such file", "bench", "--file", "nowhere.txt")

    def test_failures_do_not_stop_the_others(self):
        self.write("p.txt", b"nosuch:i1h1\nlstm:i4")
        done = self.call("bench", "lstm:i4h4t5", "--file", "p.txt", "--json", "--seconds", "0.01")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 2)
        self.assertEqual(len(json.loads(done.stdout)), 1)


class Dump(cli.CliTest):
    PROBLEM = "gru:i20h40l2b3,reset=before"

    def dump(self, stage, *arguments, env=None, stderr=""):
        return self.ok("dump", self.PROBLEM, "--stage", stage, *arguments, env=env, stderr=stderr)

    def test_stages(self):
        signs = {"cell": "sigmoid", "dag": "class 0", "phases": "step {", "schedule": '"layers"',
                 "plan": "stage ", "asm": "\n"}
        texts = {stage: self.dump(stage) for stage in STAGES}
        for stage, sign in signs.items():
            self.assertIn(sign, texts[stage], stage)
            self.assertEqual(texts[stage], self.dump(stage), "the same again")
        self.assertEqual(self.dump("asm,cell"),
                         f"== asm\n{texts['asm']}== cell\n{texts['cell']}")
        self.assertEqual(len(set(texts.values())), len(STAGES))

    def test_code(self):
        listing = self.dump("asm")
        best = json.loads(self.dump("schedule"))["isa"]
        if best == "interpreter":
            self.assertIn("no code", listing)
        else:
            self.assertIn("ret", listing)
        self.assertIn("no code", self.dump("asm", "--isa", "interpreter"))

    def test_isa(self):
        best = json.loads(self.dump("schedule"))["isa"]
        if best == "avx512":
            self.assertEqual(json.loads(self.dump("schedule", "--isa", "avx2"))["isa"], "avx2")
            self.assertNotEqual(self.dump("plan"), self.dump("plan", "--isa", "avx2"))
        capped = self.dump("schedule", env=INTERPRETER, stderr=None)
        self.assertEqual(json.loads(capped)["isa"], "interpreter")

    def test_schedule(self):
        schedule = json.loads(self.dump("schedule"))
        for layer in schedule["layers"]:
            layer["hoist_block"] = 7
        self.write("s.json", json.dumps(schedule).encode())
        self.assertEqual(json.loads(self.dump("schedule", "--schedule", "s.json")), schedule)
        self.assertIn("each block of at most 7 steps", self.dump("plan", "--schedule", "s.json"))

    def test_dot(self):
        text = self.dump("dag", "--dot")
        self.assertTrue(text.startswith("digraph "))
        self.assertEqual(text.count("{"), text.count("}"))
        self.assertEqual(self.dump("dag,cell", "--dot"), f"== dag\n{text}== cell\n"
                         + self.dump("cell"))


class Others(cli.CliTest):
    def test_version(self):
        self.assertRegex(self.ok("--version"), r"^deepcpu \d+\.\d+\.\d+\n$")

    def test_help(self):
        self.assertIn("Exit status: 0 done, 1 it failed", self.ok("--help"))
        for command in ("run", "bench", "dump", "cells", "machine"):
            self.assertIn(f"Usage: deepcpu {command} ", self.ok(command, "--help"))

    def test_cells(self):
        lines = self.ok("cells").splitlines()
        names = {line.split()[0] for line in lines if not line.startswith(" ")}
        self.assertLessEqual({"lstm", "gru", "rnn", "augru"}, names)
        self.assertTrue(any("reset=" in line for line in lines))
        for name in names:
            self.ok("dump", f"{name}:i2h2", "--stage", "cell")

    def test_machine(self):
        machine = json.loads(self.ok("machine", "--json"))
        text = self.ok("machine")
        self.assertIn(machine["machine"]["model_name"], text)
        rates = machine["rates"]
        if rates is None:
            self.assertEqual(machine["machine"]["isa"], "interpreter")
            return
        self.assertIn(rates["isa"], ISAS)
        self.assertTrue(0.1 < rates["clock_ghz"] < 10, rates)
        for key in ("fma_gflops", "l1_gbytes_per_s", "l2_gbytes_per_s"):
            self.assertTrue(0.1 < rates[key] < 1e4, rates)
        self.assertIn("rates of one core, " + rates["isa"], text)

    def test_machine_without_code(self):
        machine = json.loads(self.ok("machine", "--json", env=INTERPRETER))
        self.assertIsNone(machine["rates"])
        self.assertIn("not measured", self.ok("machine", env=INTERPRETER))
        done = self.call("machine", "--json", env={"DEEPCPU_MAX_ISA": "nosuch"})
        self.assertIn("DEEPCPU_MAX_ISA=nosuch: must be ", done.stderr)

    def test_output_that_cannot_be_written(self):
        for arguments in (["cells"], ["--version"], ["dump", "lstm:i1h1", "--stage", "plan"]):
            with open("/dev/full", "w", encoding="ascii") as full:
                done = subprocess.run([cli.BINARY, *arguments], stdout=full, text=True,
                                      stderr=subprocess.PIPE, timeout=60)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertRegex(done.stderr, r"\Adeepcpu: [^\n]+\n\Z")


if __name__ == "__main__":
    cli.main()
