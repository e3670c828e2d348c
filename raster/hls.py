"""Harmonized Landsat Sentinel-2 (HLS) S30 and L30, as delivered: a folder with a file a band."""

import datetime
import re

from raster import landsat, sentinel2
from raster.product import Band, CloudLayer, Product
from runtime.errors import UserError

FILE = re.compile(r"((HLS)\.([SL])30\.(T\d{2}[A-Z]{3})\.(\d{7})T(\d{6})\.v[\d.]+)\.(B\d[\dA]|Fmask)\.tiff?")
BANDS = {
    "S": sentinel2.BANDS,
    "L": {f"B{number:02d}": (*names, 30) for number, names in landsat.BANDS.items()} | {"B09": ("cirrus", 1373.4, 30)},
}
SENSORS = {"S": "Sentinel-2 MSI", "L": "Landsat OLI"}


def scenes_in(names):
    """[(name of the scene, the first of its files)]."""
    found = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if "/" not in folder and (match := FILE.fullmatch(file)):
            found.setdefault((folder, match[1]), name)
    return [(scene, file) for (_, scene), file in sorted(found.items())]


def read(package, first, name):
    """Product of a Package. first: of its files. Scale, offset and nodata are in their tags. UserError where there is no band."""
    folder = first.rpartition("/")[0]
    scene, _, kind, tile, day, time = FILE.fullmatch(first.rpartition("/")[2]).groups()[:6]
    files = {}
    for path in package.names:
        found = FILE.fullmatch(path.rpartition("/")[2])
        if found and found[1] == scene and path.rpartition("/")[0] == folder:
            files[found[7]] = path
    bands = tuple(
        Band(band if kind == "S" else common, common, wavelength, 30.0, package.place(files[band]), own_name=band)
        for band, (common, wavelength, _) in BANDS[kind].items() if band in files
    )
    if not bands:
        raise UserError(f"{package.path} has no band of {scene}; download it again")
    try:
        date = datetime.datetime.strptime(day + time, "%Y%j%H%M%S")
    except ValueError as error:
        raise UserError(f"{package.path}: {scene} names no day of a year ({day}, {time}); expected YYYYDDDTHHMMSS") from error
    clouds = CloudLayer("fmask", package.place(files["Fmask"])) if "Fmask" in files else None
    return Product(
        path=package.path, name=scene, kind=f"HLS {kind}30", sensor=f"{SENSORS[kind]} (HLS)", level="surface", time=date.isoformat(),
        tile=tile, bands=bands, clouds=clouds, no_clouds="it has no Fmask",
    )
