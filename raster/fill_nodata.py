"""Fills nodata from valid neighbours before filtering, so that a filter finds ground beside the edge of the valid pixels, not 0."""

import torch
import torch.nn.functional as F

from raster.resampling import reduce_box


def continue_ms(ms, missing, nodata, rings):
    """
    (1, C, h, w) ms with nodata filled. missing: (1, C, h, w) bool, where ms is nodata. rings: how many pixels inwards.

    nodata: the value, 0 or None where 0 stands for it. A 0 in a single band may then be a dark pixel, and stays; other nodata is filled.
    """
    if not nodata:
        missing = missing.all(1, keepdim=True).expand_as(missing)
    return grow(ms, missing, rings)


def continue_pan(pan, missing, ratio, rings):
    """(1, 1, H, W) pan with nodata filled by means over ms pixels, `rings` ms pixels inwards: what is not known has no detail."""
    share = reduce_box((~missing).float(), ratio)
    means = grow(reduce_box(pan, ratio) / share.clamp(min=0.5 / ratio**2), share == 0, rings)
    return torch.where(missing, means.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3), pan)


def grow(image, missing, rings):
    """(1, C, h, w) whose missing pixels, which are 0, become the mean of their neighbours that are not, ring by ring, `rings` times."""
    known = (~missing).float()
    for _ in range(rings):
        total, share = (F.avg_pool2d(x, 3, stride=1, padding=1) for x in (image, known))
        fresh = (known == 0) & (share > 0)
        if not fresh.any():
            break
        image = torch.where(fresh, total / share.clamp(min=0.1), image)
        known += fresh
    return image
