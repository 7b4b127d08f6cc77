#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests layering.py on small trees: a clean one, and one per rule with that rule broken."""

import pathlib
import tempfile
import unittest

import layering

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
CLEAN = {
    "include/deepcpu/a.hpp": SPDX + "#include <vector>\n",
    "jit/xbyak.hpp": SPDX + "#include <xbyak/xbyak.h>\n",
    "jit/emit.cpp": SPDX + '#include "jit/xbyak.hpp"\n#include "deepcpu/a.hpp"\n',
    "jit/plan.hpp": SPDX + '#include "deepcpu/a.hpp"\n',
    "src/lower/lower.cpp": SPDX + '#include "jit/plan.hpp"\n// the lstm\nint f("lstm:i4h4");\n',
    "src/cells/lstm.cpp": SPDX + "void lstm();\n",
    "tests/oracle/o.cpp": SPDX + '#include "deepcpu/a.hpp"\n',
    "tests/unit/u.cpp": SPDX + '#include "src/lower/lower.cpp"\n',
    "tools/quickstart": "#\n",
    "tools/check": "#\n",
    ".ci/run": "exec tools/check\n",
    "README.md": "Run `tools/quickstart`, then `tools/check`.\n\n## Map\n`src/lower` lowers.\n",
}


class Layering(unittest.TestCase):
    def run_on(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {**CLEAN, **changes}.items():
                if text is not None:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_text(text, "utf-8")
            return list(layering.violations(root))

    def expect(self, changes, sentence):
        found = self.run_on(changes)
        self.assertTrue(any(sentence in line for line in found), f"{sentence!r} not in {found}")

    def test_clean_tree(self):
        self.assertEqual(self.run_on({}), [])

    def test_upward_includes(self):
        above = '#include "src/lower/lower.cpp"\n'
        for name in ("include/deepcpu/b.hpp", "jit/b.cpp", "tests/oracle/b.cpp", "examples/b.cpp"):
            self.expect({name: SPDX + above}, f"{name}: includes src/lower/lower.cpp")
        self.expect({"src/b.cpp": SPDX + '#include "tests/unit/u.cpp"\n'}, "src/b.cpp: includes")

    def test_xbyak_has_one_door(self):
        for name in ("jit/b.cpp", "src/b.cpp", "tests/jit/b.cpp"):
            self.expect({name: SPDX + "#include <xbyak/xbyak_util.h>\n"}, "only jit/xbyak.hpp may")

    def test_src_does_not_reach_xbyak(self):
        changes = {"jit/b.hpp": SPDX + '#include "jit/xbyak.hpp"\n',
                   "src/b.cpp": SPDX + '#include "jit/b.hpp"\n'}
        self.expect(changes, "src/b.cpp: reaches jit/xbyak.hpp")

    def test_include_paths(self):
        self.expect({"src/b.cpp": SPDX + '#include "lower.hpp"\n'}, "paths start at the top")
        self.expect({"src/b.cpp": SPDX + '#include "jit/none.hpp"\n'}, "which does not exist")
        self.expect({"src/b.cpp": SPDX + "#include <deepcpu/a.hpp>\n"}, "stand in quotes")

    def test_cells_are_not_named(self):
        self.expect({"src/b.cpp": SPDX + "bool is_lstm;\nint lstm = 1;\n"}, "src/b.cpp:3: names")
        self.expect({"jit/b.cpp": SPDX + 'if (name == "gru") f();\n'}, "names the cell gru")

    def test_locale(self):
        self.expect({"src/b.cpp": SPDX + "\nfloat f = std::strtof(text, nullptr);\n"},
                    "src/b.cpp:3: strtof depends on the locale")
        self.assertEqual(self.run_on({"src/b.cpp": SPDX + 'f("not strtof(x)");  // nor stod(x)\n'}),
                         [])

    def test_form(self):
        self.expect({"src/b.cpp": "int a;\n"}, "does not start with its licence")
        self.expect({"src/b.cpp": SPDX + "\n" * 500}, "501 lines")
        self.expect({"src/b.cpp": SPDX + "/" * 101 + "\n"}, "src/b.cpp:2: 101 columns")

    def test_readme(self):
        self.expect({"README.md": None}, "README.md: does not exist")
        one, both = "`tools/check`\n", "`tools/quickstart` `tools/check`\n"
        self.expect({"README.md": one + "## Map\n`src`\n"}, "tools/quickstart is not named")
        self.expect({"README.md": both}, "no section '## Map'")
        self.expect({"README.md": both + "## Map\n`lib`\n"}, "the map names lib")
        self.expect({"README.md": both + "`tools/setup`\n## Map\n`src`\n"}, "tools/setup is named")
        self.expect({".ci/run": "tools/setup\n"}, ".ci/run: calls tools/setup")


if __name__ == "__main__":
    unittest.main()
