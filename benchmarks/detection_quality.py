"""
Scores of the detection recipes on real trees and livestock, with the very commands a user types.

    python -m benchmarks.detection_quality WORK_FOLDER trees           # about eight minutes on two cores
    python -m benchmarks.detection_quality WORK_FOLDER livestock --seeds 0 1 2

Images are cropped to files first. Trees: the left 60 % of the image YELL train, of which the lowest quarter validates; the rest is scored.
Livestock: the left halves of two frames train, of which the second quarter from above, where animals of both kinds are, validates; the
right halves are scored. Validation chooses the epoch and the threshold; what is scored is looked at once for each seed. A box of which less
than half is in a crop is a region to ignore there.
"""

import argparse
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data"))
# name → (recipe, images with {split: [crop as shares of width and height: left, top, right, bottom]}, further flags)
SETS = {
    "trees": ("detection", {"trees/2019_YELL_2_541000_4977000_image_crop.png": {
        "train": [(0, 0, 0.6, 0.75)], "val": [(0, 0.75, 0.6, 1)], "test": [(0.6, 0, 1, 1)]}}, []),
    "livestock": ("detection-pretrained", {f"livestock/{name}.jpg": {
        "train": [(0, 0, 0.5, 0.25), (0, 0.5, 0.5, 1)], "val": [(0, 0.25, 0.5, 0.5)], "test": [(0.5, 0, 1, 1)]}
        for name in ("1200", "part1_2_10020")}, ["--label-map", "unknown=drop"]),
}
WHOLE_ENOUGH = 0.5  # share of a box in a crop from which it is an object there


def read_voc(path):
    """[((x0, y0, x1, y1), name)] of a Pascal VOC file."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    items = ET.parse(path).iter("object")
    return [([float(item.findtext(f"bndbox/{corner}")) for corner in corners], item.findtext("name")) for item in items]


def crop_set(name, folder):
    """Write <split>/ and <split>.json of a set below `folder`."""
    import numpy as np
    from PIL import Image

    _, images, _ = SETS[name]
    labels = sorted({label for image in images for _, label in read_voc((DATA / image).with_suffix(".xml"))})
    for split in ("train", "val", "test"):
        content = {"images": [], "annotations": [], "categories": [{"id": k, "name": label} for k, label in enumerate(labels, start=1)]}
        (folder / split).mkdir(parents=True, exist_ok=True)
        for image, splits in images.items():
            pixels = np.asarray(Image.open(DATA / image).convert("RGB"))
            boxes = read_voc((DATA / image).with_suffix(".xml"))
            for number, shares in enumerate(splits[split]):
                height, width = pixels.shape[:2]
                crop = [int(share * side) for share, side in zip(shares, (width, height) * 2, strict=True)]
                file = f"{Path(image).stem}_{split}{number}.png"
                Image.fromarray(pixels[crop[1] : crop[3], crop[0] : crop[2]]).save(folder / split / file)
                content["images"].append({"id": len(content["images"]) + 1, "file_name": file, "width": crop[2] - crop[0],
                                          "height": crop[3] - crop[1]})
                add_boxes(content, boxes, crop, labels)
        (folder / f"{split}.json").write_text(json.dumps(content))


def add_boxes(content, boxes, crop, labels):
    """The boxes of an image as annotations of its crop, which is the last image of `content`."""
    for (x0, y0, x1, y1), label in boxes:
        left, top, right, bottom = max(x0, crop[0]), max(y0, crop[1]), min(x1, crop[2]), min(y1, crop[3])
        if right <= left or bottom <= top:
            continue
        share = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
        content["annotations"].append({
            "id": len(content["annotations"]) + 1, "image_id": len(content["images"]), "category_id": labels.index(label) + 1,
            "bbox": [left - crop[0], top - crop[1], right - left, bottom - top], "iscrowd": int(share <= WHOLE_ENOUGH),
        })


def run(*words):
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, str(ROOT / words[0]), *map(str, words[1:])], check=True, cwd=ROOT)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args(argv)
    folder = args.folder.resolve() / args.set
    crop_set(args.set, folder)
    recipe, _, flags = SETS[args.set]
    sets = [word for split in ("train", "val", "test") for word in
            (f"--{split}-images", folder / split, f"--{split}-annotations", folder / f"{split}.json")]
    rows = []
    for seed in args.seeds:
        output = folder / f"seed{seed}"
        run("train_detection.py", "--config", recipe, *sets[:8], *flags, "--output-dir", output, "--seed", seed, "--device", "cpu")
        run("train_detection.py", "--test-only", "--resume", output, *sets[:4], *sets[8:], *flags, "--device", "cpu")
        rows.append((seed, json.loads((output / "scores_test.json").read_text())))
    print("| seed | AP50 | F1 | F1 by centres | count error | baseline AP50 | baseline F1 |\n" + "|---" * 7 + "|")
    for seed, scores in rows:
        baseline = scores["baseline"]
        print(f"| {seed} | {scores['map_50']:.3f} | {scores['f1']:.3f} | {scores['f1_centre']:.3f} | {scores['count_mae']:.1f} | "
              f"{baseline['map_50']:.3f} | {baseline['f1']:.3f} |")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
