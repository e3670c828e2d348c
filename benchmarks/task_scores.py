"""
Values and labels learned from real imagery, beside what needs no network, with the very commands a user types.

    python benchmarks/task_scores.py values --data ../shared/data      # NDVI of a Sentinel-2 chip from its blue, green and red
    python benchmarks/task_scores.py labels --data ../shared/data      # of which of six sources a picture of 96 x 96 pixels is

values: the left half of the flood chip trains, the right half judges. labels: whole pictures of a source train or judge; of a source with
one picture the left half trains and the right half judges. The last epoch's weights are scored: nothing is chosen on what judges.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

ROOT = Path(__file__).resolve().parent.parent
SIDE, MOST = 96, 12  # pixels of a picture; pictures taken from one image


def run(*words):
    command = [str(word) for word in words]
    print("$ python", " ".join(command), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def halves(path):
    """[(name, window)] of the left and the right half of a raster."""
    with rasterio.open(path) as dataset:
        half = dataset.width // 2
        return [("left", Window(0, 0, half, dataset.height)), ("right", Window(half, 0, half, dataset.height))]


def write(path, array, like, window, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": like.crs, "transform": like.window_transform(window)} if like.crs else {}
    with rasterio.open(path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype, **place,
                       **{k: v for k, v in how.items() if k != "names"}) as dataset:
        dataset.write(array)
        if "names" in how:
            dataset.descriptions = how["names"]


def values(data, scratch):
    chip = next((data / "floods").glob("*_S2Hand.tif"))
    for name, window in halves(chip):
        with rasterio.open(chip) as source:
            visible, (red, nir) = source.read([2, 3, 4], window=window), source.read([4, 8], window=window).astype(np.float32)
            valid = (red > 0) & (nir > 0)
            ndvi = np.where(valid, (nir - red) / np.maximum(nir + red, 1), -9999).astype(np.float32)
            write(scratch / "visible" / f"{name}.tif", visible, source, window, nodata=0, names=("B02", "B03", "B04"))
            write(scratch / "ndvi" / f"{name}.tif", ndvi[None], source, window, nodata=-9999)
    run("chip.py", "make-patches", "--task", "regression", "--target", "ndvi", "--images", scratch / "visible", "--masks", scratch / "ndvi",
        "--divide-by", 10000, "--patch-size", 64, "--stride", 32, "--val", "right", "--patches-dir", scratch / "patches", "--quiet")
    train(scratch, "regression", "--loss", "huber", "--architecture", "contrastunet", "--indices", "pairs", "--epochs", 40, "--lr", "2e-3")


def sources(data):
    """{class: ([images to train on], [those that judge], factor to 0..255)}; one image stands in both lists, by its halves."""
    fires, polyps = sorted((data / "wildfire" / "post_fire").glob("*.tif")), sorted((data / "polyps" / "images").glob("*.png"))
    trees, animals = sorted(data.glob("trees/*.png")) + sorted(data.glob("trees/*.tif")), sorted(data.glob("livestock/*.jpg"))
    flood, landsat = next((data / "floods").glob("*_S2Hand.tif")), next((data / "large").glob("*.[tT][iI][fF]*"))
    return {
        "fire": (fires[:10], fires[10:], [1, 2, 3], 1.0), "polyp": (polyps[:10], polyps[10:], [1, 2, 3], 1.0),
        "trees": (trees[:2], trees[2:], [1, 2, 3], 1.0), "livestock": (animals[:1], animals[1:], [1, 2, 3], 1.0),
        "flood": ([flood], [flood], [4, 3, 2], 255 / 3000), "landsat": ([landsat], [landsat], [3, 2, 1], 255 / 20000),
    }


def pictures(path, part):
    """Windows of SIDE pixels, MOST at most, spread over an image; part: "left" or "right" of it, or None."""
    with rasterio.open(path) as dataset:
        first, last = {"left": (0, dataset.width // 2), "right": (dataset.width // 2, dataset.width)}.get(part, (0, dataset.width))
        grid = [Window(x, y, SIDE, SIDE) for y in range(0, dataset.height - SIDE + 1, SIDE) for x in range(first, last - SIDE + 1, SIDE)]
    return [grid[k * len(grid) // min(MOST, len(grid))] for k in range(min(MOST, len(grid)))]


def labels(data, scratch):
    for kind, (train_on, judged, bands, factor) in sources(data).items():
        alone = train_on == judged
        for split, paths in (("train", train_on), ("val", judged)):
            for path in paths:
                for number, window in enumerate(pictures(path, {"train": "left", "val": "right"}[split] if alone else None)):
                    with rasterio.open(path) as source:
                        picture = np.clip(np.nan_to_num(source.read(bands, window=window) * factor), 0, 255).astype(np.uint8)
                    if picture.any(axis=0).mean() > 0.9:
                        with rasterio.open(path) as source:
                            write(scratch / "scenes" / kind / f"{split}_{kind}-{path.stem[:12]}-{number}.tif", picture, source, window,
                                  names=("red", "green", "blue"))
    run("chip.py", "make-patches", "--task", "classification", "--images", scratch / "scenes" / "*" / "*.tif", "--divide-by", 255,
        "--patch-size", SIDE, "--val", "val", "--allow-overlap", "--accept-scale", "--patches-dir", scratch / "patches", "--quiet")
    train(scratch, "classification", "--encoder", "resnet18", "--encoder-weights", "none", "--decoder", "identity", "--epochs", 12,
          "--lr", "1e-3", "--batch-size", 32)


def train(scratch, task, *flags):
    run("train.py", "--patches-dir", scratch / "patches", "--task", task, "--output-dir", scratch / "run", "--scheduler", "cosine",
        "--batch-size", 16, "--patience", 0, "--num-workers", 0, "--quiet", *flags)
    run("train.py", "--test-only", "--resume", scratch / "run", "--patches-dir", scratch / "patches", "--test-split", "val", "--quiet")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("values", "labels"))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real imagery")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        {"values": values, "labels": labels}[args.what](args.data.resolve(), Path(scratch))


if __name__ == "__main__":
    main()
