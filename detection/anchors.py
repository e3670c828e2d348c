"""Anchors fitted to the boxes that there are: torchvision's own begin at 32 pixels, where many animals end."""

import numpy as np

LEVELS = 4  # feature maps at strides 4, 8, 16, 32


def fit_anchors(boxes):
    """
    (sizes, ratios) for LEVELS maps: a size in pixels for each, from the 5th to the 95th percentile of the boxes' sides (root of the area)
    in equal factors; ratios height / width at their 10th, 50th and 90th percentile.

    boxes: (N, 4) xyxy in pixels, N ≥ 1.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    wide, high = (np.maximum(boxes[:, 2 + axis] - boxes[:, axis], 1.0) for axis in (0, 1))
    low, top = np.percentile(np.sqrt(wide * high), (5, 95))
    if top < 1.5 * low:  # all of one size: the maps beside it still get something to propose
        low, top = low / 1.5, top * 1.5
    sizes = tuple(float(round(size, 1)) for size in np.geomspace(low, top, LEVELS))
    ratios = sorted({float(round(ratio, 2)) for ratio in np.percentile(high / wide, (10, 50, 90))})
    return sizes, tuple(ratios)


def usual_size(boxes):
    """(width, height): medians in pixels, at least 1."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return tuple(float(max(1.0, np.median(boxes[:, 2 + axis] - boxes[:, axis]))) for axis in (0, 1))
