#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu tune: what it prints, lists and shards of problems, wrong options, signals, terminals."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import cli

XEON = pathlib.Path(__file__).resolve().parents[2] / "bench" / "machines" / "xeon-e5-2650v4.json"
QUICK = ("--seconds", "0.1", "--candidates", "3")
# Far more than is left of any test: these runs end by a signal.
LONG = ("lstm:i256h256", "--effort", "exhaustive", "--seconds", "1000", "--threads", "2")


class Tune(cli.CliTest):
    def tune(self, *arguments):
        return json.loads(self.ok("tune", *arguments, "--json"))

    def emits(self):
        return json.loads(self.ok("bench", "rnn:i4h4t5", "--json", "--seconds", "0.01",
                                  stderr=None))[0]["isa"] != "interpreter"

    def test_json(self):
        rows = self.tune("lstm:i4h8t5", "gru:i3h5l2b2t4", "--threads", "2", *QUICK)
        self.assertEqual([r["problem"] for r in rows], ["lstm:i4h8b1t5", "gru:i3h5l2b2t4"])
        for row, layers in zip(rows, (1, 2)):
            self.assertEqual(len(row["schedule"]["layers"]), layers)
            self.assertLessEqual(row["schedule"]["threads"], 2)
            self.assertGreater(row["predicted_us"], 0)
            self.assertEqual(row["refused"], [])
            self.assertLessEqual(row["candidates"], 3)
            if self.emits():
                self.assertEqual(row["effort"], "measure")
                self.assertGreater(row["measured_us"], 0)

    def test_the_schedule_can_be_used(self):
        (row,) = self.tune("lstm:i4h8t5", *QUICK)
        self.write("s.json", json.dumps(row["schedule"]).encode())
        self.ok("run", "--problem", "lstm:i4h8t5", "--schedule", "s.json", "--output", "y.npy",
                stderr=None)

    def test_table(self):
        text = self.ok("tune", "lstm:i4h8t5", "rnn:i4h4t5", *QUICK)
        lines = text.splitlines()
        self.assertEqual(len(lines), 4, text)
        for head, schedule in zip(lines[::2], lines[1::2]):
            self.assertRegex(head, r"\A(lstm:i4h8b1t5|rnn:i4h4b1t5): .*predicted [0-9.]+ us, "
                                   r"[1-3] candidates(, stopped early)?\Z")
            self.assertIn("layers", json.loads(schedule))
        self.assertNotIn("\x1b", text)

    def test_estimate(self):
        (row,) = self.tune("lstm:i64h64", "--effort", "estimate")
        self.assertEqual(row["effort"], "estimate")
        self.assertIsNone(row["measured_us"])
        self.assertFalse(row["stopped"])
        text = self.ok("tune", "lstm:i64h64", "--effort", "estimate")
        self.assertRegex(text, r"\Alstm:i64h64b1t100: predicted [0-9.]+ us, \d+ candidates\n")

    def test_another_machine(self):
        (row,) = self.tune("lstm:i1024h1024", "--effort", "estimate", "--machine", XEON,
                           "--threads", "64")
        self.assertEqual(row["schedule"]["isa"], "avx2")
        self.assertGreater(row["schedule"]["threads"], 1)
        self.assertLessEqual(row["schedule"]["threads"], 12)

    def test_isa_and_cold(self):
        (row,) = self.tune("lstm:i4h8t5", "--isa", "interpreter", *QUICK)
        self.assertEqual(row["schedule"]["isa"], "interpreter")
        self.assertEqual(row["effort"], "estimate")
        (row,) = self.tune("lstm:i4h8t5", "--cold", *QUICK)
        if self.emits():
            self.assertGreater(row["measured_us"], 0)

    def test_a_bad_line_is_named_and_the_others_go_on(self):
        self.write("p.txt", b"# shapes\n\nlstm:i4h4t5\n  lstm:i0h4  # none\r\nrnn:i3h3t2\nfoo:i1h1")
        done = self.call("tune", "gru:i2h2", "--problems", "p.txt", "--json", "--effort",
                         "estimate")
        self.assertEqual(done.returncode, 1)
        rows = json.loads(done.stdout)
        self.assertEqual([r["problem"] for r in rows],
                         ["gru:i2h2b1t100", "lstm:i4h4b1t5", "rnn:i3h3b1t2"])
        errors = done.stderr.splitlines()
        self.assertEqual(len(errors), 2, done.stderr)
        self.assertTrue(errors[0].startswith("deepcpu: p.txt: line 4: "), errors[0])
        self.assertTrue(errors[1].startswith("deepcpu: p.txt: line 6: "), errors[1])

    def test_a_list_that_is_not_there_or_holds_nothing(self):
        self.fails("none.txt", "tune", "--problems", "none.txt")
        self.write("empty.txt", b"# nothing\n")
        self.assertEqual(self.ok("tune", "--problems", "empty.txt", "--json"), "[]\n")
        self.write("zero.txt", b"lstm:i4h4\x00t5\n")
        self.call("tune", "--problems", "zero.txt", "--effort", "estimate")
        done = self.call("tune", "--problems", "zero.txt", "--effort", "estimate")
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 1", done.stderr)

    def test_shards_cover_every_problem_once(self):
        problems = [f"rnn:i{n}h3b1t2" for n in range(1, 12)]
        self.write("p.txt", "\n".join(problems[2:]).encode())
        for shards in (1, 2, 3, 5, 11, 14):
            found = []
            for i in range(1, shards + 1):
                rows = self.tune(*problems[:2], "--problems", "p.txt", "--effort", "estimate",
                                 "--shard", f"{i}/{shards}")
                self.assertIn(len(rows), (len(problems) // shards, len(problems) // shards + 1))
                found += [r["problem"] for r in rows]
            self.assertEqual(sorted(found), sorted(problems))

    def test_a_line_keeps_its_number_in_every_shard(self):
        self.write("p.txt", b"rnn:i1h1\nrnn:i2h2\nbad\nrnn:i4h4\n")
        done = self.call("tune", "--problems", "p.txt", "--effort", "estimate", "--shard", "1/2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("p.txt: line 3: ", done.stderr)

    def test_wrong_shards(self):
        for shard in ("0/2", "3/2", "1", "1/", "/2", "1/0", "-1/2", "1/2/3", "a/b", "1 /2",
                      "1/99999999999999999999999"):
            self.fails(f"--shard: shard={shard}: must be i/n with 1 <= i <= n", "tune", "rnn:i1h1",
                       "--shard", shard, status=2)
        self.fails("--shard", "tune", "rnn:i1h1", "--shard", "", status=2)

    def test_wrong_use(self):
        for sentence, arguments in (
                ("PROBLEM", ()),
                ("--effort", ("rnn:i1h1", "--effort", "much")),
                ("--seconds", ("rnn:i1h1", "--seconds", "0")),
                ("--seconds", ("rnn:i1h1", "--seconds", "nan")),
                ("--seconds", ("rnn:i1h1", "--seconds", "-3")),
                ("--threads", ("rnn:i1h1", "--threads", "0")),
                ("--candidates", ("rnn:i1h1", "--candidates", "0")),
                ("--isa", ("rnn:i1h1", "--isa", "sse")),
                ("--machine", ("rnn:i1h1", "--machine", XEON)),
                ("--machine", ("rnn:i1h1", "--machine", XEON, "--effort", "measure")),
                ("--machine", ("rnn:i1h1", "--machine", XEON, "--effort", "exhaustive")),
                ("--candidates", ("rnn:i1h1", "--candidates", "5", "--effort", "exhaustive")),
                ("--cold", ("rnn:i1h1", "--cold", "--effort", "estimate")),
                ("--seconds", ("rnn:i1h1", "--seconds", "5", "--effort", "estimate")),
                ("--threeds", ("rnn:i1h1", "--threeds", "2"))):
            self.fails(sentence, "tune", *arguments, status=2)

    def test_wrong_machines(self):
        self.fails("none.json", "tune", "rnn:i1h1", "--effort", "estimate", "--machine",
                   "none.json")
        for name, content in (("empty.json", b""), ("half.json", XEON.read_bytes()[:300]),
                              ("deep.json", b"[" * 100000)):
            self.write(name, content)
            self.fails(name, "tune", "rnn:i1h1", "--effort", "estimate", "--machine", name)

    def test_a_file_that_cannot_be_written_is_found_out_before_tuning(self):
        # These would take a day.
        long = ("tune", "lstm:i64h64", "--seconds", "86400", "--output")
        self.fails("none/w.json: cannot be written: No such file", *long, "none/w.json")
        self.fails("/dev/full: is not a regular file", *long, "/dev/full")
        self.write("calibration.json", XEON.read_bytes())
        self.fails("calibration.json: is no wisdom file: must be an object with format and entries",
                   *long, "calibration.json")
        self.assertEqual((self.folder / "calibration.json").read_bytes(), XEON.read_bytes())

    def test_what_cannot_be_stored_is_printed_all_the_same(self):
        (self.folder / "w.json.lock").mkdir()
        self.write("p.txt", b"rnn:i1h1\nrnn:i2h2")
        done = self.call("tune", "--problems", "p.txt", "--effort", "estimate", "--json",
                         "--output", "w.json")
        self.assertEqual(done.returncode, 1)
        self.assertEqual([r["problem"] for r in json.loads(done.stdout)], ["rnn:i1h1b1t100"])
        self.assertRegex(done.stderr, r"\Adeepcpu: w.json: cannot be locked: [^\n]+\n\Z")

    def start(self, *arguments, **options):
        return subprocess.Popen([cli.BINARY, "tune", *arguments], cwd=self.folder,
                                env=self.environment(), stdin=subprocess.DEVNULL, **options)

    def interrupted(self, number, *arguments):
        """Exit status, stdout and stderr of a long run that gets a signal when it is at work."""
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # It catches signals before it searches.
        caught = 1 << (number - 1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            mask = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.M)
            if mask and int(mask.group(1), 16) & caught:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def test_a_signal_ends_the_search_and_keeps_what_was_found(self):
        if not self.emits():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            status, out, err = self.interrupted(number, *LONG, "--json")
            self.assertEqual(status, 1, err)
            (row,) = json.loads(out)
            self.assertTrue(row["stopped"])
            self.assertEqual(row["problem"], "lstm:i256h256b1t100")
            self.assertIn("layers", row["schedule"])
            self.assertRegex(err, r"\Adeepcpu: stopped by a signal[^\n]*\n\Z")

    def test_a_signal_keeps_the_later_problems_from_starting(self):
        if not self.emits():
            return
        self.write("p.txt", b"bad:i1h1\nrnn:i2h2\nlstm:i256h256\nlstm:i128h128")
        status, out, err = self.interrupted(signal.SIGINT, "--problems", "p.txt", *LONG[1:])
        self.assertEqual(status, 1)
        errors = err.splitlines()
        self.assertEqual(len(errors), 2, err)
        self.assertIn("bad", errors[0])
        self.assertIn("stopped by a signal", errors[1])
        self.assertIn("stopped early", out)
        self.assertNotIn("lstm:i128h128", out)

    def test_better_evidence_in_the_file_stays(self):
        arguments = ("rnn:i3h3t2", "--output", "w.json")
        self.ok("tune", *arguments, *QUICK, stderr=None)
        before = (self.folder / "w.json").read_bytes()
        done = self.call("tune", *arguments, "--effort", "estimate")
        self.assertEqual(done.returncode, 0)
        if not self.emits():  # nothing was measured
            return
        self.assertRegex(done.stderr, r"\Adeepcpu: note: w.json: keeps its entry for rnn:i3h3b1t2, "
                                      r"which was measured with [0-9.]+ us for b=1, t=2\n\Z")
        self.assertEqual((self.folder / "w.json").read_bytes(), before)

    def test_other_numbers_of_steps_have_entries_of_their_own(self):
        for steps in (50, 1, 4):
            self.ok("tune", f"rnn:i3h3t{steps}", "--output", "w.json", *QUICK, stderr=None)
        entries = json.loads((self.folder / "w.json").read_text())["entries"]
        self.assertEqual([e["key"]["steps"] for e in entries], ["16+", "1", "2-15"])

    def on_terminal(self, *arguments):
        """Exit status, stdout and what a terminal at stderr is sent."""
        try:
            ours, theirs = pty.openpty()
        except OSError as error:
            self.skipTest(f"no pseudo-terminal here: {error}")
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=theirs)
        self.addCleanup(process.kill)
        os.close(theirs)
        shown = b""
        while True:
            select.select([ours], [], [], 60)
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            shown += data
        os.close(ours)
        out = process.stdout.read().decode()
        process.stdout.close()
        return process.wait(timeout=60), out, shown.decode()

    def test_progress_is_shown_on_a_terminal_only(self):
        if not self.emits():
            return
        arguments = ("lstm:i64h64", "--seconds", "0.5")
        status, out, shown = self.on_terminal(*arguments)
        self.assertEqual(status, 0, shown)
        bars = re.findall(r"lstm:i64h64b1t100 \[([#.]{24})\] (\d+) of (\d+) left, best ([\d.]+) us",
                          shown)
        self.assertGreater(len(bars), 2, shown)
        for _, left, candidates, best in bars:
            self.assertGreater(float(best), 0)
            self.assertLessEqual(int(left), int(candidates))
        filled = [bar.count("#") for bar, _, _, _ in bars]
        self.assertEqual(filled, sorted(filled))
        # At the end the line is empty again.
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown[-40:]))
        self.assertNotIn("\x1b", out)
        self.ok("tune", *arguments)  # nothing on stderr when that is a file


if __name__ == "__main__":
    cli.main()
