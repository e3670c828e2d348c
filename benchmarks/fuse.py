"""Sharpening a raster against the bare forward passes of its blocks; memory for twice the height.

    python -m benchmarks.fuse WORK_FOLDER [--side 2048]
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BLOCK = 512


def make_inputs(folder, width, height):
    """pan (height x width) and ms TIFFs of made-up ground."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    from benchmarks.fake_ard import make_ground

    paths = []
    for kind, ground, scale in zip(("pan", "ms"), make_ground(0, 256), (1, 4), strict=True):
        path = folder / f"{width}x{height}-{kind}.tif"
        rows, columns = height // scale, width // scale
        copies = (1, -(-rows // ground.shape[1]), -(-columns // ground.shape[2]))
        with rasterio.open(
            path, "w", driver="GTiff", count=len(ground), height=rows, width=columns, dtype="uint16", crs="EPSG:32637",
            transform=from_origin(400_000, 6_000_000, 0.5 * scale, 0.5 * scale), tiled=True, compress="deflate", predictor=2,
        ) as file:
            file.write(np.tile(ground, copies)[:, :rows, :columns])
        paths.append(path)
    return paths


def only(what, folder, width, height):
    """"fuse" writes the map, "forward" runs the same blocks from memory, "start" only loads everything; prints wall and CPU seconds."""
    from pansharpening.blocks import blocks_of, read_block, with_apron
    from pansharpening.fuse import FuseSettings, fuse
    from pansharpening.sharpeners import network_sharpener
    from raster.pair import PairReader, match_pair
    from runtime.checkpoint import load_checkpoint
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    pair = match_pair(folder / f"{width}x{height}-pan.tif", folder / f"{width}x{height}-ms.tif")
    sharpener = network_sharpener(load_checkpoint(ROOT / "weights" / "pansharpen-fake.pt", "pansharpen"))
    if what == "fuse":
        started = time.perf_counter(), time.process_time()
        fuse(pair, folder / "out.tif", sharpener, FuseSettings(scale=(10_000.0, 0.0), block=BLOCK), overwrite=True)
        print(time.perf_counter() - started[0], time.process_time() - started[1])
    elif what == "forward":
        with PairReader(pair) as reader:
            windows = [with_apron(core, pair, sharpener.reach // pair.ratio)[0] for core in blocks_of(pair.area, BLOCK // pair.ratio)]
            blocks = [read_block(reader, window, (10_000.0, 0.0)) for window in windows]
        started = time.perf_counter(), time.process_time()
        for ms, pan, _ in blocks:
            sharpener.run(ms, pan)
        print(time.perf_counter() - started[0], time.process_time() - started[1])


def measure(what, folder, width, height):
    """((wall, CPU) seconds it says it took, peak MB)."""
    code = f"from benchmarks.fuse import only; from pathlib import Path; only({what!r}, Path({str(folder)!r}), {width}, {height}); " \
           "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()], float(done.stderr.strip().splitlines()[-1])


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=2048, help="pan pixels")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    side = args.side
    for height in (side, 2 * side):
        make_inputs(args.folder, side, height)
    forward, _ = measure("forward", args.folder, side, side)
    fused, peak = measure("fuse", args.folder, side, side)
    _, taller = measure("fuse", args.folder, side, 2 * side)
    _, idle = measure("start", args.folder, side, side)
    print(f"{side} x {side}: fuse {fused[0]:.1f} s = {side * side / 1e6 / fused[0]:.2f} Mpx/s, forward passes {forward[0]:.1f} s, "
          f"{fused[0] / forward[0]:.2f} x (promised: at most 1.15); CPU seconds {fused[1]:.1f} and {forward[1]:.1f}")
    print(f"peak memory {peak:.0f} MB, twice the height {taller:.0f} MB, idle {idle:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
