"""Harmonized Landsat Sentinel-2 (HLS) S30 and L30, as delivered: a folder with a file a band."""

import datetime
import re

from raster import landsat, sentinel2
from raster.product import Band, CloudLayer, Product

FILE = re.compile(r"((HLS)\.([SL])30\.(T\d{2}[A-Z]{3})\.(\d{7})T(\d{6})\.v[\d.]+)\.(B\d[\dA]|Fmask)\.tiff?")
BANDS = {
    "S": sentinel2.BANDS,
    "L": {f"B{number:02d}": (*names, 30) for number, names in landsat.BANDS.items()} | {"B09": ("cirrus", 1373.4, 30)},
}
SENSORS = {"S": "Sentinel-2 MSI", "L": "Landsat OLI"}


def metadata_in(names):
    """(scene, the first of its files) or None."""
    for name in names:
        if found := FILE.fullmatch(name.rpartition("/")[2]):
            return (found[1], name) if name.count("/") <= 1 else None
    return None


def read(package, name):
    """Product of an open Package. Scale, offset and nodata are in the tags of the files."""
    scene, first = metadata_in(package.names)
    folder = first.rpartition("/")[0]
    kind, tile, day, time = FILE.fullmatch(first.rpartition("/")[2]).group(3, 4, 5, 6)
    files = {}
    for path in package.names:
        found = FILE.fullmatch(path.rpartition("/")[2])
        if found and found[1] == scene and path.rpartition("/")[0] == folder:
            files[found[7]] = path
    bands = tuple(
        Band(band if kind == "S" else common, common, wavelength, 30.0, package.place(files[band]), own_name=band)
        for band, (common, wavelength, _) in BANDS[kind].items() if band in files
    )
    clouds = CloudLayer("fmask", package.place(files["Fmask"])) if "Fmask" in files else None
    date = datetime.datetime.strptime(day + time, "%Y%j%H%M%S")
    return Product(
        path=package.path, name=scene, kind=f"HLS {kind}30", sensor=f"{SENSORS[kind]} (HLS)", level="surface", time=date.isoformat(),
        tile=tile, bands=bands, clouds=clouds, no_clouds="it has no Fmask",
    )
