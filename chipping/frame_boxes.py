"""What becomes of the boxes of a frame: in pixels, corners in order, clipped to the frame, the largest into the slots of a sample."""

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
    counts = Counter()
    width, height = size
    scale = np.array([width, height, width, height], np.float64)
    px, scaled = np.asarray(px, np.float64).reshape(-1, 4), np.asarray(norm, np.float64).reshape(-1, 4) * scale
    has_px, has_norm = np.isfinite(px).all(axis=1), np.isfinite(scaled).all(axis=1)
    both = has_px & has_norm
    counts["box_conflict"] = int((np.abs(scaled[both] - px[both]).max(axis=1, initial=0) > CONFLICT).sum())
    stated = np.where(has_norm[:, None], scaled, px)
    there = has_px | has_norm
    counts["boxes_without_numbers"] = int((~there).sum())
    stated, labels = stated[there], np.asarray(labels, np.int64).reshape(-1)[there]
    ordered = np.concatenate([np.minimum(stated[:, :2], stated[:, 2:]), np.maximum(stated[:, :2], stated[:, 2:])], axis=1)
    counts["boxes_reordered"] = int((ordered != stated).any(axis=1).sum())
    clipped = np.clip(ordered, 0, scale)
    sides, before = clipped[:, 2:] - clipped[:, :2], ordered[:, 2:] - ordered[:, :2]
    outside = (before > 0).all(axis=1) & (sides <= 0).any(axis=1)
    thin = ~outside & (sides < LEAST_SIDE).any(axis=1)
    counts["boxes_outside"], counts["boxes_thin"] = int(outside.sum()), int(thin.sum())
    kept = ~(outside | thin)
    counts["boxes_clipped"] = int((kept & (np.abs(clipped - ordered).max(axis=1, initial=0) > CLIPPED)).sum())
    order = np.flatnonzero(kept)[np.argsort(-np.prod(sides[kept], axis=1), kind="stable")]
    return clipped[order], labels[order], counts


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
