"""Outlines of COCO's run-length masks."""

import numpy as np
from rasterio.features import shapes

from runtime.errors import UserError


def rings_of_runs(segmentation, box, where):
    """
    [(P, 2) float64] around the pixels that a run-length mask marks within a box (x, y, width, height) in pixels; holes are left out.

    segmentation: {"size": [height, width], "counts": run lengths column by column as a list, or packed into text}. where: for messages.
    """
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        runs = np.array(unpack(counts) if isinstance(counts, str) else counts, dtype=np.int64).reshape(-1)
        if height < 1 or width < 1 or (runs < 0).any() or runs.sum() != height * width:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} has a run-length mask that does not fit its size; expected size and counts") from error
    left, top = (max(0, int(np.floor(side))) for side in box[:2])
    right, bottom = min(width, int(np.ceil(box[0] + box[2]))), min(height, int(np.ceil(box[1] + box[3])))
    if right <= left or bottom <= top:
        return None
    ends = np.cumsum(runs)
    change = np.zeros((right - left) * height + 1, np.int8)  # +1 where a run of marked pixels begins, −1 where it ends
    begins, ends = (np.clip(edge - left * height, 0, len(change) - 1) for edge in (ends[0:-1:2], ends[1::2]))
    np.add.at(change, begins, 1)
    np.add.at(change, ends, -1)
    marked = np.cumsum(change[:-1]).reshape(right - left, height).T[top:bottom].astype(np.uint8)
    return [np.array(shape["coordinates"][0][:-1], np.float64) + (left, top) for shape, _ in shapes(marked, marked > 0)] or None


def unpack(text):
    """Run lengths of COCO's text: 5 bits a character, the differences to the one before the last from the third on."""
    runs, value, shift = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(character)
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
        elif shift > 60:
            raise ValueError("too long")
    return runs
