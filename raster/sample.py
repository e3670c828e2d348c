"""Values of a few small windows of a raster, spread evenly over it: enough to judge its scale, at a cost that does not grow with it."""

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window

from raster.hidden import hidden_pixels
from raster.nodata import valid_pixels
from raster.source import is_remote, open_raster, read_bands
from raster.windows import thin_shape
from runtime.errors import RunError, one_line

SIDE = 64  # pixels of a window
GRIDS = (4, 16)  # windows along a side of the raster: at first, and where these have hardly any valid pixel
ENOUGH = 1000  # valid pixels
THINNED = 512  # pixels of the longer side of a reading of overviews


def sample_values(path, indexes, nodata=None, masked=None):
    """
    (C, N) float64 stored values of valid pixels, the same ones each time; N is 0 where no window can be read or is valid. RunError where
    a server stops answering.

    indexes: bands from 1. nodata: one value, one a band, or None; a pixel that is 0 in all bands is never valid here.
    masked: see raster.hidden.DataBands.
    """
    with open_raster(path) as dataset:
        if getattr(dataset, "has_overviews", False) and (thinned := read_thinned(dataset, indexes, nodata, masked)) is not None:
            return thinned
        for grid in GRIDS:
            values = read_windows(path, dataset, indexes, nodata, masked, grid)
            if values.shape[1] >= ENOUGH or max(dataset.width, dataset.height) <= SIDE:
                break
    return values


def read_thinned(dataset, indexes, nodata, masked):
    """
    sample_values of a product whose files have overviews, None where they cannot be read: a window of JPEG 2000 costs a whole block of a
    thousand pixels a side, and one on a server a request.
    """
    shape = thin_shape(dataset.height, dataset.width, THINNED)
    try:
        pixels = read_bands(dataset, indexes, out_shape=(len(indexes), *shape))
        hidden = hidden_pixels(dataset, masked, shape=shape)
    except RasterioError:
        return None
    valid = valid_pixels(pixels, nodata, zero_is_nodata=True)
    return pixels[:, valid if hidden is None else valid & ~hidden].astype(np.float64)


def read_windows(path, dataset, indexes, nodata, masked, grid):
    """sample_values of grid x grid windows."""
    pieces = [np.empty((len(indexes), 0))]
    for row in np.unique(np.linspace(0, max(0, dataset.height - SIDE), grid).astype(int)):
        for column in np.unique(np.linspace(0, max(0, dataset.width - SIDE), grid).astype(int)):
            window = Window(column, row, min(SIDE, dataset.width), min(SIDE, dataset.height))
            try:
                pixels = read_bands(dataset, indexes, window)
                hidden = hidden_pixels(dataset, masked, window)
            except RasterioError as error:
                if is_remote(path):  # each further window would wait for the server as long
                    why = one_line(error.__cause__ or error)[:160]
                    raise RunError(f"{path} stopped answering at row {row} ({why}); run the same command again") from error
                continue  # it is named when the raster is read as a whole
            valid = valid_pixels(pixels, nodata, zero_is_nodata=True)
            pieces.append(pixels[:, valid if hidden is None else valid & ~hidden].astype(np.float64))
    return np.concatenate(pieces, axis=1)
