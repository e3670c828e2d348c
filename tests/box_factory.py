"""Images with boxes for tests: small pictures whose objects can be counted, and their annotations in each form."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width, height, boxes=(), seed=0):
    """(H, W, 3) uint8: noise from 60 to 120, boxes at 200 and more."""
    pixels = np.random.default_rng(seed).integers(60, 120, (height, width, 3), dtype=np.uint8)
    for x0, y0, x1, y1 in np.asarray(boxes, int).reshape(-1, 4):
        pixels[max(y0, 0) : y1, max(x0, 0) : x1] += 90
    return pixels


def save_picture(path, pixels, orientation=None, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return Path(path)


def write_coco(path, images, categories=((1, "sheep"),), **more):
    """images: {file_name: (width, height, [(category_id, x, y, w, h) or dict of an annotation])}. → path."""
    rows, annotations = [], []
    for number, (name, (width, height, boxes)) in enumerate(images.items(), start=1):
        rows.append({"id": number, "file_name": name, "width": width, "height": height})
        for box in boxes:
            one = box if isinstance(box, dict) else {"category_id": box[0], "bbox": list(box[1:])}
            annotations.append({"id": len(annotations) + 1, "image_id": number, **one})
    content = {"images": rows, "annotations": annotations, "categories": [{"id": i, "name": n} for i, n in categories], **more}
    Path(path).write_text(json.dumps(content))
    return Path(path)


def write_voc(folder, stem, size, objects, filename="elsewhere.jpg"):
    """objects: [(name, xmin, ymin, xmax, ymax)]. → path of the XML."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    inside = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text = f"<annotation><filename>{filename}</filename>{sides}{inside}</annotation>"
    path = Path(folder) / f"{stem}.xml"
    path.write_text(text)
    return path


def example(folder, count=3, size=(300, 220), suffix=".jpg", per_image=4, seed=0):
    """(images folder, COCO file) of `count` pictures with boxes of 20 to 40 pixels."""
    random, images = np.random.default_rng(seed), {}
    width, height = size
    for number in range(count):
        corner = random.integers(0, (width - 40, height - 40), (per_image, 2))
        boxes = np.concatenate([corner, random.integers(20, 40, (per_image, 2))], axis=1)
        xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        name = f"image_{number}{suffix}"
        save_picture(Path(folder) / "images" / name, picture(width, height, xyxy, seed + number))
        images[name] = (width, height, [(1 + k % 2, *map(int, box)) for k, box in enumerate(boxes)])
    path = write_coco(Path(folder) / "boxes.json", images, ((1, "sheep"), (2, "goat")))
    return Path(folder) / "images", path
