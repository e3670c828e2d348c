"""Images of one band whose pixels are indices of a table of colours: as red, green and blue."""

import dataclasses

import numpy as np
from rasterio.enums import ColorInterp

from raster.source import open_raster


def is_palette(dataset):
    """Whether the pixels of an open raster are indices of colours."""
    return dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette


def colours_of(dataset):
    """(256, 3) uint8 red, green and blue of each index; black where the table has none."""
    table = np.zeros((256, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        if index < 256:
            table[index] = colour[:3]
    return table


def read_colours(info):
    """(RasterInfo of three bands, colours (256, 3)) of an 8-bit raster with a palette; (info, None) of any other."""
    if info.count != 1 or info.dtypes[0] != "uint8":
        return info, None
    with open_raster(info.path) as dataset:
        colours = colours_of(dataset) if is_palette(dataset) else None
    if colours is None:
        return info, None
    each = {name: getattr(info, name) * 3 for name in ("dtypes", "scales", "offsets", "block_shapes")}
    return dataclasses.replace(info, count=3, descriptions=("",) * 3, nodata=None, nodatavals=(None,) * 3, **each), colours
