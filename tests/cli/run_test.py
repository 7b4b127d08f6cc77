#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepcpu run: its answers, files and options."""

import ctypes
import os

import cli


class Answers(cli.CliTest):
    def model(self, weights):
        return self.write("m.safetensors", cli.safetensors_bytes(weights))

    def compare(self, step, problem, weights, layers, directions, shape, widths, lengths=None):
        """Runs the problem with states given and taken, and the reference beside it. `widths`: of
        h and, if there is one, c."""
        x = cli.numbers(cli.count(shape), 99)
        arguments = ["run", "--problem", problem, "--model", self.model(weights),
                     "--input", self.npy("x.npy", shape, x), "--output", "y.npy"]
        states = []
        for name, width in zip("hc", widths):
            state_shape = (layers * directions, shape[1], width)
            values = cli.numbers(cli.count(state_shape), ord(name))
            states.append(cli.nest(values, state_shape))
            arguments += [f"--{name}0", self.npy(f"{name}0.npy", state_shape, values),
                          f"--{name}n", f"{name}n.npy"]
        if lengths:
            arguments += ["--lengths", self.npy("lengths.npy", (len(lengths),), lengths, "<i4")]
        self.assertEqual(self.ok(*arguments), "")
        expected = cli.run_model(step, weights, cli.nest(x, shape), layers, directions, states,
                                 lengths)
        y_shape, y = cli.read_npy(self.folder / "y.npy")
        self.assertEqual(y_shape, (*shape[:2], widths[0] * directions))
        self.close(y, expected)
        for name, width, state in zip("hc", widths, states):
            n_shape, values = cli.read_npy(self.folder / f"{name}n.npy")
            self.assertEqual(n_shape, (layers * directions, shape[1], width))
            self.close(values, state)

    def test_lstm(self):
        self.compare(cli.lstm_step, "lstm:i5h7", cli.torch_weights(4, 5, 7), 1, 1, (6, 1, 5),
                     (7, 7))

    def test_lstm_stack_in_both_directions(self):
        weights = cli.torch_weights(4, 3, 5, layers=2, directions=2)
        self.compare(cli.lstm_step, "lstm:i3h5l2bi", weights, 2, 2, (4, 3, 3), (5, 5))

    def test_lstm_with_projection(self):
        weights = cli.torch_weights(4, 3, 6, layers=2, projection=2)
        self.compare(cli.lstm_step, "lstm:i3h6l2p2", weights, 2, 1, (5, 2, 3), (2, 6))

    def test_gru(self):
        self.compare(cli.gru_step, "gru:i4h17b2", cli.torch_weights(3, 4, 17), 1, 1, (70, 2, 4),
                     (17,))

    def test_lengths(self):
        weights = cli.torch_weights(3, 2, 3, layers=2, directions=2)
        self.compare(cli.gru_step, "gru:i2h3bil2", weights, 2, 2, (5, 4, 2), (3,), [2, 5, 0, 4])

    def test_further_input(self):
        """augru is GRU (reset=before) whose z is scaled by 1 - attention."""
        steps, rows, width, hidden = 5, 2, 3, 4
        weights = cli.torch_weights(3, width, hidden)
        x = cli.numbers(steps * rows * width, 1)
        attention = [abs(v) for v in cli.numbers(steps * rows, 2)]
        self.npy("x.npy", (steps, rows, width), x)
        self.npy("a.npy", (steps, rows, 1), attention)
        self.ok("run", "--problem", "augru:i3h4", "--model", self.model(weights), "--input",
                "x.npy", "--input", "attention=a.npy", "--output", "y.npy")

        def step(weights, suffix, x_and_attention, states):
            x, (h,) = x_and_attention[:-1], states
            a = [v + b for v, b in zip(cli.product(weights, "weight_ih" + suffix, x),
                                       weights["bias_ih" + suffix][1])]
            b = weights["bias_hh" + suffix][1]
            u = cli.product(weights, "weight_hh" + suffix, h)
            r = [cli.sigmoid(a[i] + b[i] + u[i]) for i in range(hidden)]
            z = [(1 - x_and_attention[-1]) * cli.sigmoid(a[i] + b[i] + u[i])
                 for i in range(hidden, 2 * hidden)]
            u = cli.product(weights, "weight_hh" + suffix, [r[i] * h[i] for i in range(hidden)])
            n = [cli.math.tanh(a[i] + b[i] + u[i]) for i in range(2 * hidden, 3 * hidden)]
            return [[n[i] + z[i] * (h[i] - n[i]) for i in range(hidden)]]

        both = [[x_row + [a_row[0]] for x_row, a_row in zip(x_step, a_step)] for x_step, a_step in
                zip(cli.nest(x, (steps, rows, width)), cli.nest(attention, (steps, rows, 1)))]
        states = [[[[0.0] * hidden for _ in range(rows)]]]
        expected = cli.run_model(step, weights, both, 1, 1, states)
        self.close(cli.read_npy(self.folder / "y.npy")[1], expected)


