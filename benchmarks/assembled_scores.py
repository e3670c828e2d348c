"""
Scores of assembled models on three real fires that they never saw, beside those of the recipe.

    python -m benchmarks.assembled_scores WORK_FOLDER          # about a quarter of an hour on two cores

As in the README: patches of the fourteen fires without KENNETH; DOVE, CANAL and LIDIA are held out and choose nothing, since final_model.pt
and the most likely class are used.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.programs import ROOT, run

DATA = Path(os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data"))
UNET, PYRAMID = ("--decoder", "unet"), ("--neck", "tokens-to-maps,pyramid")
ASSEMBLED = (
    ("--encoder", "small", *UNET),
    ("--encoder", "tu-vit_tiny_patch16_224", "--encoder-args", "layers=1,3,5,7", *PYRAMID, *UNET, "--lr", "5e-4"),
    ("--encoder", "tu-tf_efficientnet_lite0", "--encoder-weights", "imagenet", *UNET, "--lr", "1e-3"),
)
# What is changed of the recipe. Each assembled model on the recipe's differences of bands, and on the bands themselves.
MODELS = ((), *ASSEMBLED, *((*flags, "--indices") for flags in ASSEMBLED))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args(argv)
    folder, fires = args.folder.resolve(), DATA / "wildfire"
    patches = folder / "patches"
    run("chip.py", "make-patches", "--config", "few-scenes", "--images", fires / "post_fire", "--masks", fires / "masks",
        "--patches-dir", patches, "--bands", "1,2,3,4,5", "--divide-by", "255,255,255,10000,10000", "--val", "DOVE,CANAL,LIDIA",
        "--exclude", "KENNETH")
    rows = []
    for number, flags in enumerate(MODELS):
        for seed in args.seeds:
            output = folder / f"model{number}-seed{seed}"
            common = ("--device", "cpu", "--num-workers", 0)
            run("train.py", "--config", "few-scenes", "--patches-dir", patches, "--output-dir", output, "--seed", seed, *common, *flags)
            run("train.py", "--test-only", "--resume", output, "--test-split", "val", *common)
            rows.append((" ".join(flags) or "the recipe itself", seed, json.loads((output / "scores_val.json").read_text())["scores"]))
    scenes = list(rows[0][2]["network"]["scenes"])
    print(f"| --config few-scenes with | seed | pooled fire IoU | {' | '.join(scenes)} |\n{'|---' * (3 + len(scenes))}|")
    for name, seed, scores in rows:
        print_row(name, seed, scores["network"])
    print_row("a threshold on the NBR", "", rows[0][2]["nbr"])


def print_row(name, seed, scores):
    """Pooled fire IoU, and that of each scene."""
    each = " | ".join(f"{one['fire_iou']:.2f}" for one in scores["scenes"].values())
    print(f"| {name} | {seed} | {scores['pooled']['fire_iou']:.3f} | {each} |")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
