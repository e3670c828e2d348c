"""Samples lines for a reflectance file from a pan/ms pair."""

import numpy as np
from rasterio.errors import RasterioError

from chipping.positions import STEP_X, STEP_Y
from raster.nodata import is_nodata
from raster.pair import PairReader
from raster.scale import to_reflectance
from runtime.errors import RunError, UserError

BANDS = 8  # what fake-chips expects


def sample_reflectances(pair, count, divide_by, offset=0.0, seed=0, note=""):
    """
    `count` lines "pan,coastal,…,nir2,note", x 10 000, of pixels spread evenly over the pair; pan is the mean over one ms pixel.

    Nodata is passed over. RunError where too few pixels are found in twenty times as many tries.
    """
    if len(pair.bands) != BANDS:
        raise UserError(f"{pair.ms} has {len(pair.bands)} bands; a reflectance file needs pan and {BANDS}")
    column, row, width, height = pair.area
    start = np.random.default_rng(seed).random(2)
    lines = []
    with PairReader(pair) as reader:
        for k in range(20 * count):
            if len(lines) == count:
                break
            x, y = int((start[0] + k * STEP_X) % 1 * width), int((start[1] + k * STEP_Y) % 1 * height)
            try:
                ms, pan = reader.read_ms(column + x, row + y, 1, 1), reader.read_pan(column + x, row + y, 1, 1)
            except RasterioError:
                continue
            if is_nodata(ms, pair.nodata[1]).any() or is_nodata(pan, pair.nodata[0]).any():
                continue
            values = [pan.mean(), *ms[:, 0, 0]]
            stored = [round(to_reflectance(float(v), divide_by, offset) * 10_000) for v in values]
            lines.append(",".join([*map(str, stored), note or f"{pair.ms} {column + x} {row + y}"]))
    if len(lines) < count:
        raise RunError(f"only {len(lines)} of {count} pixels could be used in {pair.ms}; the others are nodata or unreadable")
    return lines