class Random(cli.CliTest):
    def y(self, *arguments, env=None, stderr=""):
        self.ok("run", *arguments, "--output", "y.npy", env=env, stderr=stderr)
        return (self.folder / "y.npy").read_bytes()

    def test_seed(self):
        problem = ("--problem", "lstm:i6h9b2t3")
        self.assertEqual(self.y(*problem), self.y(*problem, "--seed", 0))
        self.assertNotEqual(self.y(*problem), self.y(*problem, "--seed", 1))
        self.assertEqual(cli.read_npy(self.folder / "y.npy")[0], (3, 2, 9))

    def test_steps_and_batch_come_from_x(self):
        self.npy("x.npy", (3, 4, 2), cli.numbers(24, 1))
        self.y("--problem", "gru:i2h5t77", "--input", "x.npy")
        self.assertEqual(cli.read_npy(self.folder / "y.npy")[0], (3, 4, 5))

    def test_no_steps(self):
        self.npy("x.npy", (0, 2, 3), [])
        self.npy("h0.npy", (1, 2, 4), cli.numbers(8, 1))
        self.y("--problem", "gru:i3h4", "--input", "x.npy", "--h0", "h0.npy", "--hn", "hn.npy")
        self.assertEqual(cli.read_npy(self.folder / "y.npy"), ((0, 2, 4), []))
        self.assertEqual(cli.read_npy(self.folder / "hn.npy"), ((1, 2, 4), cli.numbers(8, 1)))

    def test_same_bits_on_every_isa_and_schedule(self):
        for problem in ("lstm:i20h33l2b3t9", "gru:i7h40bit5,reset=before", "augru:i5h6t4"):
            y = self.y("--problem", problem)
            for isa in ("interpreter", "avx2", "avx512"):
                self.assertEqual(self.y("--problem", problem, "--isa", isa), y, isa)
            note = self.call("run", "--problem", problem, env={"DEEPCPU_MAX_ISA": "interpreter"})
            self.assertIn("deepcpu: note: ", note.stderr)
            text = self.ok("dump", problem, "--stage", "schedule")
            self.assertIn('"hoist_block":', text)
            text = cli.json.loads(text)
            for layer in text["layers"]:
                layer.update(hoist_block=0, sweep="forward")
            self.write("s.json", cli.json.dumps(text).encode())
            self.assertEqual(self.y("--problem", problem, "--schedule", "s.json"), y)

    def test_threads_are_a_cap(self):
        y = self.y("--problem", "lstm:i16h128l2t9")
        for threads in (1, 2, 64):  # a note says when the machine has fewer
            self.assertEqual(self.y("--problem", "lstm:i16h128l2t9", "--threads", threads,
                                    stderr=None), y)

    def test_state_carries_on(self):
        x = cli.numbers(10 * 2 * 3, 1)
        self.npy("all.npy", (10, 2, 3), x)
        self.npy("head.npy", (4, 2, 3), x[:24])
        self.npy("tail.npy", (6, 2, 3), x[24:])
        problem = ("--problem", "lstm:i3h8l2")
        whole = self.y(*problem, "--input", "all.npy")
        head = self.y(*problem, "--input", "head.npy", "--final", "h=h.npy", "--final", "c=c.npy")
        tail = self.y(*problem, "--input", "x=tail.npy", "--state", "h=h.npy", "--c0", "c.npy")
        self.assertEqual(whole[128:], head[128:] + tail[128:])

    def test_states_of_different_widths(self):
        problem = ("--problem", "gru:i3h5/2/4b2t3")
        self.y(*problem, "--hn", "hn.npy")
        shape, values = cli.read_npy(self.folder / "hn.npy")
        self.assertEqual(shape, ((5 + 2 + 4) * 2,))
        _, y = cli.read_npy(self.folder / "y.npy")
        self.assertEqual(values[-8:], y[-8:])
        self.y(*problem, "--h0", "hn.npy")

    def test_int64_lengths(self):
        self.npy("n8.npy", (2,), [3, 1], "<i8")
        self.npy("n4.npy", (2,), [3, 1], "<i4")
        problem = ("--problem", "rnn:i3h4b2t4")
        y = self.y(*problem, "--lengths", "n8.npy")
        self.assertEqual(y, self.y(*problem, "--lengths", "n4.npy"))
        self.assertNotEqual(y, self.y(*problem))

    def test_without_a_file_to_write(self):
        done = self.call("run", "--problem", "lstm:i3h4t5")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stderr, "deepcpu: note: run: no file for y or a state is named, so "
                                      "none is written\n")

    def test_verbose(self):
        done = self.call("run", "--problem", "lstm:i3h4t5", "--output", "y.npy",
                         env={"DEEPCPU_VERBOSE": "1"})
        lines = done.stderr.splitlines()
        self.assertEqual(done.returncode, 0)
        self.assertRegex(lines[-1], r"^deepcpu,run,lstm:i3h4b1t5,\w+,1,none,5$")
        self.assertEqual(lines[0], "deepcpu,schedule,lstm:i3h4b1t5,estimate")
        for line in lines[1:-1]:
            self.assertRegex(line, r"^deepcpu,compile,lstm:i3h4b1t5,\w+,\d+,[\d.]+$")
        self.assertGreaterEqual(len(lines), 3)

    def test_without_executable_memory(self):
        """The kernel is told to refuse it: memory-deny-write-execute, Linux 6.3 and later."""
        libc = ctypes.CDLL(None, use_errno=True)
        set_mdwe, refuse_exec_gain = 65, 1

        def supported():
            pid = os.fork()
            if pid == 0:
                os._exit(0 if libc.prctl(set_mdwe, refuse_exec_gain, 0, 0, 0) == 0 else 1)
            return os.waitpid(pid, 0)[1] == 0

        if not supported():
            self.skipTest("this kernel cannot refuse executable memory")
        y = self.y("--problem", "lstm:i3h4t5")
        done = self.call("run", "--problem", "lstm:i3h4t5", "--output", "y2.npy",
                         preexec_fn=lambda: libc.prctl(set_mdwe, refuse_exec_gain, 0, 0, 0))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "y2.npy").read_bytes(), y)
        if "interpreter" not in self.ok("dump", "lstm:i3h4", "--stage", "schedule"):
            self.assertRegex(done.stderr, r"\Adeepcpu: note: executable memory: .*interpreter")


