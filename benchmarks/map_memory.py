"""
Peak memory of a map of 40 000 rows against one of 4 000 rows of the same width; the goal is at most 10 % more.

    python benchmarks/map_memory.py                # a network that sees burns in blobs
    python benchmarks/map_memory.py --noise        # a prediction that is pure noise: every other pixel is an area of its own
    python benchmarks/map_memory.py --noise 0.7 --width 1500 --heights 2000 12000    # so much burns that it is one area with one outline

Each height runs in a process of its own. The network is a 1 x 1 convolution, so that the memory of the map is what is measured.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heights", type=int, nargs=2, default=(4_000, 40_000))
    parser.add_argument("--noise", type=float, nargs="?", const=0.5, metavar="SHARE", help="noise of which this share burns")
    parser.add_argument("--map", nargs=2, help=argparse.SUPPRESS)  # scene and folder: what the processes do
    args = parser.parse_args(argv)
    if args.map:
        print(peak_of_map(*args.map))
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for height in args.heights:
            scene = write_scene(Path(folder) / f"{height}.tif", height, args.width, args.noise)
            words = [sys.executable, __file__, "--map", str(scene), folder]
            start = time.perf_counter()
            peaks.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]))
            print(f"{height:6} rows of {args.width}: {peaks[-1]:.0f} MB at most, {time.perf_counter() - start:.0f} s")
    print(f"ratio {peaks[1] / peaks[0]:.3f}" + (f" on noise of which {args.noise:.0%} burns" if args.noise else ""))


def write_scene(path, height, width, noise):
    """One band of uint8: blobs, or noise in which a share of the pixels is bright."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    rng, rows = np.random.default_rng(0), 500
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", crs="EPSG:32633", tiled=True,
        transform=from_origin(5e5, 5e6, 10, 10), blockxsize=256, blockysize=256, compress="deflate",
    ) as dataset:
        for row in range(0, height, rows):
            count = min(rows, height - row)
            if noise:
                pixels = np.where(rng.random((count, width)) < noise, 192, 64)
            else:
                pixels = np.kron(rng.integers(0, 256, (count // 25 + 1, width // 25 + 1)), np.ones((25, 25)))[:count, :width]
            dataset.write(pixels.astype(np.uint8), 1, window=Window(0, row, width, count))
    return path


def peak_of_map(scene, folder):
    """Highest memory in MB of this process while it maps a scene."""
    import torch

    from mapping.inputs import plan_input
    from mapping.map_files import MapFiles
    from mapping.scene import map_scene
    from mapping.segmentation import Predictor
    from mapping.settings import MapSettings, ModelFacts
    from raster.source import describe
    from runtime.device import Compute

    model = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        model.weight[:] = torch.tensor([-20.0, 20.0]).view(2, 1, 1, 1)
        model.bias[:] = torch.tensor([10.0, -10.0])
    data = {"bands": ["band_1"], "divide_by": [255.0], "offset": [0.0], "nodata": None, "classes": ["background", "fire"]}
    plan = plan_input(describe(scene), data, mean=[0.5])
    predictor = Predictor(model, 2, plan.scale, Compute(device=torch.device("cpu")))
    facts = ModelFacts(bands=tuple(data["bands"]), classes=tuple(data["classes"]), weights="benchmark")
    map_scene(predictor, plan, MapFiles(folder, Path(scene).stem), facts, MapSettings())
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
