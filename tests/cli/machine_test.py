#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu machine: calibrating, what is saved where, and descriptions of other machines."""

import json
import pathlib

import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
XEON = ROOT / "bench" / "machines" / "xeon-e5-2650v4.json"
QUICK = ("machine", "--calibrate", "--seconds", "0.1")


class Calibrate(cli.CliTest):
    def setUp(self):
        super().setUp()
        if json.loads(self.ok("machine", "--json"))["machine"]["isa"] == "interpreter":
            self.skipTest("a machine without AVX2 cannot be calibrated")
        self.home = {"DEEPCPU_MACHINE": "", "XDG_CACHE_HOME": str(self.folder / "cache")}

    def calibrate(self, *arguments, env=None):
        """What is printed; beside other tests the cores are busy, which may be noted."""
        done = self.call(*QUICK, *arguments, env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"\A(deepcpu: note: calibration: with all cores [^\n]*\n)*\Z")
        return done.stdout

    def test_saved_and_found(self):
        text = self.calibrate(env=self.home)
        (saved,) = (self.folder / "cache" / "deepcpu").iterdir()
        self.assertIn(f"saved to {saved}\n", text)
        self.assertRegex(saved.name, r"^machine-v1-[A-Za-z0-9_.=-]+\.json$")
        here = json.loads(self.ok("machine", "--json", env=self.home))
        content = json.loads(saved.read_text())
        self.assertEqual(here["calibration"], content["calibration"])
        self.assertEqual(here["key"], content["key"])
        self.assertIn("calibration: measured in ", self.ok("machine", env=self.home))
        self.assertIsNone(json.loads(self.ok("machine", "--json"))["calibration"])

    def test_output(self):
        printed = json.loads(self.calibrate("--json", "--output", "m.json"))
        self.assertEqual(printed, json.loads((self.folder / "m.json").read_text()))
        names = [level["name"] for level in printed["calibration"]["levels"]]
        self.assertEqual((names[:2], names[-1]), (["l1", "l2"], "memory"))
        for isa in printed["calibration"]["isas"]:
            self.assertEqual(len(isa["read_gbytes_per_s"]), len(names))
            for count in ("one", "two", "all"):
                self.assertGreater(isa["fma_gflops"][count], 0.01)
        self.assertIn("calibration: measured", self.ok("machine", "--machine", "m.json"))

    def test_none_saves_nothing(self):
        done = self.call(*QUICK, env={"HOME": str(self.folder)})
        self.assertEqual(done.returncode, 0)
        self.assertIn("note: not saved: DEEPCPU_MACHINE=none", done.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_cannot_be_saved(self):
        # Known before anything is measured: nothing is printed.
        self.fails("/proc/nowhere/m.json: cannot be written", *QUICK, "--output",
                   "/proc/nowhere/m.json")
        self.fails("nowhere/m.json: cannot be written", *QUICK, "--output", "nowhere/m.json")

    def test_damaged_file_is_explained(self):
        self.write("m.json", b"{")
        env = {"DEEPCPU_MACHINE": str(self.folder / "m.json")}
        text = self.ok("machine", env=env)
        self.assertIn("estimate: ", text)
        self.assertIn("m.json: JSON is not valid", text)
        done = self.call("bench", "lstm:i4h4t2", "--seconds", "0.01", env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("note: ", done.stderr)
        self.assertIn("m.json: JSON is not valid", done.stderr)

    def test_wrong_use(self):
        self.fails("--seconds", "machine", "--seconds", "1", status=2)
        self.fails("--output", "machine", "--output", "x", status=2)
        self.fails("--seconds", "machine", "--calibrate", "--seconds", "0", status=2)
        self.fails("--machine", "machine", "--calibrate", "--machine", "x", status=2)
        for command in (("machine", "--calibrate"), ("bench", "lstm:i4h4"), ("tune", "lstm:i4h4"),
                        ("explain", "lstm:i4h4")):
            self.fails("nan: must be a number", *command, "--seconds", "nan", status=2)


class Described(cli.CliTest):
    def test_xeon(self):
        text = self.ok("machine", "--machine", XEON)
        self.assertIn("12 cores, 2.20 GHz", text)
        self.assertIn("description: ", text)
        model = json.loads(self.ok("machine", "--machine", XEON, "--json"))["model"]
        self.assertEqual(model["source"], "description")
        self.assertEqual(model["isas"][0]["levels"][1]["forward_bytes"], 256 * 1024)

    def test_this_machine_is_a_description_too(self):
        self.write("here.json", self.ok("machine", "--json").encode())
        self.assertIn("estimate: ", self.ok("machine", "--machine", "here.json"))

    def test_refused_by_name(self):
        def changed(change):
            content = json.loads(XEON.read_text())
            change(content["calibration"])
            return self.write("m.json", json.dumps(content).encode())

        def set_wake(c): c["wake_us"] = 0
        def set_fma(c): c["isas"][0]["fma_gflops"]["one"] = 1e9
        def set_text(c): c["clock_ghz"] = "2.2"
        def drop(c): del c["levels"][1]["shared_by"]
        def add(c): c["colour"] = "red"
        for change, sentence in (
                (set_wake, "m.json: wake_us=0: must be between 0.05 and"),
                (set_fma, "m.json: isas[0].fma_gflops.one=1000000000: must be between"),
                (set_text, "m.json: calibration.clock_ghz: must be a number"),
                (drop, "m.json: calibration.levels[1].shared_by: is missing"),
                (add, "m.json: calibration.colour: is not a known field")):
            self.fails(sentence, "machine", "--machine", changed(change))

    def test_hostile_files(self):
        for content, sentence in ((b"", "not valid"), (b"[" * 100000, "nested"),
                                  (XEON.read_bytes()[:700], "not valid"),
                                  (b'{"format":1,"format":1}', "given twice"),
                                  (b"7", "must be an object")):
            self.fails(sentence, "machine", "--machine", self.write("m.json", content))
        with open(self.folder / "m.json", "wb") as file:
            file.truncate(100 << 20)
        self.fails("has 104857600 bytes; must be at most", "machine", "--machine", "m.json")
        self.fails("nowhere: cannot be read", "machine", "--machine", "nowhere")


if __name__ == "__main__":
    cli.main()
