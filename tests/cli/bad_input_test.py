#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input: one sentence that names what is wrong, the exit status, and no file left behind."""

import json
import struct

import cli


class WrongUse(cli.CliTest):
    CASES = [
        ("A subcommand is required", []),
        ("nosuch: is no subcommand", ["nosuch"]),
        ("--problem is required (see deepcpu run --help)", ["run"]),
        ("in is required (see deepcpu wisdom merge --help)", ["wisdom", "merge", "out.json"]),
        ("--nosuch", ["run", "--problem", "lstm:i1h1", "--nosuch"]),
        ("extra", ["run", "--problem", "lstm:i1h1", "extra"]),
        ("--output", ["run", "--problem", "lstm:i1h1", "--output"]),
        ("--output: must name a file", ["run", "--problem", "lstm:i1h1", "--output", ""]),
        ("--output", ["run", "--problem", "lstm:i1h1", "--output", "a", "--output", "b"]),
        ("a: two outputs cannot be one file",
         ["run", "--problem", "lstm:i1h1", "--output", "a", "--hn", "a"]),
        ("--input: x is given twice",
         ["run", "--problem", "lstm:i1h1", "--input", "a", "--input", "b"]),
        ("--state: h is given twice",
         ["run", "--problem", "lstm:i1h1", "--h0", "a", "--state", "h=b"]),
        ("--state: a must be NAME=FILE", ["run", "--problem", "lstm:i1h1", "--state", "a"]),
        ("--seed: must be a whole number", ["run", "--problem", "lstm:i1h1", "--seed", "-1"]),
        ("--seed", ["run", "--problem", "lstm:i1h1", "--seed", "18446744073709551616"]),
        ("--threads: Value 0 not in range", ["run", "--problem", "lstm:i1h1", "--threads", "0"]),
        ("--threads", ["run", "--problem", "lstm:i1h1", "--threads", "99999999999999999999"]),
        ("--threads", ["bench", "lstm:i1h1", "--threads", "two"]),
        ("--isa: sse2 not in", ["run", "--problem", "lstm:i1h1", "--isa", "sse2"]),
        ("PROBLEM or --file is required", ["bench"]),
        ("--stage is required", ["dump", "lstm:i1h1"]),
        ("problem is required", ["dump", "--stage", "dag"]),
        ("--stage: nosuch not in", ["dump", "lstm:i1h1", "--stage", "cell,nosuch"]),
        ("--dot: needs --stage dag", ["dump", "lstm:i1h1", "--stage", "plan", "--dot"]),
        ("extra", ["cells", "extra"]),
        ("--file: must name a file", ["bench", "lstm:i1h1", "--file", ""]),
        ("--schedule: must name a file", ["bench", "lstm:i1h1", "--schedule", ""]),
        ("--html: must name a file", ["explain", "lstm:i1h1", "--html", ""]),
        ("--output: must name a file", ["tune", "lstm:i1h1", "--output", ""]),
        ("--output: must name a file", ["machine", "--calibrate", "--output", ""]),
        ("--machine: must name a file", ["machine", "--machine", ""]),
    ]

    def test_all(self):
        for sentence, arguments in self.CASES:
            with self.subTest(arguments=arguments):
                self.fails(sentence, *arguments, status=2)


