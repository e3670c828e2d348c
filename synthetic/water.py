"""Water on a relief: the main river with its gravel, side streams, a reservoir, and the trees along them."""

import numpy as np

from synthetic.fields import enlarge, fractal_noise, logistic, smooth, stripes
from synthetic.materials import lay
from synthetic.relief import CELL, MARGIN

STREAM_AREA = 320  # cells of 40 m: what drains more than half a square kilometre is drawn


def draw_streams(rng, network, shape):
    """(H, W) 0..1: share of each pixel under side streams."""
    receiver, area = network.receiver, network.area
    position = np.stack(np.unravel_index(np.arange(receiver.size), network.shape), axis=1).astype(np.float64)
    position += rng.uniform(-0.3, 0.3, position.shape)
    for _ in range(2):
        position = (position + position[receiver]) / 2
    position = (position - MARGIN + 0.5) * CELL
    streams = np.flatnonzero((area > STREAM_AREA) & ~network.floor.ravel())
    streams = [(position[[i, receiver[i]]], 0.25 + 0.012 * np.sqrt(area[i])) for i in streams if receiver[i] != i]
    return stripes(streams, shape)


def add_water(rng, surface, fuel, relief, farmed, valley):
    """Lay rivers, reservoir and their banks, in place. Returns (width of the main river in pixels, reservoir (H, W) 0..1).

    farmed: (H, W) share of farmland, where banks have fewer trees; valley: half width of the main valley in pixels
    """
    shape = fuel.shape
    brooks = draw_streams(rng, relief.network, shape)
    banks = np.clip(smooth(brooks, 1.6) * 3.0, 0, 1) * (1 - 0.6 * farmed)
    lay(surface, banks * 0.8, "broadleaf", 0.95)
    fuel *= 1 - 0.5 * banks
    river_width = float(np.clip(valley / 14 * rng.uniform(0.7, 1.3), 1.2, 6.0))
    river = stripes([(relief.network.main, river_width)], shape)
    gravel = np.clip(smooth(river, 1.5) * 1.6 - river, 0, 1)
    gravel *= np.clip(0.5 + 0.6 * fractal_noise(rng, shape, 1.0, longest=40), 0, 1)
    lay(surface, np.clip(smooth(river, 3.0) * 2.5, 0, 1) * 0.6, "broadleaf")
    lay(surface, gravel * 0.8, "gravel")
    pond = enlarge(relief.network.lake.reshape(relief.network.shape).astype(np.float32), shape, CELL, MARGIN)
    pond = logistic(14 * (pond - 0.5 + 0.05 * relief.rough))
    shore = np.clip(4 * pond * (1 - pond), 0, 1)
    lay(surface, shore * 0.6, "pale_soil")
    water = np.maximum(np.maximum(river, brooks * 0.7), pond)
    silt = 1 + 0.8 * max(0.0, float(rng.normal(0.2, 0.5)))
    lay(surface, water, "water", silt + 0.06 * fractal_noise(rng, shape, 1.2))
    fuel *= 1 - water
    return river_width, pond
