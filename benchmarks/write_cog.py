"""
How long a class map of 40 960 × 40 960 pixels takes to become a Cloud Optimized GeoTIFF, and how much memory.

    python benchmarks/write_cog.py                 # the figures to keep: at most 8 s, at most 600 MB beyond an idle process
    python benchmarks/write_cog.py --side 10240    # a sixteenth of the work
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

from raster.writer import write_cog  # noqa: E402

BAND = 192  # rows handed over at once, as inference.py does


def memory_mb(which):
    """VmRSS (now) or VmHWM (highest since the last reset) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def burns(side, seed=0):
    """(BAND · 16, side) uint8: blobs of burnt land, a fifth of the area, with ragged edges and small holes."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((BAND * 16 // 64 + 2, side // 64 + 2))
    smooth = np.kron(coarse, np.ones((64, 64), dtype=np.float32))[: BAND * 16, :side]
    fine = rng.random((BAND * 2 + 1, side // 8 + 1), dtype=np.float32) * 0.3
    smooth += np.kron(fine, np.ones((8, 8), dtype=np.float32))[: BAND * 16, :side]
    return (smooth > 1.0).astype(np.uint8)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_960)
    side = parser.parse_args(argv).side
    pattern = burns(side)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.tif"
        write(path, pattern, 1024)  # libraries are loaded and threads started: the idle process
        Path("/proc/self/clear_refs").write_text("5")  # begin to measure the highest anew
        idle = memory_mb("VmRSS")
        start, cpu = time.perf_counter(), time.process_time()
        write(path, pattern, side)
        seconds, busy = time.perf_counter() - start, time.process_time() - cpu
        size = path.stat().st_size / 2**20
    beyond = memory_mb("VmHWM") - idle
    print(f"{side} x {side} uint8: {seconds:.1f} s ({busy:.1f} CPU s), {beyond:.0f} MB beyond idle, file of {size:.0f} MB")


def write(path, pattern, side):
    place = {"crs": CRS.from_epsg(32633), "transform": from_origin(5e5, 5e6, 10, 10)}
    colours = {0: (0, 0, 0), 1: (230, 74, 25)}
    with write_cog(path, height=side, width=side, nodata=255, colours=colours, **place) as writer:
        for row in range(0, side, BAND):
            at = row % (len(pattern) - BAND + 1)
            writer.write(pattern[at : at + min(BAND, side - row), :side])


if __name__ == "__main__":
    main(sys.argv[1:])
