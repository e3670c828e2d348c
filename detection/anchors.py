"""What is fitted to the training boxes: anchors (torchvision's own begin at 32 pixels, where many animals end), sizes, strides."""

import numpy as np

SPARSE = 0.05  # share of the images that objects cover, below which copies of them help; crowded ones have neighbours enough
COPIES = 8  # of objects in a crop, where they are sparse
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


def narrow_side(boxes):
    """Pixels: the smaller side of a box, its 10th percentile."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return float(np.percentile(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]), 10))


def fitting_stride(narrow):
    """Pixels of a cell of centre, 4 or 2: five cells across a narrow object. narrow: of narrow_side."""
    return 4 if narrow >= 20 else 2


def share_covered(boxes, area):
    """How much of `area` pixels the boxes cover, 0..1, each counted for itself."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum() / max(1, area))
