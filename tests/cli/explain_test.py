#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu explain: the sections, figures that must agree, the page, described machines."""

import html.parser
import json
import pathlib
import re

import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
XEON = ROOT / "bench" / "machines" / "xeon-e5-2650v4.json"
PROBLEM = "lstm:i40h48t20"
QUICK = ("--seconds", "0.05")
SECTIONS = ["MM-DAG", "phases", "schedule space", "schedule, ", "time of a run", "bytes and FLOPs",
            "limit", "other schedules", "over threads"]
VOID = {"meta"}


BUSY = "note: the machine was busy with something else"


class Page(html.parser.HTMLParser):
    """Fails on tags that do not match; keeps all attributes and all text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open, tag)
        self.open.pop()

    def handle_data(self, data):
        self.text += data


class Explain(cli.CliTest):
    def ok(self, *arguments, stderr="", env=None):
        """As cli's. Any run that is timed may note that the machine was busy."""
        done = self.call(*arguments, env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        if stderr is not None:
            said = [line for line in done.stderr.splitlines(True) if BUSY not in line]
            self.assertEqual("".join(said), stderr)
        return done.stdout

    def explain(self, *arguments, env=None, stderr=""):
        return json.loads(self.ok("explain", *arguments, "--json", env=env, stderr=stderr))

    def test_text(self):
        text = self.ok("explain", PROBLEM, *QUICK)
        titles = re.findall(r"^== (.*)$", text, re.MULTILINE)
        self.assertEqual(len(titles), len(SECTIONS))
        for title, start in zip(titles, SECTIONS):
            self.assertTrue(title.startswith(start), titles)
        for part in ("hoisted products", "recurrent products", "gates", "exchange", "calls"):
            self.assertRegex(text, rf"(?m)^  {part}.* \d+\.\d ")

    def test_figures_agree(self):
        e = self.explain(PROBLEM, *QUICK)
        self.assertEqual(e["problem"], "lstm:i40h48b1t20")
        parts = {p["part"]: p for p in e["parts"]}
        whole = parts.pop("whole run")
        self.assertAlmostEqual(sum(p["predicted_us"] for p in parts.values()),
                               whole["predicted_us"], 6)
        self.assertEqual(whole["predicted_us"], e["predicted_us"])
        if e["schedule"]["isa"] == "interpreter":
            self.assertIn("interpreter", e["not_measured"])
            return
        self.assertAlmostEqual(sum(p["measured_us"] for p in parts.values()),
                               whole["measured_us"], 6)
        self.assertEqual(whole["measured_us"], e["measured"]["run_us"])
        self.assertAlmostEqual(e["limit"]["fraction"], e["limit"]["us"] / e["measured_us"], 9)
        limit = e["limit"]
        longest = max(limit["flops_us"], limit["bytes_us"], limit["chain_us"])
        self.assertAlmostEqual(limit["us"], limit["hoist_us"] + longest + limit["exchange_us"], 6)
        self.assertEqual(len(e["measured"]["threads_us"]), e["schedule"]["threads"])
        self.assertEqual(e["flops"]["all"], e["flops"]["hoisted"] + e["flops"]["in_loop"])

    def test_space(self):
        e = self.explain(PROBLEM, "--machine", XEON)
        space = e["space"]
        raw = 1
        for row in space["decisions"]:  # one layer
            raw *= int(row["raw"])
        self.assertEqual(int(space["raw"]), raw)
        sizes = [raw, int(space["valid"])] + [int(p["size"]) for p in space["pruned"]]
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        self.assertTrue(all(p["may_lose"] for p in space["pruned"]))
        text = self.ok("explain", PROBLEM, "--machine", XEON)
        for size in sizes:
            self.assertRegex(text, rf"(?m)^ +{size}  ")

    def test_same_as_dump(self):
        e = self.explain(PROBLEM, *QUICK)
        for stage in ("dag", "phases"):
            self.assertEqual(e[stage], self.ok("dump", PROBLEM, "--stage", stage))
        self.assertEqual(e["schedule"], json.loads(self.ok("dump", PROBLEM, "--stage", "schedule")))

    def test_interpreter(self):
        env = {"DEEPCPU_MAX_ISA": "interpreter"}
        e = self.explain(PROBLEM, env=env, stderr=None)
        self.assertIsNone(e["measured_us"])
        self.assertIn("interpreter", e["not_measured"])
        self.assertTrue(all(p["measured_us"] is None for p in e["parts"]))
        self.assertEqual(e["limit"]["fraction_of"], "predicted")

    def test_measure(self):
        e = self.explain(PROBLEM, "--threads", "2", "--measure", "--seconds", "0.3", stderr=None)
        if e["schedule"]["isa"] == "interpreter":
            return
        self.assertRegex(e["chosen"], r"^by timing \d+ candidates$")
        timed = [o for o in e["others"] if o["measured_us"] is not None]
        self.assertTrue(timed)
        self.assertEqual([o["measured_us"] for o in timed],
                         sorted(o["measured_us"] for o in timed))
        self.assertTrue(all(o["why"].startswith(("timed ", "left the race ")) for o in timed))
        self.assertIsNotNone(e["over_threads"][0]["measured_us"])

    def test_schedule(self):
        schedule = json.loads(self.ok("dump", PROBLEM, "--stage", "schedule"))
        schedule["layers"][0]["hoist_block"] = 3
        self.write("s.json", json.dumps(schedule).encode())
        e = self.explain(PROBLEM, *QUICK, "--schedule", "s.json")
        self.assertEqual(e["schedule"], schedule)
        self.assertEqual(e["chosen"], "given")
        self.assertIn("computed for up to 3 steps", e["words"])

    def test_described_machine(self):
        e = self.explain("lstm:i64h1024t100", "--machine", XEON, "--threads", "12")
        self.assertEqual(e["schedule"]["isa"], "avx2")
        self.assertEqual(e["schedule"]["threads"], 12)
        self.assertTrue(e["machine"]["described"])
        self.assertIsNone(e["measured_us"])
        self.assertEqual(e["limit"]["fraction"], e["limit"]["us"] / e["predicted_us"])
        self.assertEqual([p["threads"] for p in e["over_threads"]], [1, 2, 4, 8, 12])
        levels = {level["level"]: level for level in e["levels"]}
        # 16 MiB of recurrent weights do not fit twelve L2 of 256 KiB.
        self.assertGreater(levels["l3"]["in_loop_bytes"], 100 * 1e6)
        self.assertEqual(e, self.explain("lstm:i64h1024t100", "--machine", XEON, "--threads", "12"))


class PageTest(cli.CliTest):
    def page(self, *arguments):
        self.ok("explain", *arguments, "--html", "p.html", stderr=None)
        return (self.folder / "p.html").read_text(encoding="utf-8")

    def check(self, text, charts=(3, 4)):
        page = Page(text)
        self.assertIn(page.tags.count("svg"), charts)  # nothing timed: no candidates to draw
        self.assertNotIn("script", page.tags)
        self.assertNotRegex(text, r"https?://|url\(|@import")
        for name, value in page.attributes:
            self.assertNotIn(name, ("src", "href", "srcset", "data"), value)
        self.assertNotRegex(text, r"\b(nan|inf|-inf)\b")
        return page

    def test_page(self):
        page = self.check(self.page(PROBLEM, "--threads", "2", "--measure", "--seconds", "0.3"))
        for title in ("Roofline", "A step, thread by thread", "Speed over threads",
                      "Time by part", "The limit", "Other schedules"):
            self.assertIn(title, page.text)

    def test_described(self):
        page = self.check(self.page("gru:i64h64b3t100,reset=before", "--machine", XEON,
                                    "--threads", "12"), charts=(3,))
        self.assertNotIn("Predicted and measured", page.text)
        self.assertIn("Not measured: the machine is described", page.text)

    def test_shapes(self):
        for problem in ("rnn:i1h1t1", "lstm:i16h32l3bit5", "augru:i4h5t3"):
            self.check(self.page(problem, *QUICK))

    def test_escaped(self):
        # The name of a file that cannot be read becomes part of the machine's note.
        self.ok("explain", PROBLEM, *QUICK, "--html", "p.html",
                env={"DEEPCPU_MACHINE": "a<b>&'\"\n.json"}, stderr=None)
        page = self.check((self.folder / "p.html").read_text(encoding="utf-8"))
        self.assertNotIn("b", page.tags)
        self.assertIn("a<b>&'", page.text)

    def test_whole_or_absent(self):
        self.fails("cannot be written", "explain", PROBLEM, "--machine", XEON, "--html",
                   "nowhere/p.html")
        # Known before anything is timed: this would take a day.
        self.fails("cannot be written", "explain", PROBLEM, "--seconds", "86400", "--html",
                   "nowhere/p.html")
        self.write("p.html", b"old")
        self.fails("nosuch", "explain", "nosuch:i1h1", "--html", "p.html", status=2)
        self.assertEqual((self.folder / "p.html").read_bytes(), b"old")


class BadInput(cli.CliTest):
    def test_wrong_use(self):
        self.fails("--nosuch", "explain", PROBLEM, "--nosuch", status=2)
        self.fails("problem", "explain", status=2)
        self.fails("--machine", "explain", PROBLEM, "--measure", "--machine", XEON, status=2)
        self.fails("--machine", "explain", PROBLEM, "--seconds", "1", "--machine", XEON, status=2)
        self.fails("--seconds", "explain", PROBLEM, "--seconds", "0", status=2)
        self.fails("--threads", "explain", PROBLEM, "--threads", "0", status=2)

    def test_files(self):
        self.fails("nowhere.json: cannot be read", "explain", PROBLEM, "--machine", "nowhere.json")
        self.write("m.json", b'{"format": 1')
        self.fails("m.json: ", "explain", PROBLEM, "--machine", "m.json")
        self.write("s.json", b"{}")
        self.fails("s.json: ", "explain", PROBLEM, "--schedule", "s.json")
        self.fails("input=0", "explain", "lstm:i0h4", status=2)

    def test_more_threads_than_cores(self):
        done = self.call("explain", PROBLEM, "--machine", XEON, "--threads", "100", "--json")
        self.assertEqual(json.loads(done.stdout)["threads"], 12)
        self.assertIn("threads=100: the machine has 12 cores", done.stderr)


if __name__ == "__main__":
    cli.main()
