"""
Scores of the detection recipes on real trees and livestock, with the very commands a user types.

    python -m benchmarks.detection_quality WORK_FOLDER trees --seeds 0 1 2        # about fourteen minutes a seed on two cores
    python -m benchmarks.detection_quality WORK_FOLDER livestock --seeds 0 1 2
    python -m benchmarks.detection_quality WORK_FOLDER frame-1200 frame-10020     # one frame trains, the other is scored
    python -m benchmarks.detection_quality WORK_FOLDER trees --config detection-from-scratch
    python -m benchmarks.detection_quality WORK_FOLDER trees --three-quarters     # without the training on all the ground
    python -m benchmarks.detection_quality WORK_FOLDER livestock --tone 0         # other flags are those of train_detection.py

Images are cropped to files first. Trees: the left 60 % of the image YELL train, of which the lowest quarter validates; the rest is scored,
and two other sites. Livestock: the left halves of two frames train, of which the second quarter from above, where animals of both kinds
are, validates; the right halves are scored. Validation chooses the epoch and the threshold. A second training has all of that ground, and
the threshold of the first. Both are scored; what is scored is looked at once for each seed. A box of which less than half is in a crop is
a region to ignore there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data"))
WHOLE = [(0, 0, 1, 1)]
YELL, FRAME_1200, FRAME_10020 = "trees/2019_YELL_2_541000_4977000_image_crop.png", "livestock/1200.jpg", "livestock/part1_2_10020.jpg"
HALVES = {"train": [(0, 0, 0.5, 0.25), (0, 0.5, 0.5, 1)], "val": [(0, 0.25, 0.5, 0.5)], "all": [(0, 0, 0.5, 1)],
          "test": [(0.5, 0, 1, 1)]}
QUARTER = {"train": [(0, 0, 1, 0.25), (0, 0.5, 1, 1)], "val": [(0, 0.25, 1, 0.5)], "all": WHOLE}
TWO_KINDS, ANIMALS = ["--label-map", "unknown=drop"], ["--label-map", "unknown=drop,sheep=animal,yak=animal"]
# name → ({image: {part: [crop as shares of width and height: left, top, right, bottom]}}, further flags). all: train and val in one; what
# is left is scored, each part alone.
SETS = {
    "trees": ({YELL: {"train": [(0, 0, 0.6, 0.75)], "val": [(0, 0.75, 0.6, 1)], "all": [(0, 0, 0.6, 1)], "test": [(0.6, 0, 1, 1)]},
               "trees/OSBS_029.tif": {"OSBS": WHOLE}, "trees/SOAP_061.png": {"SOAP": WHOLE}}, ["--label-map", "Alive=Tree,Dead=Tree"]),
    "livestock": ({FRAME_1200: HALVES, FRAME_10020: HALVES}, TWO_KINDS),
    "frame-1200": ({FRAME_1200: QUARTER, FRAME_10020: {"test": WHOLE}}, ANIMALS),
    "frame-10020": ({FRAME_10020: QUARTER, FRAME_1200: {"test": WHOLE}}, ANIMALS),
}
WHOLE_ENOUGH = 0.5  # share of a box in a crop from which it is an object there


def read_voc(path):
    """[((x0, y0, x1, y1), name)] of a Pascal VOC file."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    items = ET.parse(path).iter("object")
    return [([float(item.findtext(f"bndbox/{corner}")) for corner in corners], item.findtext("name")) for item in items]


