"""Polygons burned into a raster's pixels."""

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize

from vectors.placing import raster_bounds


def burn(placed, transform, window, value=None):
    """
    uint8 (height, width) of a window (col, row, width, height): the class of the last polygon over a pixel's centre, 0 elsewhere.

    placed: vectors.placing.Placed in the raster's CRS. transform: the raster's. value: burn this instead of the polygons' classes.
    """
    col, row, width, height = window
    near = np.sort(placed.tree.query(shapely.box(*raster_bounds(transform, col, row, width, height)))) if len(placed) else ()
    if not len(near):
        return np.zeros((height, width), np.uint8)
    shapes = [(placed.as_dicts[k], int(placed.labels[k]) if value is None else value) for k in near]
    place = Affine(*transform[:6]) * Affine.translation(col, row)
    return rasterize(shapes, out_shape=(height, width), transform=place, fill=0, dtype=np.uint8)
