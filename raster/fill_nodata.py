"""Pixels without a value, continued from their neighbours: what a filter that looks across a rim should find there is ground, no black."""

import torch
import torch.nn.functional as F

from raster.resampling import reduce_box


def continue_ms(ms, null, nodata, rings):
    """ms with null pixels continued from valid ones. A lone 0 may be a dark pixel, and stays; other nodata is continued."""
    if not nodata:
        null = null.all(1, keepdim=True).expand_as(null)
    return grow(ms, null, rings)


def continue_pan(pan, null, ratio, rings):
    """pan with null pixels continued from valid ones by means over ms pixels: what is not known has no detail."""
    there = reduce_box((~null).float(), ratio)
    means = grow(reduce_box(pan, ratio) / there.clamp(min=0.5 / ratio**2), there == 0, rings)
    return torch.where(null, means.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3), pan)


def grow(image, null, rings):
    """(1, C, h, w) with null pixels, which are 0, turned into the mean of their neighbours that are not, ring by ring, `rings` times."""
    there = (~null).float()
    for _ in range(rings):
        total, share = (F.avg_pool2d(x, 3, stride=1, padding=1) for x in (image, there))
        fresh = (there == 0) & (share > 0)
        if not fresh.any():
            break
        image = torch.where(fresh, total / share.clamp(min=0.1), image)
        there += fresh
    return image
