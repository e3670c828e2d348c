"""What becomes of the boxes of a frame: in pixels, corners in order, clipped to the frame, the largest into the slots of a sample."""

import math
from collections import Counter

import numpy as np

CONFLICT = 2.0  # pixels by which the two statements of a box may differ
CLIPPED = 0.01  # pixels from which a box counts as clipped; less is rounding
LEAST_SIDE = 1.0  # pixels of a side of what is left of a box
RULES = {"clip": True, "least_side": LEAST_SIDE, "conflict": CONFLICT, "order": "largest first"}


def resolve_boxes(px, norm, labels, size):
    """
    (boxes (K, 4) float64 in pixels within the frame, labels (K,) int64, Counter of what was done), the largest first.

    px: (N, 4) x0, y0, x1, y1 in pixels of the frame; norm: the same divided by its width and height, which counts where both are there. A
    row with NaN is not there. labels: (N,). size: (width, height). A box is clipped, not dropped, as long as a pixel of it is left.
    """
    counts, found = Counter(), []
    width, height = size
    scale = (width, height, width, height)
    rows = (np.asarray(boxes, np.float64).reshape(-1, 4).tolist() for boxes in (px, norm))
    for stated, shares, label in zip(*rows, np.asarray(labels).tolist(), strict=True):  # few boxes, for which numpy's calls take longer
        has_px, has_norm = all(map(math.isfinite, stated)), all(map(math.isfinite, shares))
        if has_norm:
            scaled = [share * side for share, side in zip(shares, scale, strict=True)]
            counts["box_conflict"] += has_px and max(abs(a - b) for a, b in zip(scaled, stated, strict=True)) > CONFLICT
            stated = scaled
        elif not has_px:
            counts["boxes_without_numbers"] += 1
            continue
        (x0, x1), (y0, y1) = sorted(stated[::2]), sorted(stated[1::2])
        counts["boxes_reordered"] += [x0, y0, x1, y1] != stated
        box = (min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height))
        wide, tall = box[2] - box[0], box[3] - box[1]
        if x1 > x0 and y1 > y0 and min(wide, tall) <= 0:
            counts["boxes_outside"] += 1
        elif min(wide, tall) < LEAST_SIDE:
            counts["boxes_thin"] += 1
        else:
            counts["boxes_clipped"] += max(box[0] - x0, box[1] - y0, x1 - box[2], y1 - box[3]) > CLIPPED
            found.append((wide * tall, box, label))
    found.sort(key=lambda entry: -entry[0])
    return np.array([box for _, box, _ in found], np.float64).reshape(-1, 4), np.array([n for *_, n in found], np.int64), counts


def fill_slots(boxes, labels, letterbox, max_boxes):
    """
    (boxes (max_boxes, 4) float32 from 0 to 1 of the input, mask (max_boxes,) bool, labels (max_boxes,) int64) of resolve_boxes's result.
    """
    count = min(len(boxes), max_boxes)
    wide, tall = letterbox.target
    slots, mask, numbers = np.zeros((max_boxes, 4), "<f4"), np.zeros(max_boxes, bool), np.zeros(max_boxes, "<i8")
    slots[:count] = letterbox.forward(boxes[:count]) / (wide, tall, wide, tall)
    mask[:count], numbers[:count] = True, labels[:count]
    return slots, mask, numbers