class Problems(cli.CliTest):
    CASES = [
        ("problem lstm: must look like", "lstm"),
        ("cell=nosuch: is unknown, known cells are ", "nosuch:i1h1"),
        ("input=0: must be between 1 and ", "lstm:i0h1"),
        ("hidden=-3: must be between 1 and ", "lstm:i1h-3"),
        ("hidden=99999999999999999999: must be between", "lstm:i1h99999999999999999999"),
        ("hidden=4294967297: must be between", "lstm:i1h4294967297"),
        ("batch=1025: must be between 1 and 1024", "lstm:i1h1b1025"),
        ("layers=0: must be between", "lstm:i1h1l0"),
        ("hidden: is missing", "lstm:i1"),
        ("input: is given twice", "lstm:i1i2h1"),
        ("bytes, more than the", "lstm:i1048576h1048576"),
        ("resett=after: is no option of cell gru", "gru:i1h1,resett=after"),
        ("reset=never: must be after or before", "gru:i1h1,reset=never"),
        ("projection=4: must be at most hidden=3", "lstm:i1h3p4"),
    ]
    # Problems that only this machine has no memory for.
    LARGE = [
        ("steps=2147483647, batch=1024: inputs and output take 92233",
         "rnn:i1048576h1b1024t2147483647"),
        ("inputs and output take 17592186036224 bytes, ",
         "rnn:i1h1b1024t2147483647"),
    ]

    def test_an_argument_that_is_none_is_wrong_use(self):
        for sentence, problem in self.CASES:
            for command in (["run", "--output", "y.npy", "--problem"], ["dump", "--stage", "cell"],
                            ["bench"], ["bench", "rnn:i1h1"], ["explain"], ["tune"],
                            ["tune", "--output", "w.json", "rnn:i1h1"]):
                with self.subTest(problem=problem, command=command):
                    self.fails(sentence, *command, problem, status=2)

    def test_a_line_of_a_file_that_is_none_is_a_failure(self):
        for sentence, problem in self.CASES:
            self.write("p.txt", problem.encode())
            for command in (["bench", "--file"], ["tune", "--problems"]):
                with self.subTest(problem=problem, command=command):
                    error = self.fails(sentence, *command, "p.txt")
                    self.assertTrue(error.startswith("deepcpu: p.txt: line 1: "), error)

    def test_what_is_timed_has_steps(self):
        sentence = "t=0: must be between 1 and 2147483647"
        for command in ("bench", "tune", "explain"):
            self.fails(sentence, command, "lstm:i8h8t0", status=2)
        self.write("p.txt", b"lstm:i8h8t0")
        self.fails("p.txt: line 1: " + sentence, "bench", "--file", "p.txt")
        self.fails("p.txt: line 1: " + sentence, "tune", "--problems", "p.txt")
        self.ok("run", "--problem", "lstm:i8h8t0", "--output", "y.npy")
        self.ok("dump", "lstm:i8h8t0", "--stage", "plan")

    def test_too_large(self):
        for sentence, problem in self.LARGE:
            self.fails(sentence, "run", "--problem", problem, "--output", "y.npy")
            self.fails(sentence, "bench", problem)


class Weights(cli.CliTest):
    """gru:i2h3: weight_ih_l0 [9, 2], weight_hh_l0 [9, 3], bias_ih_l0 [9], bias_hh_l0 [9]."""

    def refuse(self, sentence, content):
        self.write("m.safetensors", content)
        self.fails(sentence, "run", "--problem", "gru:i2h3", "--model", "m.safetensors", "--output",
                   "y.npy", "--hn", "hn.npy")

    def test_tensors(self):
        weights = cli.torch_weights(3, 2, 3)
        short = dict(weights)
        del short["bias_hh_l0"]
        self.refuse("m.safetensors: tensor bias_hh_l0: is missing, must have shape [9]",
                    cli.safetensors_bytes(short))
        self.refuse("m.safetensors: tensor bias_xx_l0: is not a tensor of gru:i2h3",
                    cli.safetensors_bytes({**weights, "bias_xx_l0": ((1,), [0.0])}))
        self.refuse("tensor weight_ih_l0: has shape [2, 9], must have [9, 2]",
                    cli.safetensors_bytes({**weights, "weight_ih_l0": ((2, 9), [0.0] * 18)}))

    def test_type(self):
        weights = cli.torch_weights(3, 2, 3)
        entries, at = {}, 0
        for name, (shape, values) in weights.items():
            size = (2 if name == "bias_ih_l0" else 4) * len(values)
            entries[name] = {"dtype": "F16" if name == "bias_ih_l0" else "F32",
                             "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
        self.refuse("tensor bias_ih_l0: has dtype F16, must be F32",
                    cli.safetensors_bytes({}, header=entries, data=bytes(at)))

    def test_truncated(self):
        whole = cli.safetensors_bytes(cli.torch_weights(3, 2, 3))
        for length in (0, 7, 8, 40, len(whole) - 1):
            self.refuse("m.safetensors: ", whole[:length])
        self.refuse("m.safetensors: ", whole + b"\0")

    def test_false_header(self):
        def entry(begin, end, shape=(2,)):
            return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}

        headers = {
            "outside": {"a": entry(0, 16, (4,))},
            "overlapping": {"a": entry(0, 8), "b": entry(4, 12)},
            "hole": {"a": entry(4, 12)},
            "backwards": {"a": entry(8, 0)},
            "negative": {"a": entry(-8, 0)},
            "size": {"a": entry(0, 8, (3,))},
            "overflow": {"a": entry(0, 8, (2**32, 2**32))},
        }
        for name, header in headers.items():
            with self.subTest(name=name):
                self.refuse("tensor ", cli.safetensors_bytes({}, header=header, data=bytes(12)))
        for text in (b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b"[" * 5000):
            with self.subTest(text=text[:10]):
                self.refuse("m.safetensors: ", cli.safetensors_bytes({}, header=text))
        self.refuse("m.safetensors: ", struct.pack("<Q", 2**60) + b"{}")

    def test_no_file(self):
        for path, why in ("nowhere.safetensors", "No such file"), (".", "is not a regular file"):
            self.fails(f"{path}: ", "run", "--problem", "gru:i2h3", "--model", path)
            self.assertIn(why, self.call("run", "--problem", "gru:i2h3", "--model", path).stderr)


