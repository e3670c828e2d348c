"""
Scores of assembled models on three real fires that they never saw, beside those of the recipe.

    python -m benchmarks.assembled_scores WORK_FOLDER          # about ten minutes on two cores

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
UNET = ("--decoder", "unet")
MODELS = {
    "recipe few-scenes (contrastunet)": (),
    "EfficientNet-Lite0 (ImageNet) + unet": ("--encoder", "tu-tf_efficientnet_lite0", "--encoder-weights", "imagenet", *UNET, "--lr", 1e-3),
    "small + unet": ("--encoder", "small", *UNET),
    "ViT tiny (random) + tokens-to-maps, pyramid + unet": (
        "--encoder", "tu-vit_tiny_patch16_224", "--encoder-args", "layers=1,3,5,7", "--neck", "tokens-to-maps,pyramid", *UNET,
        "--lr", 5e-4),
}


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
    for number, (name, flags) in enumerate(MODELS.items()):
        for seed in args.seeds:
            output = folder / f"model{number}-seed{seed}"
            common = ("--device", "cpu", "--num-workers", 0)
            run("train.py", "--config", "few-scenes", "--patches-dir", patches, "--output-dir", output, "--seed", seed, *common, *flags)
            run("train.py", "--test-only", "--resume", output, "--test-split", "val", *common)
            rows.append((name, seed, json.loads((output / "scores_val.json").read_text())["scores"]))
    print("| model | seed | pooled fire IoU | threshold on the NBR |\n|---|---|---|---|")
    for name, seed, scores in rows:
        print(f"| {name} | {seed} | {pooled(scores, 'network'):.3f} | {pooled(scores, 'nbr'):.3f} |")


def pooled(scores, way):
    return scores[way]["pooled"]["fire_iou"]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