def crop_set(name, folder):
    """Write <part>/ and <part>.json of a set below `folder`. → names of the parts that are scored."""
    import numpy as np
    from PIL import Image

    images, _ = SETS[name]
    labels = sorted({label for image in images for _, label in read_voc((DATA / image).with_suffix(".xml"))})
    parts = list(dict.fromkeys(part for image in images.values() for part in image))
    for split in parts:
        content = {"images": [], "annotations": [], "categories": [{"id": k, "name": label} for k, label in enumerate(labels, start=1)]}
        (folder / split).mkdir(parents=True, exist_ok=True)
        for image, splits in images.items():
            pixels = np.asarray(Image.open(DATA / image).convert("RGB"))
            boxes = read_voc((DATA / image).with_suffix(".xml"))
            for number, shares in enumerate(splits.get(split, [])):
                height, width = pixels.shape[:2]
                crop = [int(share * side) for share, side in zip(shares, (width, height) * 2, strict=True)]
                file = f"{Path(image).stem}_{split}{number}.png"
                Image.fromarray(pixels[crop[1] : crop[3], crop[0] : crop[2]]).save(folder / split / file)
                content["images"].append({"id": len(content["images"]) + 1, "file_name": file, "width": crop[2] - crop[0],
                                          "height": crop[3] - crop[1]})
                add_boxes(content, boxes, crop, labels)
        (folder / f"{split}.json").write_text(json.dumps(content))
    return [part for part in parts if part not in ("train", "val", "all")]


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


def sources(folder, split, part):
    return [f"--{split}-images", folder / part, f"--{split}-annotations", folder / f"{part}.json"]


def train_and_score(name, folder, parts, config, seeds, twice, more):
    """{(part, "three quarters" | "all"): [its scores, one for each seed]}. twice: also of a training on all the ground."""
    _, flags = SETS[name]
    rows = {}
    for seed in seeds:
        first, second = folder / f"{config}-seed{seed}", folder / f"{config}-seed{seed}-all"
        chosen = sources(folder, "train", "train") + sources(folder, "val", "val")
        again = [(second, sources(folder, "train", "all") + ["--threshold", first])] if twice else []
        for output, given in ((first, chosen), *again):
            run("train_detection.py", "--config", config, *given, *flags, "--output-dir", output, "--seed", seed, "--device", "cpu",
                *more)
            for part in parts:
                scores = output.with_name(f"{output.name}-{part}")
                run("train_detection.py", "--test-only", "--resume", output, *sources(folder, "train", "train"),
                    *sources(folder, "test", part), *flags, "--output-dir", scores, "--device", "cpu")
                key = (part, "three quarters" if output == first else "all")
                rows.setdefault(key, []).append(json.loads((scores / "scores_test.json").read_text()))
    return rows


COLUMNS = {"AP50": "map_50", "F1": "f1", "F1 by centres": "f1_centre", "count error": "count_mae"}


def print_rows(name, config, rows, seeds):
    for (part, ground), scores in rows.items():
        for seed, one in zip(seeds, scores, strict=True):
            print(f"| {name}, {part}, {ground} | {seed} | " + " | ".join(f"{one[key]:.3f}" for key in COLUMNS.values()) + " |")
        mean = " | ".join(f"{statistics.fmean(one[key] for one in scores):.2f} ({min(one[key] for one in scores):.2f} to "
                          f"{max(one[key] for one in scores):.2f})" for key in COLUMNS.values())
        baseline = scores[0]["baseline"]
        print(f"| **{name}, {part}, {config}, {ground}** | {len(seeds)} seeds | {mean} |")
        print(f"| {name}, {part}, baseline | | " + " | ".join(f"{baseline[key]:.2f}" for key in COLUMNS.values()) + " |")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", choices=SETS, nargs="+")
    parser.add_argument("--config", default="detection", help="recipe (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--three-quarters", action="store_true", help="no training on all the ground")
    args, more = parser.parse_known_args(argv)
    tables = {}
    for name in args.sets:
        folder = args.folder.resolve() / name
        parts = crop_set(name, folder)
        tables[name] = train_and_score(name, folder, parts, args.config, args.seeds, not args.three_quarters, more)
    print("| scored | seed | " + " | ".join(COLUMNS) + " |\n" + "|---" * 6 + "|")
    for name, rows in tables.items():
        print_rows(name, args.config, rows, args.seeds)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
