"""make-chips against what bounds it: decoding the windows that it touches.

    python -m benchmarks.make_chips WORK_FOLDER [--count 64] [--ms-side 2418]

Makes an ARD of five tiles there (about 1 GB, once), then measures CPU seconds a chip of decoding the chips' windows alone and of
make-chips with one worker, and the wall time of one worker against two. Page cache warm. Float32 chips that keep Oklab, as the older tool
made them.

There are two floors. Windows decoded one after another, in the order in which they become chips, is what a program that works in that
order cannot go below. Windows decoded tile by tile and row by row share blocks in GDAL's cache, so that each is decoded once: no order
costs less. Two processes that decode these rows at the same time show what a second worker can gain on this machine at best.

From the wall times of one and of two workers their own start-up is taken: a program of as many workers that has its torch, its headers
and its workers, and nothing to do.
"""

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SIDE = 1024  # ms pixels of a window


def measure(what, folder, count, workers=1):
    """(CPU seconds, wall seconds, peak MB of the largest process) of one measurement in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    words = [sys.executable, "-m", "benchmarks.make_chips", str(folder), "--count", str(count), "--only", what, "--workers", str(workers)]
    with tempfile.TemporaryFile("w+") as told:  # a pipe would stay open as long as the process that workers are copied from
        subprocess.run(words, check=True, cwd=Path(__file__).resolve().parent.parent, stdout=told)
        wall = time.perf_counter() - started
        told.seek(0)
        peak = float(told.read().split()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, peak


def tiles_of(folder):
    from raster.ard import open_tiles, read_items

    return open_tiles(read_items(folder / "ard")[0], None, SIDE)[0]


def only(what, folder, count, workers):
    """One of the things that are measured: "start" (imports, headers, workers), "sequence" and "rows" (decoding), "chips"."""
    from runtime.workers import prepare_workers, worker_pool

    prepare_workers(["chipping.make_chips", "chipping.pan_chips"], workers)  # as chip.py does
    from chipping.chip_pool import WORKER_MODULES, one_thread
    from chipping.chip_window import ChipRecipe
    from chipping.chipset import RunOptions, read_manifest
    from chipping.make_chips import make_chips
    from constants import WORLDVIEW_BANDS
    from raster.pair import PairReader

    if workers == 1:
        import chipping.pan_chips  # noqa: F401  imports torch, which takes seconds: part of the start, with several workers of theirs

    tiles = tiles_of(folder)
    if what == "start":
        if workers > 1:
            with worker_pool(workers, WORKER_MODULES, one_thread) as pool:
                for future in [pool.submit(time.sleep, 0.05) for _ in range(workers)]:
                    future.result()
        return
    if what == "chips":
        recipe = ChipRecipe(512, 4, WORLDVIEW_BANDS, store="oklab", dtype="float32")
        make_chips(tiles, recipe, folder / "chips", count, options=RunOptions(workers))
        return
    lines = read_manifest(folder / "chips")
    by_name = {tile.name: tile for tile in tiles}
    if what == "rows":
        lines = sorted(lines, key=lambda line: (line["tile"], line["top"]))
    with contextlib.ExitStack() as stack:
        readers = {}
        for line in lines:
            if line["tile"] not in readers:
                if what == "rows":
                    stack.close()
                    readers = {}
                readers[line["tile"]] = stack.enter_context(PairReader(by_name[line["tile"]].pair))
            window = (line["left"], line["top"], SIDE, SIDE)
            readers[line["tile"]].read_ms(*window)
            readers[line["tile"]].read_pan(*window)


def two_at_once(folder, count):
    """Wall seconds of two processes that decode the same rows at the same time, each all of them."""
    words = [sys.executable, "-m", "benchmarks.make_chips", str(folder), "--count", str(count), "--only", "rows"]
    started = time.perf_counter()
    both = [subprocess.Popen(words, cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.DEVNULL) for _ in range(2)]
    if any(process.wait() for process in both):
        raise SystemExit("decoding failed")
    return time.perf_counter() - started


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--ms-side", type=int, default=2418)
    parser.add_argument("--repeat", type=int, default=3, help="turns; medians count")
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
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
    chips, floors, ones, twos, machine = [], {"sequence": [], "rows": []}, [], [], []
    walls = {1: [], 2: []}
    for _ in range(args.repeat):  # in turns, so that a busy minute hits all of them
        seconds = {}
        for workers in (2, 1):
            start, start_wall, idle = measure("start", args.folder, args.count, workers)
            shutil.rmtree(args.folder / "chips", ignore_errors=True)  # removing the last turn's chips is no part of making new ones
            seconds[workers], wall, peak = measure("chips", args.folder, args.count, workers)
            walls[workers].append(wall)
            (ones if workers == 1 else twos).append(wall - start_wall)
        chips.append(seconds[1] - start)
        for what, found in floors.items():
            cpu, wall, _ = measure(what, args.folder, args.count)
            found.append(cpu - start)
        machine.append(2 * (wall - start_wall) / (two_at_once(args.folder, args.count) - start_wall))
    each = {what: median(found) / args.count for what, found in floors.items()}
    print(f"{args.count} chips, medians of {args.repeat} turns")
    print(f"CPU seconds a chip: make-chips {median(chips) / args.count:.3f}, decoding the same windows one after another "
          f"{each['sequence']:.3f}, by rows of a tile {each['rows']:.3f}")
    ratio = {what: median([a / b for a, b in zip(chips, found, strict=True)]) for what, found in floors.items()}
    print(f"make-chips / decoding one after another: {ratio['sequence']:.2f} (promised: at most 1.5, and 0.22 CPU s a chip)")
    print(f"make-chips / decoding by rows of a tile, in the order that make-chips chose: {ratio['rows']:.2f}")
    print(f"peak memory {peak:.0f} MB, the same program idle {idle:.0f} MB: {peak - idle:.0f} MB beyond (promised: at most 400 a worker)")
    gains = [one / two for one, two in zip(ones, twos, strict=True)]
    print(f"wall without start-up: one worker {median(ones):.1f} s, two {median(twos):.1f} s: {median(gains):.2f} x (promised: 1.7); "
          f"turn by turn {', '.join(f'{gain:.2f}' for gain in gains)}")
    print(f"wall with start-up: one worker {median(walls[1]):.1f} s, two {median(walls[2]):.1f} s")
    print(f"decoding alone by two processes at once: {median(machine):.2f} x (what two cores of this machine have to give)")


if __name__ == "__main__":
    main(sys.argv[1:])