class Arrays(cli.CliTest):
    """gru:i2h3b2 with x [4, 2, 2] and states [1, 2, 3]."""

    def refuse(self, sentence, *arguments, problem="gru:i2h3b2", status=1):
        return self.fails(sentence, "run", "--problem", problem, "--output", "y.npy", *arguments,
                          status=status)

    def refuse_x(self, sentence, content, problem="gru:i2h3b2"):
        self.write("x.npy", content)
        self.refuse("x.npy: ", "--input", "x.npy", problem=problem)
        self.refuse(sentence, "--input", "x.npy", problem=problem)

    def test_x(self):
        values = cli.numbers(16, 1)
        shape = (4, 2, 2)
        for descr in ("<f8", ">f4", "<f2"):
            self.refuse_x(f"x.npy: descr={descr}: must be '<f4' (float32, little-endian)\n",
                          cli.npy_bytes(shape, values, descr))
        self.refuse_x("type int32: must be float32", cli.npy_bytes(shape, [1] * 16, "<i4"))
        self.refuse_x("fortran_order=True: must be False",
                      cli.npy_bytes(shape, values, fortran=True))
        self.refuse_x("must have 3 dimensions", cli.npy_bytes((4, 4), values))
        self.refuse_x("must have 3 dimensions", cli.npy_bytes((4, 2, 2, 1), values))
        self.refuse_x("shape (4, 1, 4): must be (T, 2, 2)", cli.npy_bytes((4, 1, 4), values))
        self.refuse_x("shape (8, 1, 2): must be (T, 2, 2)", cli.npy_bytes((8, 1, 2), values))
        self.refuse_x("takes 68 bytes, the file holds 64", cli.npy_bytes((17, 1, 1), values))
        self.refuse_x("takes 32 bytes, the file holds 64", cli.npy_bytes((2, 2, 2), values))
        self.refuse_x("more than 2^63", cli.npy_bytes((2**40, 2**40, 1), values))
        self.refuse_x("", cli.npy_bytes("(4, -2, -2)", values))
        self.refuse_x("", cli.npy_bytes("(4, 2, 2", values))
        self.refuse_x("is not an npy file", b"nothing of the kind")
        self.refuse_x("", b"")
        self.refuse_x("", cli.npy_bytes(shape, values)[:50])

    def test_batch_of_x(self):
        self.refuse_x("shape (1, 1025, 1): batch=1025: must be between 1 and 1024",
                      cli.npy_bytes((1, 1025, 1), [0.0] * 1025), problem="gru:i1h2")
        self.refuse_x("shape (3, 0, 1): batch=0", cli.npy_bytes((3, 0, 1), []), problem="gru:i1h2")
        self.refuse_x("shape (2, 2, 1): must be (T, 1, 1)",
                      cli.npy_bytes((2, 2, 1), [0.0] * 4), problem="gru:bii1h2b1")

    def test_states(self):
        self.npy("h0.npy", (1, 1, 3), cli.numbers(3, 1))
        self.refuse("h0.npy: shape (1, 1, 3): state h must have (1, 2, 3)", "--h0", "h0.npy")
        self.npy("flat.npy", (6,), cli.numbers(6, 1))
        self.refuse("flat.npy: shape (6): must have 3 dimensions", "--h0", "flat.npy")
        self.refuse("state c: cell gru has no such state", "--c0", "h0.npy", status=2)
        self.refuse("state c: cell gru has no such state", "--cn", "c.npy", status=2)
        self.refuse("state nosuch: cell gru has no such state", "--final", "nosuch=f.npy", status=2)
        self.refuse("nowhere.npy: cannot be read: No such file", "--h0", "nowhere.npy")

    def test_further_inputs(self):
        self.npy("x.npy", (4, 2, 2), cli.numbers(16, 1))
        self.npy("a.npy", (4, 2, 2), cli.numbers(16, 1))
        self.refuse("--input attention: cell augru needs this input too", "--input", "x.npy",
                    problem="augru:i2h3", status=2)
        self.refuse("--input x: cell augru needs this input too", "--input", "attention=a.npy",
                    problem="augru:i2h3", status=2)
        self.refuse("--input nosuch: cell gru has no such input", "--input", "nosuch=x.npy",
                    status=2)
        self.refuse("a.npy: shape (4, 2, 2): input attention must have (4, 2, 1)", "--input",
                    "x.npy", "--input", "attention=a.npy", problem="augru:i2h3")

    def test_lengths(self):
        def lengths(sentence, shape, values, descr="<i8"):
            self.npy("n.npy", shape, values, descr)
            self.refuse(sentence, "--lengths", "n.npy", problem="gru:i2h3b2t4")

        lengths("n.npy: lengths[1]=5: must be between 0 and T=4", (2,), [4, 5])
        lengths("n.npy: lengths[0]=-1: must be between 0 and T=4", (2,), [-1, 4])
        lengths("n.npy: shape (3,): must be (2,)", (3,), [1, 2, 3])
        lengths("n.npy: shape (0,): must be (2,)", (0,), [])
        lengths("n.npy: shape (2, 1): must have 1 dimension", (2, 1), [1, 2])
        lengths("n.npy: type float32: must be int32 or int64", (2,), [1.0, 2.0], "<f4")


