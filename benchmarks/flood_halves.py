"""
The flood recipe beside a threshold on MNDWI, trained on one half of a labelled flood chip and scored on the other.

    python -m benchmarks.flood_halves work --seeds 0 1 2                # 12 trainings of half a minute on one core
    python -m benchmarks.flood_halves work --seeds 0 1 2 --cutmix 0.5

Four splits: left to right, right to left, top to bottom, bottom to top. Nothing is chosen on the half that is scored: last epoch, most
likely class. The threshold is the one with the highest water IoU on the half that is trained on. Two halves of one chip are the same day
and place; how either does on another flood this does not say.
"""

import argparse
import json
import os
from pathlib import Path

from benchmarks.wildfire_crossval import ROOT, fire_iou, pooled_iou, run

RECIPE = ("--config", "flood")
HALVES = {"left": (0, 1, 0, 0.5), "right": (0, 1, 0.5, 1), "top": (0, 0.5, 0, 1), "bottom": (0.5, 1, 0, 1)}  # shares of rows, columns
SPLITS = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))


def write_half(source, target, half):
    """A part of a GeoTIFF as one of its own."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(source) as image:
        sides = image.height, image.height, image.width, image.width
        top, bottom, left, right = (round(share * side) for share, side in zip(HALVES[half], sides, strict=True))
        window = Window(left, top, right - left, bottom - top)
        profile = {**image.profile, "height": bottom - top, "width": right - left, "transform": image.window_transform(window)}
        target.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(target, "w", **profile) as part:
            part.write(image.read(window=window))
            part.descriptions = image.descriptions


def score(data, work, train, held_out, seed, cutmix):
    """({way: matrix}, threshold) of the held-out half; ways: network, mndwi."""
    folder = work / f"{train}-{held_out}"
    patches, output = folder / "patches", folder / f"cutmix{cutmix:g}-seed{seed}"
    if not (patches / "chipset.json").exists():
        places = set()
        for path in sorted((data / "floods").glob("*.tif")):
            place, _, ending = path.stem.rpartition("_")
            places.add(place)
            for half in (train, held_out):
                write_half(path, folder / "half" / f"{place}-{half}_{ending}.tif", half)
        run(1, "chip.py", "make-patches", *RECIPE, "--images", folder / "half" / "*_S2Hand.tif", "--masks",
            folder / "half" / "*_LabelHand.tif", "--val", ",".join(f"{place}-{held_out}" for place in sorted(places)),
            "--patches-dir", patches, "--allow-overlap", "--quiet")
    if not (output / "scores_val.json").exists():
        run(1, "train.py", "--patches-dir", patches, "--output-dir", output, *RECIPE, "--cutmix", cutmix, "--seed", seed,
            "--num-workers", "0", "--device", "cpu", "--save-every", "0", "--overwrite", "--quiet")
        run(1, "train.py", "--test-only", "--resume", output / "checkpoints" / "final_model.pt", "--test-split", "val",
            "--patches-dir", patches, "--output-dir", output, "--num-workers", "0", "--device", "cpu", "--quiet")
    scores = json.loads((output / "scores_val.json").read_text())
    matrices = {way: [result[key] for result in scores["results"]] for way, key in (("network", "matrix"), ("mndwi", "matrix_of_index"))}
    return {way: [[sum(m[t][p] for m in found) for p in range(2)] for t in range(2)] for way, found in matrices.items()}, \
        scores["mndwi_threshold"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("work", type=Path, help="folder for patches and networks")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with floods/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", type=int, default=len(SPLITS), help="how many of the four")
    parser.add_argument("--cutmix", type=float, default=0.0)
    args = parser.parse_args()
    names, found = [f"seed {seed}" for seed in args.seeds], {}
    print(f"| split | MNDWI (threshold) | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|", sep="\n")
    for train, held_out in SPLITS[: args.splits]:
        results = [score(args.data, args.work.resolve(), train, held_out, seed, args.cutmix) for seed in args.seeds]
        found[train] = [result["network"] for result, _ in results] + [results[0][0]["mndwi"]]
        ours = " | ".join(f"{fire_iou(matrix):.3f}" for matrix in found[train][:-1])
        print(f"| {train} to {held_out} | {fire_iou(found[train][-1]):.3f} ({results[0][1]:.3f}) | {ours} |", flush=True)
    *ours, index = (f"{pooled_iou(column):.3f}" for column in zip(*found.values(), strict=True))
    print(f"| **pooled** | {index} | {' | '.join(ours)} |")


if __name__ == "__main__":
    main()
