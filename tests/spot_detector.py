"""A stand-in for a detector: it finds the bright rectangles of a picture exactly, wherever a tile cuts them."""

import sys
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import torch
from rasterio.features import shapes
from rasterio.transform import from_origin

import detection

CLASSES = ("cow", "sheep")


class Detections(NamedTuple):
    """As detection.detections has it."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None = None
    full: bool = False


@dataclass(frozen=True)
class SpotConfig:
    bands: tuple = ("red", "green", "blue")
    classes: tuple = CLASSES
    mean: tuple | None = None
    framework: str = "centre"


@dataclass(eq=False)
class SpotDetector(torch.nn.Module):
    """Rectangles that are brighter than half: label 1 where green is above blue, else 2; the score is the red. masks: theirs too."""

    masks: bool = False
    config: SpotConfig = field(default_factory=SpotConfig)

    def __post_init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(1))
        self.seen = []

    def __hash__(self):
        return id(self)

    def predict(self, images, score_threshold, limit, tta=False):
        self.seen.append(tuple(images.shape))
        self.views = 8 if tta else 1
        return [self.of_one(image.cpu().numpy(), score_threshold, limit) for image in images]

    def of_one(self, image, score_threshold, limit):
        bright = image[0] > 0.5
        found = []
        for shape, _ in shapes(bright.astype(np.uint8), mask=bright):
            ring = np.array(shape["coordinates"][0])
            (x0, y0), (x1, y1) = ring.min(axis=0), ring.max(axis=0)
            middle = image[:, int(y0 + y1) // 2, int(x0 + x1) // 2]
            if middle[0] >= score_threshold:
                found.append(((x0, y0, x1, y1), float(middle[0]), 1 if middle[1] > middle[2] else 2))
        found = sorted(found, key=lambda one: -one[1])
        full, found = len(found) >= limit, found[:limit]
        masks = None
        if self.masks:
            masks = torch.zeros(len(found), *image.shape[1:], dtype=torch.bool)
            for mask, ((x0, y0, x1, y1), *_) in zip(masks, found, strict=True):
                mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        return Detections(torch.tensor([box for box, *_ in found], dtype=torch.float32).reshape(-1, 4),
                          torch.tensor([score for _, score, _ in found]), torch.tensor([label for *_, label in found], dtype=torch.int64),
                          masks, full)


def data(**changes):
    """What a checkpoint says about the images of its training."""
    return {"bands": list(SpotConfig().bands), "divide_by": [255.0] * 3, "offset": [0.0] * 3, "nodata": 0, "classes": list(CLASSES),
            "chip_size": [64, 64], "overlap": 24, "threshold": 0.6, "iou_threshold": 0.5, "max_detections": 100, **changes}


def field_of(rng, width, height, side=18, cell=24):
    """((3, H, W) uint8 with a rectangle in each cell of a grid, their boxes (N, 4), labels, scores)."""
    picture, boxes, labels, scores = rng.integers(1, 90, (3, height, width)).astype(np.uint8), [], [], []
    for top in range(0, height - cell, cell):
        for left in range(0, width - cell, cell):
            w, h = rng.integers(6, side + 1, 2)
            x, y = left + rng.integers(1, cell - w), top + rng.integers(1, cell - h)
            red, label = int(rng.integers(160, 250)), int(rng.integers(1, 3))
            picture[:, y : y + h, x : x + w] = np.array([red, 200 if label == 1 else 20, 120])[:, None, None]
            boxes.append((x, y, x + w, y + h))
            labels.append(label)
            scores.append(red / 255)
    return picture, np.array(boxes, float).reshape(-1, 4), np.array(labels), np.array(scores)


def write_image(path, picture, crs=None, transform=None, **profile):
    """A picture (C, H, W) as GeoTIFF, JPEG or PNG, by the name's ending."""
    driver = {".jpg": "JPEG", ".png": "PNG"}.get(path.suffix, "GTiff")
    options = {"QUALITY": 100} if driver == "JPEG" else {"tiled": True, "blockxsize": 32, "blockysize": 32} if driver == "GTiff" else {}
    with rasterio.open(path, "w", driver=driver, width=picture.shape[2], height=picture.shape[1], count=len(picture), dtype=picture.dtype,
                       crs=crs, transform=transform if crs else None, **{**options, **profile}) as file:
        file.write(picture)
    return path


UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}


def stand_in(monkeypatch, detector):
    """Let inference.py load this detector from any checkpoint of kind "detection"."""
    module = ModuleType("detection.detectors")
    module.detector_from_checkpoint = lambda checkpoint: detector
    monkeypatch.setitem(sys.modules, "detection.detectors", module)
    monkeypatch.setattr(detection, "detectors", module, raising=False)


if __name__ == "__main__":  # inference.py with the stand-in, in a process of its own: SECONDS that a batch takes, then the flags
    class Slow(SpotDetector):
        def predict(self, *rest):
            time.sleep(float(sys.argv[1]))
            return super().predict(*rest)

    import inference

    stand_in(pytest.MonkeyPatch(), Slow(masks=True))
    sys.exit(inference.main(sys.argv[2:]))
