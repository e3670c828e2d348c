"""
What a tensor warehouse costs, beside what it can't do without, and how fast it is read.

    python benchmarks/warehouse.py                            # 400 frames of 640×360 on 2 workers, 4000 samples read
    python benchmarks/warehouse.py --frames 1000 --size 1280x720

Prints the seconds of decoding and resizing the same frames, those of chip.py make-warehouse, and their ratio: CPU seconds in one process,
then wall seconds with --workers processes, which both sides start within the time. Then samples a second from the store to torch tensors,
in random order from the page cache. Each figure is the best of --repeat, the two sides in turn. CPU seconds hardly change when others use
the machine too; wall seconds do.
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TARGET = (384, 384)


def bare(paths):
    """Decode frames and resize them: what nobody can avoid. The pixels go nowhere. → their number."""
    from PIL import Image

    count = 0
    for path in paths:
        with Image.open(path) as image:
            image = image.convert("RGB")
            scale = min(TARGET[0] / image.width, TARGET[1] / image.height)
            count += np.asarray(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)).size
    return count


def seconds_of(work):
    """(CPU seconds of this process, wall seconds) of work()."""
    before, start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - before, time.perf_counter() - start


def compare_making(folder, workers, repeat):
    """((CPU, wall) seconds of bare decode and resize, those of make-warehouse), the best of `repeat` each."""
    import chip

    paths = sorted((folder / "captures").glob("*/images/*.png"))
    parts = [paths[k : k + 32] for k in range(0, len(paths), 32)]

    def bound():
        if workers == 1:
            assert sum(map(bare, parts))
            return
        with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
            assert sum(pool.map(bare, parts))

    def clear():
        shutil.rmtree(folder / "art", ignore_errors=True)

    def build():
        with contextlib.redirect_stdout(io.StringIO()):
            chip.main(["make-warehouse", "--runs", str(folder / "captures"), "--output-root", str(folder / "art"), "--workers",
                       str(workers), "--quiet"])

    times = [(clear(), seconds_of(bound), seconds_of(build))[1:] for _ in range(repeat)]
    return [tuple(min(pair[side][number] for pair in times) for number in (0, 1)) for side in (0, 1)]


def read_rate(folder, count, batch):
    """Samples a second, as tensors of `batch` samples in random order."""
    import torch

    from chipping.warehouse import open_warehouse

    warehouse = open_warehouse(folder / "art")
    warehouse.read(range(len(warehouse)))  # into the page cache
    order = np.random.default_rng(0).integers(0, len(warehouse), count)
    start = time.perf_counter()
    for first in range(0, count, batch):
        found = warehouse.read(order[first : first + batch])
        assert {key: torch.from_numpy(array) for key, array in found.items()}["images"].shape[1:] == (3, TARGET[1], TARGET[0])
    return count / (time.perf_counter() - start)


def main():
    from runtime.values import size

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--size", type=size, default="640x360")
    parser.add_argument("--samples", type=int, default=4000, help="that are read")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from synthetic.captures import CaptureRecipe, make_captures

    with tempfile.TemporaryDirectory() as scratch:
        folder, runs = Path(scratch), 4
        make_captures(folder / "captures", runs, CaptureRecipe(size=args.size, frames=args.frames // runs))
        print(f"{args.frames} frames of {args.size[0]}×{args.size[1]}")
        for number, kind, workers in ((0, "CPU", 1), (1, "wall", args.workers)):
            one, other = (found[number] for found in compare_making(folder, workers, args.repeat))
            print(f"{kind} seconds, {workers} processes: decode and resize {one:.2f}, make-warehouse {other:.2f} "
                  f"({args.frames / other:.0f} frames/s), ratio {other / one:.2f}")
        rates = [read_rate(folder, args.samples, args.batch_size) for _ in range(args.repeat)]
        print(f"store to tensor, {TARGET[0]}² uint8, batch {args.batch_size}: {max(rates):.0f} samples/s, "
              f"{max(rates) / 3000:.2f} of the 3000 that are wanted")


if __name__ == "__main__":
    main()
