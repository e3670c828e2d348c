"""Blocks of a pan/ms pair, each read as reflectance with an apron around it."""

from contextlib import contextmanager

import numpy as np
import torch
from rasterio.errors import RasterioError

from raster.fill_nodata import continue_ms, continue_pan
from raster.nodata import is_nodata
from raster.scale import to_reflectance
from runtime.errors import RunError


def blocks_of(area, side):
    """[(column, row, width, height)] that cover an area, row by row, none larger than side x side."""
    left, top, width, height = area
    return [
        (left + x, top + y, min(side, width - x), min(side, height - y))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def with_apron(core, pair, apron):
    """(window with an apron of ms pixels, clipped to the pair's area; (rows, columns) slices of the core in it, in pan pixels)."""
    left, top = max(pair.area[0], core[0] - apron), max(pair.area[1], core[1] - apron)
    right = min(pair.area[0] + pair.area[2], core[0] + core[2] + apron)
    bottom = min(pair.area[1] + pair.area[3], core[1] + core[3] + apron)
    rows = slice((core[1] - top) * pair.ratio, (core[1] - top + core[3]) * pair.ratio)
    columns = slice((core[0] - left) * pair.ratio, (core[0] - left + core[2]) * pair.ratio)
    return (left, top, right - left, bottom - top), (rows, columns)


def read_block(reader, window, scale, beyond=0):
    """
    (ms (1, C, h, w), pan (1, 1, H, W) reflectance, nodata (1, 1, H, W) bool) of a window. scale: (divide_by, offset).

    A pixel is nodata where pan is, or where all bands of ms are. Nodata is filled from valid pixels at most `beyond` ms pixels away (0
    where there are none) before anything is filtered. The result must not depend on the window: more is read around one with nodata.
    """
    pair = reader.pair
    ms, pan, ms_nodata, pan_nodata = read_reflectance(reader, window, scale)
    if beyond and (ms_nodata.any() or pan_nodata.any()) and not (ms_nodata.all() or pan_nodata.all()):
        wide, (rows, columns) = with_apron(window, pair, beyond)
        ms, pan, ms_nodata, pan_nodata = read_reflectance(reader, wide, scale)
        ms, pan = continue_ms(ms, ms_nodata, pair.nodata[1], beyond), continue_pan(pan, pan_nodata, pair.ratio, beyond)
        pan, pan_nodata = (x[:, :, rows, columns] for x in (pan, pan_nodata))
        rows, columns = (slice(s.start // pair.ratio, s.stop // pair.ratio) for s in (rows, columns))
        ms, ms_nodata = (x[:, :, rows, columns] for x in (ms, ms_nodata))
    in_all_bands = ms_nodata.all(1, keepdim=True)
    return ms, pan, pan_nodata | in_all_bands.repeat_interleave(pair.ratio, 2).repeat_interleave(pair.ratio, 3)


def read_reflectance(reader, window, scale):
    """(ms (1, C, h, w), pan (1, 1, H, W) reflectance, bool of the same shapes where ms and where pan is nodata); 0 where nodata."""
    images, masks = [], []
    for values, nodata in zip((reader.read_ms(*window), reader.read_pan(*window)), reversed(reader.pair.nodata), strict=True):
        missing = is_nodata(values, nodata)
        reflectance = to_reflectance(values.astype(np.float32), *scale)
        reflectance[missing] = 0
        images.append(torch.from_numpy(reflectance)[None])
        masks.append(torch.from_numpy(missing)[None])
    return *images, *masks


@contextmanager
def reading_errors(pair):
    """RunError where pixels can't be read: a sharpened image must not have holes that the files don't have."""
    try:
        yield
    except RasterioError as error:
        raise RunError(f"{pair.pan} or {pair.ms} can't be read ({' '.join(str(error).split())[:160]}); nothing was written") from error
