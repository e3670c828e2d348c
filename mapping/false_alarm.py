"""Measures the largest patch that the demo's map marks in error: where it lies, and what it is mistaken for."""

import numpy as np
import torch

from mapping.polygons import AreaFinder
from pictures.false_alarm import FalseAlarm
from pictures.overlays import judge

EDGE = 3  # pixels around what burned that count as its edge
LEAST = 100  # pixels: of a smaller patch there is nothing to say
HECTARE = 100  # pixels of 10 m


def find_false_alarm(truth, prediction, probability, index, scar):
    """
    The FalseAlarm of a map, None where no patch is large enough. All (H, W).

    truth, prediction: classes, 255 = nodata. probability: 0..1. index: NBR. scar: bool, where an earlier fire burned.
    """
    judged, burned, mapped = judge(truth, prediction)
    near = torch.nn.functional.max_pool2d(torch.from_numpy(burned)[None, None].float(), 2 * EDGE + 1, 1, EDGE)[0, 0].numpy() > 0
    wrong = mapped & ~burned
    apart = wrong & ~near  # else patches would hang together along the fire's edge
    facts = [np.where(apart, values, 0).astype(np.float32) for values in (probability, index, scar)]
    found = [patches(apart, values) for values in facts]
    if not burned.any() or not found[0] or found[0][0].pixels < LEAST:
        return None
    patch, there = found[0][0], [areas[0].mean for areas in found]
    elsewhere = judged & ~burned & ~mapped

    def three(mean, values):
        return mean, *(float(values[where].mean()) if where.any() else float("nan") for where in (burned, elsewhere))

    (left, top), (right, bottom) = patch.points.min(axis=0).tolist(), patch.points.max(axis=0).tolist()
    return FalseAlarm(
        hectares=float(wrong.sum()) / HECTARE, edge=float((wrong & near).sum()) / HECTARE, patch=patch.pixels / HECTARE,
        box=(left, top, right, bottom), scar=there[2], index=three(there[1], index), sure=three(there[0], probability),
    )


def patches(where, values):
    """The Areas of a mask (H, W), the largest first, with the mean of some values (H, W)."""
    finder = AreaFinder(where.shape[1])
    areas = finder.add(where.astype(np.uint8), values) + finder.finish()
    return sorted(areas, key=lambda area: (-area.pixels, area.row, area.column))
