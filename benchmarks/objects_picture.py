"""
The picture of found objects in docs/images: a made-up pasture with cows and sheep, a detector trained on others like it for a minute.

    python -m benchmarks.objects_picture WORK_FOLDER [--output docs/images/objects.jpg]

Cows and sheep are ellipses with shadows on coloured noise, with bushes between them. Everything else is done by the programs.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw, ImageFilter
from rasterio.transform import from_origin

from benchmarks.programs import ROOT, run

SIZE = (880, 520)  # pixels of 0.1 m
KINDS = {1: ("cow", (24, 30), (10, 13), ((62, 42, 30), (38, 32, 30), (112, 74, 48))),  # name, length, width, colours
         2: ("sheep", (13, 16), (7, 9), ((226, 220, 206), (206, 198, 184)))}


def noise(rng, cell):
    """(H, W) smooth values around 0 that change over about `cell` pixels."""
    width, height = SIZE
    coarse = Image.fromarray(rng.normal(0, 1, (height // cell + 2, width // cell + 2)).astype(np.float32))
    return np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC))


def blob(x, y, length, width, angle, wobble=()):
    """Corners of an ellipse; wobble: how far each corner lies outside of it, as a share."""
    turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    reach = 1 + (np.asarray(wobble) if len(wobble) else 0)
    along, across = length / 2 * np.cos(turns) * reach, width / 2 * np.sin(turns) * reach
    right, down = math.cos(angle), math.sin(angle)
    return list(zip(x + along * right - across * down, y + along * down + across * right, strict=True))


def pasture(seed):
    """((H, W, 3) uint8, [(class, x, y, width, height)])."""
    rng, (width, height) = np.random.default_rng(seed), SIZE
    moisture, grain = 0.6 * noise(rng, 160) + 0.4 * noise(rng, 40), 0.6 * noise(rng, 4) + 0.5 * noise(rng, 2)
    ground = np.array([164, 152, 104]) + moisture[..., None] * np.array([-20, -5, -14]) + grain[..., None] * np.array([9, 9, 7])
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    shade = Image.new("L", SIZE)
    pens, boxes, places = (ImageDraw.Draw(image), ImageDraw.Draw(shade)), [], []
    figures = [(0, rng.integers(30, 64), rng.uniform(0.8, 1.2)) for _ in range(9)]
    figures += [(kind, rng.uniform(*KINDS[kind][1]), rng.uniform(*KINDS[kind][2])) for kind in rng.choice([1, 1, 2], 34)]
    for kind, length, wide in figures:
        for _ in range(200):
            x, y = rng.uniform(40, width - 40), rng.uniform(40, height - 40)
            if all(math.hypot(x - a, y - b) > (length + other) / 2 + 6 for a, b, other in places):
                break
        else:
            continue
        places.append((x, y, length))
        if not kind:
            corners, colour, lift = blob(x, y, length, length * wide, 0, rng.normal(0, 0.1, 24)), (66, 92, 48), length / 5
        else:
            corners = blob(x, y, length, wide, rng.uniform(0, math.pi))
            colour, lift = tuple(KINDS[kind][3][rng.integers(len(KINDS[kind][3]))]), 4
            left, top = np.floor(np.min(corners, axis=0)).astype(int).tolist()
            right, bottom = np.ceil(np.max(corners, axis=0)).astype(int).tolist()
            boxes.append((int(kind), left, top, right - left, bottom - top))
        pens[1].polygon([(a + lift, b + lift) for a, b in corners], fill=130)
        pens[0].polygon(corners, fill=tuple(int(c + rng.normal(0, 5)) for c in colour))
        pens[1].polygon(corners, fill=0)
    dark = np.asarray(shade.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None] / 255
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32) * (1 - dark) + rng.normal(0, 3, (height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8), boxes


def write_set(folder, name, seeds):
    """folder/name/*.tif and folder/name.json."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, seed in enumerate(seeds, start=1):
        pixels, boxes = pasture(seed)
        file = f"pasture_{seed}.tif"
        place = from_origin(500_000 + 100 * seed, 5_000_000, 0.1, 0.1)
        with rasterio.open(folder / name / file, "w", driver="GTiff", width=SIZE[0], height=SIZE[1], count=3, dtype="uint8",
                           crs="EPSG:32633", transform=place, photometric="RGB", compress="deflate") as dataset:
            dataset.write(pixels.transpose(2, 0, 1))
        images.append({"id": number, "file_name": file, "width": SIZE[0], "height": SIZE[1]})
        annotations += [{"id": len(annotations) + k, "image_id": number, "category_id": kind, "bbox": box}
                        for k, (kind, *box) in enumerate(boxes, start=1)]
    categories = [{"id": kind, "name": name} for kind, (name, *_) in KINDS.items()]
    (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "objects.jpg")
    args = parser.parse_args(argv)
    folder = args.folder.resolve()
    for name, seeds in (("train", range(1, 6)), ("val", [6]), ("test", [7])):
        write_set(folder, name, seeds)
    run("train_detection.py", "--train-images", folder / "train", "--train-annotations", folder / "train.json", "--val-images",
        folder / "val", "--val-annotations", folder / "val.json", "--output-dir", folder / "output", "--tile-size", 256, "--overlap", 64,
        "--crop", 128, "--epochs", 2, "--steps-per-epoch", 80, "--val-every", 2, "--num-workers", 0, "--device", "cpu", "--overwrite")
    run("inference.py", "--checkpoint", folder / "output", folder / "test", "--output-dir", folder / "found", "--overwrite",
        "--class-colours", "cow=#1e90ff,sheep=#e69f00")
    Image.open(folder / "found" / "pasture_7_boxes.png").save(args.output, quality=88)
    print(args.output)


if __name__ == "__main__":
    main(sys.argv[1:])
