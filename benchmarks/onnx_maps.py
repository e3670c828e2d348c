"""
Maps by a checkpoint beside those by its .onnx: how many pixels, values or boxes differ.

    python benchmarks/onnx_maps.py output/checkpoints/best_model.pt post_fire/DOVE_20241019.tif
    python benchmarks/onnx_maps.py weights/pansharpen-fake.pt --pan worldview2-pan.tif --ms worldview2-ms.tif --divide-by 10000
    python benchmarks/onnx_maps.py detector/checkpoints/best_model.pt images/

Further words are flags of inference.py. export.py prints the parity of windows, then each output of the two runs gets a line.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.programs import run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    args, words = parser.parse_known_args()
    checkpoint = absolute(args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run("export.py", checkpoint, "--onnx", folder / "network.onnx")
        for name, network in (("torch", checkpoint), ("onnx", folder / "network.onnx")):
            run("inference.py", "--checkpoint", network, *map(absolute, words), "--device", "cpu", "--output-dir", folder / name)
        compared = [line for path in sorted((folder / "torch").iterdir()) for line in compare(path, folder / "onnx" / path.name)]
    print("\n".join(compared))


def absolute(word):
    """The programs run in the repository's folder: paths that exist here stay what they are."""
    return Path(word).resolve() if not word.startswith("-") and Path(word).exists() else word


def compare(path, other):
    """Lines about what two runs have made of one scene, or of all images."""
    if path.suffix == ".tif":
        yield f"{path.name}: {rasters(path, other)}"
    elif path.name == "results.json":
        yield f"{path.name}: {boxes(json.loads(path.read_text()), json.loads(other.read_text()))}"


def rasters(path, other):
    """`0 of 72,000 values differ`, and by how much at most."""
    import numpy as np
    import rasterio

    with rasterio.open(path) as one, rasterio.open(other) as two:
        first, second = one.read(), two.read()
    both_unknown = (first != first) & (second != second)
    differs = (first != second) & ~both_unknown
    furthest = np.abs(first.astype(np.float64) - second)[differs].max(initial=0)
    return f"{np.count_nonzero(differs):,} of {first.size:,} values differ{f', by {furthest:g} at most' if furthest else ''}"


def boxes(found, other):
    """`279 boxes and 279; corners differ by 0.01 pixels at most, scores by 1e-06`, in the order of their scores."""
    words = f"{len(found)} boxes and {len(other)}"
    if len(found) != len(other) or not found:
        return words
    by_place = sorted(found, key=place), sorted(other, key=place)
    pairs = list(zip(*by_place, strict=True))
    corners = max(abs(a - b) for one, two in pairs for a, b in zip(one["bbox"], two["bbox"], strict=True))
    scores = max(abs(one["score"] - two["score"]) for one, two in pairs)
    labels = sum(one["category_id"] != two["category_id"] for one, two in pairs)
    return f"{words}; sides and corners differ by {corners:g} pixels at most, scores by {scores:g}, classes of {labels}"


def place(box):
    """Image and place: two boxes of nearly the same score may stand in another order."""
    return box["image_id"], [round(number) for number in box["bbox"]], box["score"]


if __name__ == "__main__":
    main()
