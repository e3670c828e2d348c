"""link-chips of 100 000 chips against making 100 000 symbolic links and nothing else.

    python -m benchmarks.link_chips WORK_FOLDER [--count 100000]
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chipping.chipset import FORMAT  # noqa: E402
from chipping.link_chips import link_chips  # noqa: E402


def make_source(folder, count):
    """Empty chips with a manifest, as a chip set has it."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.pt").touch()
    lines = (json.dumps({"file": f"{n}.pt", "i": n, "tile": "t", "cid": "c", "lat": 1.0, "window": [0, 0, 1, 1]}) for n in range(count))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    description = {"format": FORMAT, "kind": "pansharpen", "settings": {}, "settings_hash": "", "chip_size": 8, "bands": ["b"], "ratio": 4}
    (folder / "chipset.json").write_text(json.dumps(description))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    args = parser.parse_args(argv)
    work = args.folder / "link_chips"
    shutil.rmtree(work, ignore_errors=True)
    make_source(work / "a", args.count // 2)
    make_source(work / "b", args.count - args.count // 2)
    seconds = {"bare": [], "ours": []}
    for attempt in range(3):
        started = time.perf_counter()
        place = work / f"bare{attempt}"
        place.mkdir()
        for number in range(args.count):
            os.symlink(f"{work}/a/{number}.pt", f"{place}/{number}.pt")
        seconds["bare"].append(time.perf_counter() - started)
        started = time.perf_counter()
        link_chips([work / "a", work / "b"], work / f"ours{attempt}")
        seconds["ours"].append(time.perf_counter() - started)
    bare, ours = min(seconds["bare"]), min(seconds["ours"])
    print(f"{args.count} chips: bare links {bare:.2f} s, link-chips {ours:.2f} s, {ours / bare:.2f} x (promised: at most 3)")
    shutil.rmtree(work)


if __name__ == "__main__":
    main(sys.argv[1:])
