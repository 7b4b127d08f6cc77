#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu wisdom: files, their schema, and their use by compiles."""

import copy
import json
import os
import pathlib
import random
import stat

import jsonschema

import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "src" / "tune" / "wisdom.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ODD_BLOCK = 37  # steps per block that no estimate takes
LAYER = {"fuse_gates": True, "hoist_block": ODD_BLOCK, "tile_rows": 1, "hoist_rows": 2,
         "panel": "wide", "sweep": "forward", "group": 3, "weights": "streamed", "phases": "levels"}


def file_of(*entries):
    return {"format": 1, "entries": list(entries)}


class Wisdom(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.machine = json.loads(self.ok("machine", "--json"))["key"]

    def entry(self, problem="lstm:i8h16", layers=1, batch="1", threads=1, **more):
        return {"key": {"problem": problem, "threads": threads, "batch": batch,
                        "machine": self.machine},
                "schedule": {"isa": "interpreter", "layers": [LAYER] * layers}, **more}

    def measured(self, problem="lstm:i8h16", microseconds=100.5, **more):
        return self.entry(problem, measured_us=microseconds, spread=0.02, predicted_us=90.25,
                          rows=1, steps=100, candidates=20, effort="measure", version="0.1.0",
                          **more)

    def save(self, name, *entries):
        return self.write(name, json.dumps(file_of(*entries)).encode())

    def load(self, name):
        return json.loads((self.folder / name).read_text())

    def block(self, problem, env=None):
        done = self.call("dump", problem, "--stage", "schedule", env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["layers"][0]["hoist_block"], done.stderr

    def verdict(self, content):
        """Whether every entry of a file is taken."""
        name = self.write("verdict.json", json.dumps(content).encode())
        return self.call("wisdom", "verify", name).returncode == 0


class Schema(Wisdom):
    def test_the_schema_is_one(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_what_we_write_follows_it(self):
        other = self.measured("gru:i8h16/24bi,reset=before", microseconds=7, layers=2)
        other["key"]["machine"] = "v1:elsewhere"
        other["key"]["isa"] = "interpreter"
        estimate = self.entry("rnn:i8h8rev", predicted_us=3.5, steps=9, effort="estimate")
        self.save("in.json", self.measured(), other, estimate,
                  self.entry("augru:i8h8", batch="17+", threads=9))
        self.ok("wisdom", "merge", "out.json", "in.json")
        written = self.load("out.json")
        self.assertEqual(len(written["entries"]), 4)
        VALIDATOR.validate(written)
        VALIDATOR.validate(self.load("in.json"))
        self.ok("wisdom", "merge", "empty.json", self.save("none.json"))
        VALIDATOR.validate(self.load("empty.json"))

    def test_it_refuses_what_the_reader_refuses(self):
        good = file_of(self.measured())
        self.assertTrue(self.verdict(good))
        VALIDATOR.validate(good)
        entry = ("entries", 0)
        changes = [  # path, value; ... removes the field
            ((), [1]), (("format",), 2), (("format",), ...), (("entries",), ...),
            (("entries",), {}), (("more",), 1), (entry, 7), ((*entry, "more"), 1),
            ((*entry, "key"), ...), ((*entry, "schedule"), ...), ((*entry, "schedule"), "x"),
            ((*entry, "key", "problem"), ...), ((*entry, "key", "problem"), "lstm"),
            ((*entry, "key", "threads"), ...), ((*entry, "key", "threads"), 0),
            ((*entry, "key", "threads"), 1025), ((*entry, "key", "threads"), "1"),
            ((*entry, "key", "batch"), "3"), ((*entry, "key", "batch"), 1),
            ((*entry, "key", "batch"), ...), ((*entry, "key", "isa"), "sse"),
            ((*entry, "key", "steps"), "3"), ((*entry, "key", "steps"), 1),
            ((*entry, "key", "cell"), "12"), ((*entry, "key", "cell"), "X" * 16),
            ((*entry, "key", "machine"), ...), ((*entry, "key", "machine"), None),
            ((*entry, "key", "name"), "x"), ((*entry, "measured_us"), -1),
            ((*entry, "measured_us"), "1"), ((*entry, "measured_us"), 1e300),
            ((*entry, "spread"), -0.5), ((*entry, "rows"), 0), ((*entry, "rows"), 1025),
            ((*entry, "steps"), 2.5), ((*entry, "steps"), 2**31), ((*entry, "candidates"), -1),
            ((*entry, "effort"), "hard"), ((*entry, "version"), "1"),
            ((*entry, "version"), "1.2.x"), ((*entry, "version"), "1..2"),
            ((*entry, "schedule", "isa"), ...), ((*entry, "schedule", "isa"), "neon"),
            ((*entry, "schedule", "layers"), ...), ((*entry, "schedule", "layers"), []),
            ((*entry, "schedule", "threads"), 0), ((*entry, "schedule", "parallel"), "all"),
            ((*entry, "schedule", "exchange"), 1), ((*entry, "schedule", "order"), "any"),
            ((*entry, "schedule", "start"), "end"), ((*entry, "schedule", "split_rows"), 0),
            ((*entry, "schedule", "split_k"), 0), ((*entry, "schedule", "more"), 0),
            ((*entry, "schedule", "layers", 0), []),
        ]
        layer = (*entry, "schedule", "layers", 0)
        for field in LAYER:
            changes += [((*layer, field), []), ((*layer, field), -1), ((*layer, field), "odd"),
                        ((*layer, field), 1 << 30)]
        changes.append(((*layer, "more"), 1))
        for path, value in changes:
            bad = copy.deepcopy(good)
            if not path:
                bad = value
            else:
                at = bad
                for step in path[:-1]:
                    at = at[step]
                if value is ...:
                    del at[path[-1]]
                else:
                    at[path[-1]] = value
            with self.subTest(path=path, value=value):
                self.assertFalse(VALIDATOR.is_valid(bad), "the schema")
                self.assertFalse(self.verdict(bad), "the reader")

    def test_they_agree_on_legal_layers(self):
        generator = random.Random(1)
        for _ in range(20):
            entry = self.entry("lstm:i8h16b3", batch="2-4")
            entry["schedule"]["layers"] = [{
                "fuse_gates": generator.random() < 0.5,
                "hoist_block": generator.choice([0, 1, 1024]),
                "tile_rows": generator.randint(1, 6), "hoist_rows": generator.randint(1, 6),
                "fetch_lines": generator.randint(0, 16),
                "cut_panels": generator.random() < 0.5,
                "panel": generator.choice(["narrow", "wide"]),
                "sweep": generator.choice(["forward", "alternating"]),
                "group": generator.choice([1, 1 << 20])}]
            entry["key"]["problem"] = "lstm:i8h16"
            self.assertTrue(VALIDATOR.is_valid(file_of(entry)))
            self.assertTrue(self.verdict(file_of(entry)), entry)


class Use(Wisdom):
    def test_a_compile_takes_the_schedule(self):
        self.save("w.json", self.entry("gru:i8h16", batch="2-4"))
        env = {"DEEPCPU_WISDOM": "w.json"}
        self.assertEqual(self.block("gru:i8h16b3t50", env), (ODD_BLOCK, ""))
        self.assertNotEqual(self.block("gru:i8h16", env)[0], ODD_BLOCK)
        self.assertNotEqual(self.block("gru:i8h16b3")[0], ODD_BLOCK)
        for problem, source in (("gru:i8h16b3t50", "wisdom"), ("gru:i8h16", "estimate")):
            said = self.block(problem, {**env, "DEEPCPU_VERBOSE": "1"})[1].splitlines()
            self.assertRegex(said[0], rf"\Adeepcpu,schedule,gru:[a-z0-9]+,{source}\Z")
        self.ok("run", "--problem", "gru:i8h16b3t50", "--output", "tuned.npy", env=env)
        self.ok("run", "--problem", "gru:i8h16b3t50", "--output", "plain.npy")
        self.assertEqual((self.folder / "tuned.npy").read_bytes(),
                         (self.folder / "plain.npy").read_bytes())

    def test_what_fails_becomes_a_note(self):
        legal = self.entry("gru:i8h16")
        block, notes = self.block("gru:i8h16", {"DEEPCPU_WISDOM": "none.json"})
        self.assertNotEqual(block, ODD_BLOCK)
        self.assertIn("note: DEEPCPU_WISDOM: none.json: cannot be read: No such file", notes)
        self.write("broken.json", json.dumps(file_of(legal)).encode()[:-9])
        self.assertIn("note: DEEPCPU_WISDOM: broken.json: JSON is not valid",
                      self.block("gru:i8h16", {"DEEPCPU_WISDOM": "broken.json"})[1])
        bad = self.entry("rnn:i8h16", threads=0)
        self.save("part.json", bad, legal)
        block, notes = self.block("gru:i8h16", {"DEEPCPU_WISDOM": "part.json"})
        self.assertEqual(block, ODD_BLOCK)
        self.assertIn("part.json: 1 entries are refused, the first is 0: key.threads=0", notes)
        self.assertEqual(self.block("gru:i8h16", {"DEEPCPU_WISDOM": ""})[1], "")

    def test_another_machines_entries_are_no_reason_for_a_note(self):
        other = self.entry("gru:i8h16")
        other["key"]["machine"] = "v1:elsewhere"
        self.save("w.json", other)
        block, notes = self.block("gru:i8h16", {"DEEPCPU_WISDOM": "w.json"})
        self.assertNotEqual(block, ODD_BLOCK)
        self.assertEqual(notes, "")

    def test_a_capped_isa_has_entries_of_its_own(self):
        capped = self.entry("gru:i8h16")
        capped["key"]["isa"] = "interpreter"
        self.save("w.json", capped)
        env = {"DEEPCPU_WISDOM": "w.json"}
        if json.loads(self.ok("machine", "--json"))["machine"]["isa"] != "interpreter":
            self.assertNotEqual(self.block("gru:i8h16", env)[0], ODD_BLOCK)
        env["DEEPCPU_MAX_ISA"] = "interpreter"
        self.assertEqual(self.block("gru:i8h16", env)[0], ODD_BLOCK)


class Commands(Wisdom):
    def test_show(self):
        other = self.measured("gru:i8h8")
        other["key"]["machine"] = "v1:elsewhere"
        self.save("w.json", self.measured(), other, {"key": 7}, self.entry("rnn:i8h8", threads=2))
        text = self.ok("wisdom", "show", "w.json")
        self.assertIn("entry 0: lstm:i8h16, batch 1, steps 16+, 1 thread\n"
                      "  measure, measured 100.5 us (spread 2.0 %), predicted 90.2 us, b=1, t=100,"
                      " 20 candidates, version 0.1.0\n  {",
                      text)
        self.assertIn("entry 1: gru:i8h8, batch 1, steps 16+, 1 thread, on v1:elsewhere\n", text)
        self.assertIn("entry 2: refused: key: must be an object\n", text)
        self.assertIn("entry 3: rnn:i8h8, batch 1, steps 16+, 2 threads\n  written by hand\n", text)

    def test_verify(self):
        other = self.measured("gru:i8h8")
        other["key"]["machine"] = "v1:elsewhere"
        self.save("good.json", self.measured())
        self.assertEqual(self.ok("wisdom", "verify", "good.json"), "")
        self.save("fleet.json", self.measured(), other)
        self.assertEqual(self.ok("wisdom", "verify", "fleet.json", "--any-machine"), "")
        done = self.call("wisdom", "verify", "fleet.json")
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (1, "entry 1: key.machine=v1:elsewhere: is another machine\n",
                          "deepcpu: fleet.json: 1 of 2 entries are refused\n"))
        self.save("bad.json", 7, self.measured(), self.measured(), other)
        done = self.call("wisdom", "verify", "bad.json", "--any-machine")
        self.assertEqual((done.returncode, done.stdout),
                         (1, "entry 0: entry: must be an object\n"
                             "entry 2: key: is that of entry 1\n"))
        self.fails("none.json: cannot be read", "wisdom", "verify", "none.json")

    def test_merge_keeps_the_best_of_every_shard(self):
        other = self.measured("gru:i8h8")
        other["key"]["machine"] = "v1:elsewhere"
        self.save("a.json", self.measured(microseconds=100), self.entry("rnn:i8h8"))
        self.save("b.json", self.measured(microseconds=50), other, {"key": 7})
        for name, shards in (("ab.json", ("a.json", "b.json")), ("ba.json", ("b.json", "a.json"))):
            done = self.call("wisdom", "merge", name, *shards)
            self.assertEqual(done.returncode, 0)
            self.assertEqual(done.stderr, "deepcpu: note: b.json: entry 2 is left out: "
                                          "key: must be an object\n")
            merged = self.load(name)["entries"]
            self.assertEqual(len(merged), 3)
            times = {e["key"]["problem"]: e.get("measured_us") for e in merged}
            self.assertEqual(times, {"lstm:i8h16": 50, "rnn:i8h8": None, "gru:i8h8": 100.5})
        before = (self.folder / "ab.json").read_bytes()
        self.ok("wisdom", "merge", "ab.json", "a.json")
        self.assertEqual((self.folder / "ab.json").read_bytes(), before)
        self.fails("none.json: cannot be read", "wisdom", "merge", "new.json", "a.json",
                   "none.json")
        self.write("broken.json", b"{")
        done = self.call("wisdom", "merge", "broken.json", "a.json")
        self.assertEqual(done.returncode, 1)
        self.assertEqual((self.folder / "broken.json").read_bytes(), b"{")

    def test_prune(self):
        other = self.measured("gru:i8h8")
        other["key"]["machine"] = "v1:elsewhere"
        estimate = self.entry("rnn:i9h9", effort="estimate", version="0.10.0")
        later = self.measured("lstm:i7h7", microseconds=1)
        later["schedule"]["precision"] = "bfloat16"
        later["version"] = "9.0.0"
        entries = [self.measured(), other, later, estimate, self.entry("rnn:i8h8")]

        def left(*flags):
            self.save("w.json", *entries)
            self.ok("wisdom", "prune", "w.json", *flags)
            return [e["key"]["problem"] for e in self.load("w.json")["entries"]]

        every = ["lstm:i8h16", "gru:i8h8", "lstm:i7h7", "rnn:i9h9", "rnn:i8h8"]
        self.assertEqual(left("--older-than", "0.0.1"), every)
        self.assertEqual(self.load("w.json")["entries"][2], later)
        self.assertEqual(left("--problem", "rnn:h8i8"), every[:4])
        self.assertEqual(left("--problem", "lstm:i7h7"), every)  # that one is refused here
        self.assertEqual(left("--machine-only"), every[:1] + every[2:])
        self.assertEqual(left("--estimates"), every[:3] + every[4:])
        self.assertEqual(left("--older-than", "0.2.0"), every[2:])
        self.assertEqual(left("--older-than", "0.1.0"), every)
        self.assertEqual(left("--refused"), every[:2] + every[3:])
        self.save("w.json", *entries, {"key": 7})
        self.assertEqual(self.ok("wisdom", "prune", "w.json", "--problem", "lstm:i1h1"),
                         "6 entries stay\n2 of them are refused here (deepcpu wisdom verify);"
                         " --refused drops them\n")
        self.assertEqual(self.ok("wisdom", "prune", "w.json", "--refused", "--estimates"),
                         "entry 2 dropped: refused: schedule.precision: is unknown\n"
                         "entry 3 dropped: estimated: rnn:i9h9\n"
                         "entry 5 dropped: refused: key: must be an object\n3 entries stay\n")
        # A later format of the whole file.
        self.write("w.json", b'{"format":2,"entries":[[]]}')
        self.fails("w.json: format=2: must be between 1 and 1", "wisdom", "prune", "w.json",
                   "--refused")
        self.assertEqual((self.folder / "w.json").read_bytes(), b'{"format":2,"entries":[[]]}')
        self.fails("none.json: cannot be read", "wisdom", "prune", "none.json", "--estimates")

    def test_wrong_use(self):
        self.fails("", "wisdom", status=2)
        self.fails("", "wisdom", "shown", status=2)
        self.fails("", "wisdom", "merge", "out.json", status=2)
        self.fails("an option has to say what is dropped", "wisdom", "prune", "w.json", status=2)
        for problem, sentence in (("lstm", "must look like"), ("lstm:i0h1", "input=0"),
                                  ("lstm:i1h1t1", "must not state b or t")):
            self.fails(sentence, "wisdom", "prune", "w.json", "--problem", problem, status=2)
        for version in ("1", "1.2", "a.b.c", "1.2.3.4", "1.2.", "-1.0.0", ""):
            self.fails("must look like 0.1.0" if version else "", "wisdom", "prune", "w.json",
                       f"--older-than={version}", status=2)

    def test_hostile_files(self):
        cases = {
            "empty": (b"", "is empty"),
            "nested": (b'{"format":1,"entries":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
                       "nested 1000001 deep"),
            "numbers": (b'{"format":1e400,"entries":[]}', "too large"),
            "twice": (b'{"format":1,"format":1,"entries":[]}', "format: is given twice"),
            "types": (b'{"format":true,"entries":[]}', "format=true: must be between 1 and 1"),
            "bytes": (os.urandom(1000) + b"\xff", "JSON"),
            "other": (b'{"name":"deepcpu","version":[1]}',
                      "other: is no wisdom file: must be an object with format and entries"),
            "list": (b"[1]", "list: is no wisdom file: must be an object with format and entries"),
        }
        for name, (content, sentence) in cases.items():
            self.write(name, content)
            for command in (["show"], ["verify"], ["prune", "--estimates"]):
                self.fails(f"{name}: ", "wisdom", *command, name)
                self.assertIn(sentence, self.fails(sentence, "wisdom", *command, name))
        with open(self.folder / "large", "wb") as file:
            file.truncate(100 << 20)
        self.fails("large: has 104857600 bytes; must be at most 8388608", "wisdom", "show",
                   "large")
        os.mkfifo(self.folder / "pipe")
        self.fails("pipe: is not a regular file", "wisdom", "show", "pipe")

    def test_many_small_objects_take_time_in_proportion(self):
        # A reader that is quadratic in them needs hours.
        many = b",".join([b"{}"] * 1000000)
        self.write("many", b'{"format":1,"entries":[[' + many + b"]]}")
        done = self.call("wisdom", "verify", "many")
        self.assertEqual((done.returncode, done.stdout),
                         (1, "entry 0: entry: must be an object\n"))

    def test_a_link_stays_a_link(self):
        self.save("real.json", self.entry())
        (self.folder / "link.json").symlink_to("real.json")
        self.ok("wisdom", "merge", "link.json", self.save("in.json", self.measured("rnn:i8h8")))
        self.assertTrue(stat.S_ISLNK(os.lstat(self.folder / "link.json").st_mode))
        self.assertEqual(len(self.load("real.json")["entries"]), 2)


if __name__ == "__main__":
    cli.main()
