"""
How soon a program answers: `--help` and a wrong flag, as a person at the terminal feels it. Promised: under 0.3 s.

    python benchmarks/start_up.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, capture_output=True)
    return time.perf_counter() - start


def main():
    bare = statistics.median(seconds([sys.executable, "-c", "import argparse"]) for _ in range(7))
    print(f"{'python alone':<22}{bare:7.3f} s")
    for program in sorted(p.name for p in ROOT.glob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8")):
        for words in ("--help", "--no-such-flag"):
            median = statistics.median(seconds([sys.executable, program, words]) for _ in range(7))
            print(f"{program + ' ' + words:<40}{median:7.3f} s   {median / bare:4.1f} x python alone   {'ok' if median < 0.3 else 'SLOW'}")


if __name__ == "__main__":
    main()
