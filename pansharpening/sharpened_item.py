"""The STAC item of a sharpened raster: where and when its pair is, its files, its bands, what it was made from."""

import os
from pathlib import Path

from mapping.stac_item import file_of, item_of
from pansharpening.preview import preview_of
from raster.acquired import time_of_scene
from raster.source import describe
from runtime.files import write_json


def item_path(path):
    """`maps/a_sharpened.tif` → `maps/a_sharpened.stac.json`."""
    return f"{os.path.splitext(path)[0]}.stac.json"


def write_item(path, pair, form, sharpener):
    """Write the item of the sharpened raster `path` of a Pair. form: its OutputForm. → False where neither of the pair tells its time."""
    sources = [describe(pair.ms), describe(pair.pan)]
    item = item_of(
        Path(path).stem, describe(path), next((time for time in map(time_of_scene, sources) if time), None),
        made_from=[info.path for info in sources], folder=os.path.dirname(path) or ".", more={"chipmill:sharpened_with": sharpener.name},
        assets={
            "sharpened": {**file_of(Path(path)), **pixels_of(form), "bands": [{"name": name} for name in form.descriptions],
                          "title": "16-bit sRGB picture" if form.scale is None else "bands of ms at the resolution of pan"},
            "preview": {**file_of(Path(preview_of(path))), "roles": ["thumbnail"], "title": "a piece of it beside pan and ms"},
        })
    if item:
        write_json(item_path(path), item)
    return bool(item)


def pixels_of(form):
    """Type, nodata and scale of the pixels of an OutputForm."""
    found = {"data_type": form.dtype, "nodata": form.nodata if form.nodata == form.nodata else "nan"}
    if form.scale in (None, (1.0, 0.0)):
        return found
    divide_by, offset = form.scale
    return {**found, "raster:scale": 1 / divide_by, "raster:offset": offset / divide_by}