class Schedules(cli.CliTest):
    def refuse(self, sentence, content, *arguments):
        self.write("s.json", content)
        for command in (["run", "--problem", "gru:i2h3"], ["dump", "gru:i2h3", "--stage", "plan"],
                        ["bench", "gru:i2h3"]):
            self.fails(sentence, *command, "--schedule", "s.json", *arguments)

    def test_refused(self):
        schedule = json.loads(self.ok("dump", "gru:i2h3", "--stage", "schedule"))

        def edited(**fields):
            return json.dumps({**schedule, **fields}).encode()

        self.refuse("s.json: ", b"{")
        self.refuse("s.json: ", b"")
        self.refuse("nosuch", edited(nosuch=1))
        self.refuse("isa", edited(isa="mmx"))
        self.refuse("threads", edited(threads=2))
        self.refuse("layers", edited(layers=schedule["layers"] * 2))
        self.refuse("tile_rows", edited(layers=[{**schedule["layers"][0], "tile_rows": 1000000}]))
        if schedule["isa"] != "interpreter":
            self.refuse("isa", edited(), "--isa", "interpreter")

    def test_no_file(self):
        self.fails("nowhere.json: cannot be read: No such file", "run", "--problem", "gru:i2h3",
                   "--schedule", "nowhere.json")
        self.write("s.json", b" " * (1 << 21))
        self.fails("s.json: has 2097152 bytes; must be at most 1048576", "run", "--problem",
                   "gru:i2h3", "--schedule", "s.json")


if __name__ == "__main__":
    cli.main()
