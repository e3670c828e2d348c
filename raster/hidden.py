"""Which bands of a raster are data, and which alpha band or mask of its own hides pixels of them."""

from dataclasses import dataclass

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from raster.source import open_raster


@dataclass(frozen=True)
class DataBands:
    """
    bands: 1-based, those that hold data. masked: what hides pixels of them: the 1-based alpha band, 0 for what GDAL takes for the mask
    of the file (an internal or .msk one, or an alpha band that it knows), both as a tuple, None without any. remark: a sentence for the
    log where a band counts as alpha, or None.
    """

    bands: tuple
    masked: int | tuple | None
    remark: str | None = None


def data_bands(info, named=()):
    """
    DataBands of a raster (RasterInfo). named: 1-based bands that the user or a name picks; an alpha band among them is data.

    GDAL calls the fourth band of any 8-bit file alpha unless told otherwise, near infrared too: there the values decide. Of alpha it makes
    a mask in files of two or four bands of integers without nodata tag only; in others the band itself is looked at.
    """
    everything = tuple(range(1, info.count + 1))
    if info.alpha_band is None:
        return DataBands(everything, own_mask(info))
    alpha = info.alpha_band + 1
    has_own = info.has_mask and not alpha_is_mask(info)
    if alpha in named or (info.count, info.dtypes[info.alpha_band]) == (4, "uint8") and not holds_alpha(info):
        return DataBands(everything, 0 if has_own else None)
    masked = (0, alpha) if has_own else 0 if info.has_mask else alpha
    return DataBands(tuple(b for b in everything if b != alpha), masked, alpha_remark(info))


def own_mask(info):
    """DataBands.masked of a raster by what GDAL alone says."""
    return 0 if info.has_mask else None


def alpha_remark(info):
    """The sentence about a band that counts as alpha."""
    number = info.alpha_band + 1
    return f"band {number} of {info.path} counts as alpha: it marks nodata and is no band; if it is data, name it in --bands"


def alpha_is_mask(info):
    """Whether the mask that GDAL states for a file is its alpha band, and not a mask beside it."""
    with open_raster(info.path) as dataset:
        return any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums)


def holds_alpha(info, side=64):
    """Whether the band that is called alpha holds opaque and transparent pixels, hardly anything between: looked at in nine places."""
    opaque, between = 0, 0
    with open_raster(info.path) as dataset:
        for x in (0.2, 0.5, 0.8):
            for y in (0.2, 0.5, 0.8):
                place = Window(max(0, int(info.width * x) - side // 2), max(0, int(info.height * y) - side // 2), side, side)
                try:
                    values = dataset.read(info.alpha_band + 1, window=place.intersection(Window(0, 0, info.width, info.height)))
                except RasterioError:
                    continue  # a broken file is an error where its pixels are needed
                opaque += int(np.count_nonzero(values == 255))
                between += int(np.count_nonzero((values > 0) & (values < 255)))
    return between <= 0.1 * opaque


def hidden_pixels(dataset, masked, window=None, shape=None):
    """(H, W) bool: what DataBands.masked hides in a window of an open raster, or None where it is None. shape: of a thinned-out reading."""
    if masked is None:
        return None
    hidden = None
    for source in masked if isinstance(masked, (tuple, list)) else (masked,):
        shown = (dataset.read(source, window=window, out_shape=shape) if source
                 else dataset.dataset_mask(window=window, out_shape=shape)) > 0  # NaN shows nothing
        hidden = ~shown if hidden is None else hidden | ~shown
    return hidden
