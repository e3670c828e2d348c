"""
Finding objects in an image against the bare forward passes of its tiles; memory for ten times the height and width.

    python benchmarks/find_boxes.py                     # the default detector with random weights on 3000²
    python benchmarks/find_boxes.py --memory            # 4 000² and 40 000², with a detector that finds 20 boxes in each tile in no time

Each size runs in a process of its own. The goals are 1.10 x, and memory that does not grow.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

WINDOW, OVERLAP = 512, 128
CLASSES = ("cow", "sheep")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--sides", type=int, nargs=2, default=(4_000, 40_000))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)  # image and folder: what the processes do
    args = parser.parse_args(argv)

    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    if args.peak:
        print(peak_of(*args.peak))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not args.memory:
            compare(write_image(Path(folder) / "image.tif", args.side), folder)
            return
        peaks = []
        for side in args.sides:
            image = write_image(Path(folder) / f"{side}.tif", side)
            start = time.perf_counter()
            done = subprocess.run([sys.executable, __file__, "--peak", str(image), folder], check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout.split()[-1]))
            print(f"{side}²: {peaks[-1]:.0f} MB at most, {time.perf_counter() - start:.0f} s")
        print(f"ratio {peaks[1] / peaks[0]:.3f}")


def write_image(path, side):
    """Three bands of uint8 in tiles of 512; the same block of patches everywhere, so that writing takes little time."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    block = np.kron(np.random.default_rng(0).integers(1, 255, (3, 32, 32), np.uint8), np.ones((1, 16, 16), np.uint8))
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32633", tiled=True, compress="deflate",
        transform=from_origin(5e5, 5e6, 0.1, 0.1), blockxsize=512, blockysize=512, sparse_ok=True, bigtiff="IF_SAFER",
    ) as dataset:
        for row in range(0, side, 512):
            for column in range(0, side, 512):
                height, width = min(512, side - row), min(512, side - column)
                dataset.write(block[:, :height, :width], window=Window(column, row, width, height))
    return path


def run_of(detector, folder, device="cpu"):
    import torch

    from detection.image_map import FindSettings
    from detection.maps import FindRun
    from mapping.inputs import NO_FLAGS
    from runtime.device import Compute

    data = {"bands": ["red", "green", "blue"], "divide_by": [255.0] * 3, "offset": [0.0] * 3, "nodata": 0, "classes": list(CLASSES)}
    return FindRun(
        detector=detector, data=data, flags=NO_FLAGS,
        settings=FindSettings(window=(WINDOW,) * 2, stride=(WINDOW - OVERLAP,) * 2, score_threshold=0.3),
        compute=Compute(device=torch.device(device)), batch_size=8, output_dir=folder, overwrite=True, quiet=True,
    )


def find_in(run, image):
    from detection.image_map import find_in_image

    plan = run.plan(str(image))
    return find_in_image(run.finder(plan), plan, run.files(Path(image).stem), run.facts, run.settings, overwrite=True)


def compare(image, folder):
    """The whole against predict() of the same tiles from memory, alternating, medians of three."""
    import statistics

    import torch

    from detection import detectors
    from detection.image_map import tile_grid

    torch.manual_seed(0)
    run = run_of(detectors.build_detector(detectors.DetectorConfig(classes=CLASSES)).eval(), folder)
    plan = run.plan(str(image))
    grid, finder = tile_grid(plan.info, run.settings), run.finder(plan)
    images = torch.rand(8, 3, WINDOW, WINDOW)
    sizes = [min(8, len(grid.columns) - n) for _ in grid.rows for n in range(0, len(grid.columns), 8)]
    whole, bare = [], []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        record = find_in(run, image)
        whole.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        start = time.perf_counter(), time.process_time()
        for size in sizes:
            finder.find(images[:size])
        bare.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    whole, bare = ([statistics.median(column) for column in zip(*times, strict=True)] for times in (whole, bare))
    print(f"{grid.count} tiles, {sum(record['counts'].values())} boxes: {whole[0]:.1f} s, forward passes {bare[0]:.1f} s: "
          f"{whole[0] / bare[0]:.2f} x wall, {whole[1] / bare[1]:.2f} x CPU")


def peak_of(image, folder):
    """Highest memory in MB of this process while it finds the objects of an image."""
    import dataclasses

    import torch

    @dataclasses.dataclass(frozen=True)
    class Config:
        mean: tuple | None = None

    class Found(torch.nn.Module):
        """Twenty boxes somewhere in each tile."""

        config = Config()

        def predict(self, images, score_threshold, limit):
            from collections import namedtuple

            kind = namedtuple("Detections", "boxes scores labels masks full")
            corners = torch.rand(len(images), 20, 2) * (WINDOW - 40)
            boxes = torch.cat([corners, corners + 40], dim=2)
            return [kind(box, torch.rand(20), torch.randint(1, 3, (20,)), None, False) for box in boxes]

    torch.manual_seed(0)
    find_in(run_of(Found(), folder), image)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
