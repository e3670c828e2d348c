"""make-chips against what bounds it: decoding the windows that it touches.

    python -m benchmarks.make_chips WORK_FOLDER [--count 64] [--ms-side 2418]

Makes an ARD of five tiles there (about 1 GB, once), then measures CPU seconds a chip of decoding the chips' windows alone and of
make-chips with one worker, and the wall time of one worker against two. Page cache warm. Float32 chips that keep Oklab, as the older tool
made them.

There are two floors. Windows decoded one after another, in the order in which they become chips, is what a program that works in that
order cannot go below. Windows decoded tile by tile and row by row share blocks in GDAL's cache: that order is make-chips' own doing, and
its figure holds nothing but decoding, so no program that also checks, shrinks, colours and writes comes near it.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SIDE = 1024  # ms pixels of a window


def measure(what, folder, count, workers=1):
    """(CPU seconds, wall seconds, peak MB of the largest process) of one measurement in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    words = [sys.executable, "-m", "benchmarks.make_chips", str(folder), "--count", str(count), "--only", what, "--workers", str(workers)]
    done = subprocess.run(words, check=True, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - started, float(done.stdout.split()[-1])


def tiles_of(folder):
    from chipping.ard import open_tiles, read_items

    return open_tiles(read_items(folder / "ard")[0], None, SIDE)[0]


def only(what, folder, count, workers):
    """One of the things that are measured: "start" (imports and headers), "sequence" and "rows" (decoding), "chips"."""
    from runtime.early import prepare_workers

    prepare_workers("chipping.make_chips", workers)  # as chip.py does
    from chipping.chipset import read_manifest
    from chipping.make_chips import ChipRecipe, make_chips
    from constants import WORLDVIEW_BANDS
    from raster.pair import PairReader

    tiles = tiles_of(folder)
    if what == "start":
        return
    if what == "chips":
        recipe = ChipRecipe(512, 4, WORLDVIEW_BANDS, store="oklab", dtype="float32")
        make_chips(tiles, recipe, folder / "chips", count, workers=workers, overwrite=True)
        return
    lines = read_manifest(folder / "chips")
    by_name = {tile.name: tile for tile in tiles}
    if what == "rows":
        lines = sorted(lines, key=lambda line: (line["tile"], line["top"]))
    readers = {}
    for line in lines:
        if line["tile"] not in readers:
            if what == "rows":
                for reader in readers.values():
                    reader.__exit__()
                readers = {}
            readers[line["tile"]] = PairReader(by_name[line["tile"]].pair).__enter__()
        window = (line["left"], line["top"], SIDE, SIDE)
        readers[line["tile"]].read_ms(*window)
        readers[line["tile"]].read_pan(*window)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--ms-side", type=int, default=2418)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as chip.py does
    if args.only:
        only(args.only, args.folder, args.count, args.workers)
        print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024)
        return
    if not (args.folder / "ard").exists():
        from benchmarks.fake_ard import make_fake_ard

        make_fake_ard(args.folder / "ard", ms_side=args.ms_side)
    chips, wall, peak = measure("chips", args.folder, args.count)
    start, start_wall, idle = measure("start", args.folder, args.count)
    found = {what: measure(what, args.folder, args.count)[0] - start for what in ("sequence", "rows")}
    chips -= start
    print(f"{args.count} chips, CPU seconds a chip: make-chips {chips / args.count:.3f}, decoding the same windows one after another "
          f"{found['sequence'] / args.count:.3f}, by rows of a tile {found['rows'] / args.count:.3f}")  # fmt: skip
    print(f"make-chips / decoding one after another: {chips / found['sequence']:.2f} (promised: at most 1.5, and 0.22 CPU s a chip)")
    print(f"make-chips / decoding by rows of a tile, in the order that make-chips chose: {chips / found['rows']:.2f}")
    print(f"peak memory {peak:.0f} MB, the same program idle {idle:.0f} MB: {peak - idle:.0f} MB beyond (promised: at most 400 a worker)")
    two = measure("chips", args.folder, args.count, 2)[1]
    one, two = wall - start_wall, two - start_wall
    print(f"wall without start-up: one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} x (promised: 1.7 on two free cores)")


if __name__ == "__main__":
    main(sys.argv[1:])
