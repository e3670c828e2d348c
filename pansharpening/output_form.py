"""How sharpened pixels are stored: as ms is, or as a 16-bit sRGB picture."""

from dataclasses import dataclass

import numpy as np
from rasterio.enums import ColorInterp

from constants import band_role
from raster.colour import bands_to_oklab, has_colour, oklab_to_srgb
from raster.source import describe
from runtime.errors import UserError

RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class OutputForm:
    """
    dtype, nodata, descriptions: of the bands. scale: (divide_by, offset) of reflectance, None for sRGB.

    scales, offsets: GDAL's tags of the bands, as ms has them.
    """

    dtype: str
    nodata: float
    descriptions: tuple
    scale: tuple
    scales: tuple = ()
    offsets: tuple = ()

    @property
    def interpretations(self):
        """rasterio's ColorInterp of each band, the first of each colour tagged as it; () where not all three are there."""
        roles = [band_role(name) for name in self.descriptions]
        places = {roles.index(colour): ColorInterp[colour] for colour in RGB if colour in roles}
        return tuple(places.get(i, ColorInterp.undefined) for i in range(len(roles))) if len(places) == len(RGB) else ()


def choose_form(pair, target, rgb, scale):
    """OutputForm for a sharpener's target ("bands" or "oklab"). UserError for a picture of bands that have no colour."""
    if rgb or target == "oklab":
        if target != "oklab" and not has_colour(pair.bands):
            raise UserError(f"--rgb needs bands named blue, green and red; {pair.ms} has {', '.join(pair.bands)} (name them with --bands)")
        return OutputForm("uint16", 0, RGB, None)
    nodata = 0 if pair.nodata[1] is None else pair.nodata[1]
    info = describe(pair.ms)
    scales, offsets = ([values[i - 1] for i in pair.indexes or range(1, info.count + 1)] for values in (info.scales, info.offsets))
    tagged = any(v != 1 for v in scales) or any(offsets)
    return OutputForm(pair.dtypes[1], nodata, pair.bands, scale, *((tuple(scales), tuple(offsets)) if tagged else ()))


def store(image, nodata, form, target, bands):
    """
    (K', H, W) numpy in the output's type of (1, K, H, W) reflectance or Oklab.

    nodata: (1, 1, H, W) bool, the pixels that become the form's nodata value. A valid pixel never has that value.
    """
    if form.scale is None:
        oklab = image if target == "oklab" else bands_to_oklab(image, bands)
        values = (oklab_to_srgb(oklab)[0] * 65535).numpy()
    else:
        values = (image[0] * form.scale[0] - form.scale[1]).numpy()
    kind = np.dtype(form.dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # in float64, because the largest int32 has no float32
        values = np.rint(values.astype(np.float64)).clip(limits.min, limits.max).astype(kind)
        if form.nodata == form.nodata:
            neighbour = form.nodata + 1 if form.nodata < limits.max else form.nodata - 1
            values[values == form.nodata] = neighbour
    else:
        values = values.astype(kind)
        # GDAL takes floats that differ in the last digits only for the same: a step that it can tell apart
        aside = 1e-6 * abs(form.nodata) or np.nextafter(kind.type(0), kind.type(1))
        values[np.abs(values - form.nodata) < aside] = form.nodata + aside
    values[:, nodata[0, 0].numpy()] = form.nodata
    return values
