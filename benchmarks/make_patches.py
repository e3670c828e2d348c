"""
What cutting patches costs, beside what it can't do without: reading the rasters once in block order and writing the same bytes.

    python benchmarks/make_patches.py                    # three generated scenes: 7 bands of uint16, DEFLATE in tiles of 512, and masks
    python benchmarks/make_patches.py --side 4096 --bands 4 --scenes 8 --repeat 5

Prints CPU seconds of one worker and of the bound and their ratio, then wall seconds of one and two workers. CPU seconds hardly change
when others use the machine too; wall seconds do, so read the last lines on a quiet one. They come with what the machine itself gains when
two processes do the bound's work at the same time: no program can gain more.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def generate(folder, side, bands, block):
    """An image like land (smooth fields, fine noise) and a mask, both as such products are shipped."""
    import rasterio
    from rasterio.transform import from_origin

    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 10, 10), "width": side, "height": side, "tiled": True,
             "blockxsize": block, "blockysize": block, "compress": "deflate", "driver": "GTiff", "BIGTIFF": "IF_SAFER"}
    coarse = rng.integers(500, 3000, (bands, side // 64 + 1, side // 64 + 1))
    with rasterio.open(folder / "images/scene_0.tif", "w", count=bands, dtype="uint16", predictor=2, **place) as image:
        for row in range(0, side, block):
            tall = min(block, side - row)
            rows = (np.arange(row, row + tall) // 64)[:, None]
            fields = coarse[:, rows, (np.arange(side) // 64)[None]]
            noise = rng.integers(0, 60, fields.shape)
            image.write((fields + noise).astype("uint16"), window=((row, row + tall), (0, side)))
    with rasterio.open(folder / "masks/scene_0.tif", "w", count=1, dtype="uint8", **place) as mask:
        mask.write((np.kron(coarse[0] > 2000, np.ones((64, 64), bool))[:side, :side]).astype("uint8"), 1)


def bound(folder, patches, name="written"):
    """Read images and masks once in block order, and write the bytes of the patches: what nobody can avoid."""
    import rasterio

    for path in (*sorted(folder.glob("images/*.tif")), *sorted(folder.glob("masks/*.tif"))):
        with rasterio.open(path) as dataset:
            tall = dataset.block_shapes[0][0]
            for row in range(0, dataset.height, tall):
                dataset.read(window=((row, min(row + tall, dataset.height)), (0, dataset.width)))
    target = folder / name
    target.mkdir()
    buffers = {}
    for path in patches:
        size = path.stat().st_size
        if size not in buffers:
            buffers[size] = bytes(size)
        with open(target / path.name, "wb") as file:
            file.write(buffers[size])


def cut(folder, out, workers):
    command = [sys.executable, str(ROOT / "chip.py"), "make-patches", "--images", str(folder / "images"),
               "--masks", str(folder / "masks"),
               "--patches-dir", str(out), "--divide-by", "10000", "--quiet",
               "--workers", str(workers)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def bound_twice_at_once(folder, patches):
    """The bound's work by two processes side by side, each all of it."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=bound, args=(folder, patches, f"written_{i}")) for i in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()


def cpu_and_wall(work, *leftovers):
    """CPU and wall seconds of work(). leftovers: folders of the turn before; removing them is no part of the work."""
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()  # gigabytes of an earlier turn that the disk has yet to write would make this one wait

    def cpu():
        return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

    before, begin = cpu(), time.perf_counter()
    work()
    return cpu() - before, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="of a scene, in pixels")
    parser.add_argument("--scenes", type=int, default=3, help="of the same content")
    parser.add_argument("--bands", type=int, default=7)
    parser.add_argument("--block", type=int, default=512, help="of the raster's tiles, in pixels")
    parser.add_argument("--repeat", type=int, default=3, help="turns; of ratios the median counts")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        generate(folder, args.side, args.bands, args.block)
        for number in range(1, args.scenes):
            for kind in ("images", "masks"):
                os.link(folder / kind / "scene_0.tif", folder / kind / f"scene_{number}.tif")
        out = folder / "patches"
        cut(folder, out, 1)
        patches = sorted(out.rglob("*.npy"))
        megabytes = sum(p.stat().st_size for p in patches) / 1e6
        print(f"{args.scenes} scenes of {args.side}² pixels, {args.bands} bands: {len(patches) // 2} patches, {megabytes:.0f} MB")
        least, one, alone, pair, bound_alone, bound_pair = [], [], [], [], [], []
        for _ in range(args.repeat):  # in turns, so that a busy minute hits all of them
            seconds, wall = cpu_and_wall(lambda: bound(folder, patches), folder / "written")
            least.append(seconds), bound_alone.append(wall)
            bound_pair.append(cpu_and_wall(lambda: bound_twice_at_once(folder, patches), *(folder / f"written_{i}" for i in range(2)))[1])
            seconds, wall = cpu_and_wall(lambda: cut(folder, out, 1), out)
            one.append(seconds), alone.append(wall)
            pair.append(cpu_and_wall(lambda: cut(folder, out, 2), out)[1])
        turns = ", ".join(f"{a / b:.2f}" for a, b in zip(alone, pair, strict=True))
        print(f"CPU seconds: bound {min(least):.2f}, one worker {min(one):.2f}")
        ratio = statistics.median(a / b for a, b in zip(one, least, strict=True))
        print(f"one worker / bound: {ratio:.2f}, the median of {args.repeat} turns (at most 1.5)")
        gain = statistics.median(a / b for a, b in zip(alone, pair, strict=True))
        print(f"wall: one worker {min(alone):.2f} s, two {min(pair):.2f} s: {gain:.2f} times as fast, the median of {turns} "
              "(at least 1.6)")
        machine = statistics.median(2 * a / b for a, b in zip(bound_alone, bound_pair, strict=True))
        print(f"the bound's work by two processes at once: {machine:.2f} times as fast (what this machine has to give)")


if __name__ == "__main__":
    main()
