# SPDX-License-Identifier: Apache-2.0
"""The Python environment of bench/compare: build/venv-bench with peers/requirements.txt."""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
VENV = os.path.join(ROOT, "build", "venv-bench")
REQUIREMENTS = os.path.join(BENCH, "peers", "requirements.txt")


def sections(text):
    """{peer: its requirements}; a section starts with a line `# peer NAME` or `# program NAME`."""
    parts = re.split(r"^# (?:peer|program) (\w+).*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def peers():
    """Those that have requirements."""
    with open(REQUIREMENTS) as file:
        return re.findall(r"^# peer (\w+)", file.read(), flags=re.MULTILINE)


def stamp_path(name):
    return os.path.join(VENV, f"stamp-{name}")


def is_installed(name, requirements):
    try:
        with open(stamp_path(name)) as file:
            return file.read() == hashlib.sha256(requirements.encode()).hexdigest()
    except OSError:
        return False


def install(name, requirements):
    """Installs one section and says so; returns whether that worked."""
    print(f"installing {name} into build/venv-bench", file=sys.stderr)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        done = subprocess.run(
            [os.path.join(VENV, "bin", "python"), "-m", "pip", "install", "--quiet",
             "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--only-binary", ":all:", "-r", file.name],
            stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        with open(stamp_path(name), "w") as file:
            file.write(hashlib.sha256(requirements.encode()).hexdigest())
        return True
    print(f"pip could not install {name}:\n{done.stderr}", file=sys.stderr)
    return False


def prepare(only=None):
    """Makes the environment complete as far as it can be, or only the sections named; an error only
    if its base fails."""
    with open(REQUIREMENTS) as file:
        wanted = sections(file.read())
    if only is not None:
        wanted = {name: wanted[name] for name in only}
    if not os.path.exists(os.path.join(VENV, "bin", "python")):
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    failed = [name for name, text in wanted.items()
              if not is_installed(name, text) and not install(name, text)]
    if "base" in failed:
        sys.exit("the benchmarks cannot go on without numpy")


def enter(only=None):
    """Goes on in the environment's own interpreter, with all peers or only the sections named."""
    if os.path.realpath(sys.prefix) == os.path.realpath(VENV):
        return
    prepare(only)
    python = os.path.join(VENV, "bin", "python")
    os.execv(python, [python, *sys.argv])
