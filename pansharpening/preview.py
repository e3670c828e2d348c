"""The preview of a sharpened raster: a piece of it at full resolution beside the same ground in pan and in ms as it came."""

import os

import numpy as np
from rasterio.windows import Window

from pansharpening.blocks import read_reflectance, reading_errors
from pictures.brightness import PAN, gain_for, show_light
from pictures.encoding import save_png
from pictures.sheets import contact_sheet
from raster.nodata import is_nodata
from raster.pair import PairReader
from raster.scale import to_reflectance
from raster.source import open_raster

SIDE = 320  # pan pixels of the piece: small enough that single pixels can be seen
SHARES = (0.5, 0.25, 0.75)  # of the way down and across, where a piece may lie


def preview_of(path):
    """`maps/a_sharpened.tif` → `maps/a_sharpened_pair.png`. `…_preview.png` is the name of a map's, made of the sharpened raster."""
    return f"{os.path.splitext(path)[0]}_pair.png"


def write_preview(path, pair, form, scale):
    """Write the preview of the sharpened raster `path` of a Pair. form: its OutputForm. scale: (divide_by, offset) of the inputs."""
    ratio = pair.ratio
    width, height = (min(max(1, SIDE // ratio), side) for side in pair.area[2:])
    with open_raster(path) as dataset:

        def read(place):
            return dataset.read(window=Window(place[0] * ratio, place[1] * ratio, width * ratio, height * ratio))

        places = [(int((pair.area[2] - width) * x), int((pair.area[3] - height) * y)) for y in SHARES for x in SHARES]
        place = max(places, key=lambda p: np.count_nonzero(~is_nodata(read(p), form.nodata)))  # the middle, unless others have more
        values = read(place)
    with PairReader(pair) as reader, reading_errors(pair):
        window = (pair.area[0] + place[0], pair.area[1] + place[1], width, height)
        ms, pan = (image[0].numpy() for image in read_reflectance(reader, window, scale)[:2])
    ms = ms.repeat(ratio, 1).repeat(ratio, 2)
    if form.scale is None:
        gain, sharpened = 1.0, (values.transpose(1, 2, 0) / 257 + 0.5).astype(np.uint8)  # of 16 bits
    else:
        gain = gain_for(ms, pair.bands)
        reflectance = to_reflectance(values.astype(np.float32), *form.scale)
        sharpened = show_light(np.where(is_nodata(values, form.nodata), 0, reflectance), pair.bands, gain)
    views = [show_light(pan, PAN, gain_for(pan, PAN)), show_light(ms, pair.bands, gain), sharpened]
    where = f"columns {place[0] * ratio} to {(place[0] + width) * ratio - 1}, rows {place[1] * ratio} to {(place[1] + height) * ratio - 1}"
    sheet = contact_sheet([views], ["pan", "ms as it came", "sharpened"], [where], side=SIDE, title=os.path.basename(path))
    save_png(preview_of(path), sheet)
