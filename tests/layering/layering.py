#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules that hold the sources together, by reading them.

    layering.py ROOT    prints one line per violation; exit status 1 if there is any

Rules:
  - includes follow include <- jit <- src <- {tools, tests, bench}; examples see include only;
  - Xbyak is included by jit/xbyak.hpp alone, and no file of src reaches it through other headers;
  - tests/oracle shares no code with src or jit;
  - no file outside src/cells names a built-in cell in its code (comments and problem strings may);
  - every source file starts with its licence and keeps to 500 lines of 100 columns;
  - the paths of the README's map exist, the README names two commands, .ci/run calls no other.
"""

import pathlib
import re
import sys

# Folder -> folders whose headers it may include ("deepcpu" stands for include/deepcpu).
ALLOWED = {
    "include": {"deepcpu"},
    "jit": {"deepcpu", "jit"},
    "src": {"deepcpu", "jit", "src"},
    "tools": {"deepcpu", "jit", "src", "tools"},
    "tests": {"deepcpu", "jit", "src", "tools", "tests"},
    "bench": {"deepcpu", "jit", "src", "bench"},
    "examples": {"deepcpu", "examples"},
}
ORACLE = {"deepcpu", "tests"}
XBYAK_DOOR = "jit/xbyak.hpp"
COMMANDS = {"tools/quickstart", "tools/check"}
LICENCE = "SPDX-License-Identifier: Apache-2.0"
CODE = {".hpp", ".cpp", ".h", ".c"}
OTHER = {".py", ".cmake", ".sh", ".in"}
MAX_LINES = 500
MAX_COLUMNS = 100

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:[^"\\\n]|\\.)*")', re.DOTALL)
CELL = re.compile(r"\b(lstm|gru|augru)\b", re.IGNORECASE)
LOCALE = re.compile(r"\b(strto[fd]|strtold|sto[fd]|stold|atof|s?scanf)\s*\(")
# A whole string that is a cell's name, as a comparison with it would be written.
CELL_STRING = re.compile(r'"(lstm|gru|augru|rnn)"')


def code_files(root):
    """Paths of all C++ and C sources, relative to root, sorted."""
    found = []
    for top in ALLOWED:
        found += [p for p in (root / top).rglob("*") if p.suffix in CODE and p.is_file()]
    return sorted(str(p.relative_to(root)) for p in found)


def includes_of(text):
    """(is_quoted, path) of every #include line."""
    return [(kind == '"', path) for kind, path in INCLUDE.findall(text)]


def layer_of(path):
    """The folder that an included path belongs to, None for the system's headers."""
    if path.startswith("deepcpu/"):
        return "deepcpu"
    top = path.split("/")[0]
    return top if top in ALLOWED and "/" in path else None


def is_xbyak(path):
    return "xbyak" in path.lower() and layer_of(path) is None


def check_includes(root, texts):
    for name, text in texts.items():
        allowed = ORACLE if name.startswith("tests/oracle/") else ALLOWED[name.split("/")[0]]
        consumer = name.startswith("tests/install/")
        for quoted, path in includes_of(text):
            layer = layer_of(path)
            if is_xbyak(path):
                if name != XBYAK_DOOR:
                    yield f"{name}: includes {path}; only {XBYAK_DOOR} may"
            elif layer is not None:
                if layer not in allowed:
                    yield f"{name}: includes {path}; allowed are {', '.join(sorted(allowed))}"
                if not quoted and not consumer:
                    yield f"{name}: includes <{path}>; our own headers stand in quotes"
                if not any((root / base / path).is_file() for base in ("", "include")):
                    yield f"{name}: includes {path}, which does not exist"
            elif quoted:
                yield f'{name}: includes "{path}"; paths start at the top of the project'


