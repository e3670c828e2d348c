"""Runs our programs as a user would, for benchmarks of several of them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*words):
    """A program with its arguments, told before it starts."""
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, str(ROOT / words[0]), *map(str, words[1:])], check=True, cwd=ROOT)