class Files(cli.CliTest):
    def test_replaces_a_file(self):
        self.write("y.npy", b"old")
        self.ok("run", "--problem", "rnn:i2h3t4", "--output", "y.npy")
        self.assertEqual(cli.read_npy(self.folder / "y.npy")[0], (4, 1, 3))
        self.assertEqual(os.listdir(self.folder), ["y.npy"])

    def test_follows_a_link(self):
        self.write("target.npy", b"old")
        os.symlink("target.npy", self.folder / "y.npy")
        self.ok("run", "--problem", "rnn:i2h3t4", "--output", "y.npy")
        self.assertTrue((self.folder / "y.npy").is_symlink())
        self.assertEqual(cli.read_npy(self.folder / "target.npy")[0], (4, 1, 3))

    def test_read_only_files_stay(self):
        self.write("y.npy", b"old")
        (self.folder / "y.npy").chmod(0o444)
        if os.access(self.folder / "y.npy", os.W_OK):
            self.skipTest("permissions do not count for this user")
        self.fails("y.npy: cannot be written: Permission denied", "run", "--problem", "rnn:i2h3t4",
                   "--output", "y.npy")
        self.assertEqual((self.folder / "y.npy").read_bytes(), b"old")

    def test_permissions_stay(self):
        self.write("y.npy", b"old")
        (self.folder / "y.npy").chmod(0o600)
        self.ok("run", "--problem", "rnn:i2h3t4", "--output", "y.npy")
        self.assertEqual((self.folder / "y.npy").stat().st_mode & 0o777, 0o600)

    def test_all_outputs_or_none(self):
        self.write("y.npy", b"old")
        self.fails("nowhere/h.npy: cannot be written: No such file or directory", "run",
                   "--problem", "rnn:i2h3t4", "--output", "y.npy", "--hn", "nowhere/h.npy")
        self.assertEqual((self.folder / "y.npy").read_bytes(), b"old")

    def test_places_that_are_no_files(self):
        (self.folder / "d").mkdir()
        self.fails("d: is not a regular file", "run", "--problem", "rnn:i2h3", "--output", "d")
        self.fails("/dev/null: is not a regular file", "run", "--problem", "rnn:i2h3", "--output",
                   "/dev/null")

    def test_input_may_be_the_output(self):
        self.npy("x.npy", (2, 1, 3), cli.numbers(6, 1))
        self.ok("run", "--problem", "rnn:i3h3", "--input", "x.npy", "--output", "x.npy")
        self.assertEqual(cli.read_npy(self.folder / "x.npy")[0], (2, 1, 3))


if __name__ == "__main__":
    cli.main()