def check_xbyak_reach(texts):
    """No file of src reaches jit/xbyak.hpp, directly or through other headers."""
    graph = {}
    for name, text in texts.items():
        paths = [p for _, p in includes_of(text) if layer_of(p)]
        graph[name] = [f"include/{p}" if layer_of(p) == "deepcpu" else p for p in paths]
    for name in texts:
        if not name.startswith("src/"):
            continue
        seen, stack = set(), [name]
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack += graph.get(current, [])
        if XBYAK_DOOR in seen:
            yield f"{name}: reaches {XBYAK_DOOR} through its headers"


def check_cells(texts):
    """What lies below src/cells must not know which cells there are."""
    for name, text in texts.items():
        if not name.startswith(("src/", "jit/")) or name.startswith("src/cells/"):
            continue
        for number, line in enumerate(strip_comments(text).split("\n"), 1):
            without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
            hit = CELL.search(without_strings) or CELL_STRING.search(line)
            if hit and not line.lstrip().startswith("#"):
                yield f"{name}:{number}: names the cell {hit.group(1)}; only src/cells may"


def check_locale(texts):
    """Numbers in texts are read the same in every locale: std::from_chars does, these do not."""
    for name, text in texts.items():
        for number, line in enumerate(strip_comments(text).split("\n"), 1):
            hit = LOCALE.search(re.sub(r'"(?:[^"\\]|\\.)*"', "", line))
            if hit:
                yield f"{name}:{number}: {hit.group(1)} depends on the locale"


def strip_comments(text):
    """The text without comments; strings and line numbers stay."""
    return COMMENT.sub(lambda m: m.group(1) or "\n" * m.group(0).count("\n"), text)


def check_form(root, texts):
    others = [p for top in ALLOWED for p in (root / top).rglob("*")
              if p.suffix in OTHER and p.is_file() and "__pycache__" not in p.parts]
    all_texts = dict(texts)
    all_texts.update({str(p.relative_to(root)): p.read_text("utf-8") for p in others})
    for name, text in all_texts.items():
        lines = text.split("\n")
        if not any(LICENCE in line for line in lines[:2]):
            yield f"{name}: does not start with its licence ({LICENCE})"
        if len(lines) - 1 > MAX_LINES:
            yield f"{name}: {len(lines) - 1} lines; at most {MAX_LINES}"
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS and "--hash=" not in line:
                yield f"{name}:{number}: {len(line)} columns; at most {MAX_COLUMNS}"


def check_readme(root):
    readme = root / "README.md"
    if not readme.is_file():
        yield "README.md: does not exist"
        return
    text = readme.read_text("utf-8")
    section = re.search(r"^## Map\s*$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    paths = re.findall(r"`([^`\s]+)`", section.group(1)) if section else []
    if not paths:
        yield "README.md: no section '## Map' with paths in backticks"
    for path in paths:
        if not (root / path).exists():
            yield f"README.md: the map names {path}, which does not exist"
    prose = text.replace(section.group(0), "") if section else text
    called = set(re.findall(r"(?<![\w/.-])tools/[a-z_]+\b(?!/)", prose))
    for command in sorted(called ^ COMMANDS):
        what = "is not named" if command in COMMANDS else "is named besides the two commands"
        yield f"README.md: {command} {what}"
    for command in sorted(COMMANDS):
        if not (root / command).is_file():
            yield f"{command}: does not exist"
    script = (root / ".ci/run").read_text("utf-8")
    for command in sorted(set(re.findall(r"\b(?:tools|tests|bench|examples)/\w+", script))):
        if command not in called:
            yield f".ci/run: calls {command}, which README.md does not name"


def violations(root):
    texts = {name: (root / name).read_text("utf-8") for name in code_files(root)}
    yield from check_includes(root, texts)
    yield from check_xbyak_reach(texts)
    yield from check_cells(texts)
    yield from check_locale(texts)
    yield from check_form(root, texts)
    yield from check_readme(root)


def main(arguments):
    if len(arguments) != 2 or not (pathlib.Path(arguments[1]) / "include").is_dir():
        print("usage: layering.py ROOT", file=sys.stderr)
        return 2
    found = list(violations(pathlib.Path(arguments[1])))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
