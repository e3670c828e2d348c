"""PlanetScope scenes of surface reflectance (AnalyticMS SR), as delivered: a folder or a .zip with the image, udm2 and metadata."""

import re

from raster.product import Band, CloudLayer, Product
from raster.sentinel2 import number_of, parse_xml, tag_of
from runtime.errors import UserError

FILE = re.compile(r"(?:.*/)?(\d{8}_\d{6}_[0-9a-z_]+)_3B_AnalyticMS_SR(_8b)?(?:_clip|_harmonized)*\.tif", re.IGNORECASE)
FOUR = {"PS2": (485, 545, 630, 820), "PS2.SD": (490, 565, 665, 865), "PSB.SD": (490, 565, 665, 865)}  # nm, by instrument
EIGHT = (("coastal", 443), ("blue", 490), ("green_i", 531), ("green", 565), ("yellow", 610), ("red", 665), ("rededge071", 705),
         ("nir08", 865))
DIVISOR = 10_000  # Planet's specification of its SR product; its metadata state only the factors of radiance


def scenes_in(names):
    """[(name of the scene, path of its image inside the package)]."""
    return [(found[1], name) for name in names if (found := FILE.fullmatch(name)) and name.count("/") <= 2]


def read(package, image, name):
    """Product of a Package. image: path of its image. UserError where its metadata are missing."""
    scene, eight = FILE.fullmatch(image).groups()
    mine = [path for path in package.names if path.rpartition("/")[2].startswith(f"{scene}_")]
    metadata = next((p for p in mine if re.search(r"metadata[^/]*\.xml$", p)), None)
    if metadata is None:
        raise UserError(f"{package.path} has no {scene}_…_metadata.xml; download it with the image")
    root = parse_xml(package.read(metadata), f"{package.path}/{metadata}")
    words = {}
    for element in root.iter():
        words.setdefault(tag_of(element), (element.text or "").strip())
    instrument = next((words_in(e).get("shortName", "") for e in root.iter() if tag_of(e) == "Instrument"), "")
    names = EIGHT if eight else tuple(zip(("blue", "green", "red", "nir"), FOUR.get(instrument, (None,) * 4), strict=True))
    place = package.place(image)
    bands = tuple(
        Band(common, common, float(nm) if nm else None, number_of(words.get("columnSpacing")) or 3.0, place, number, f"B{number}",
             1 / DIVISOR, 0.0, 0.0)
        for number, (common, nm) in enumerate(names, start=1)
    )
    mask = next((p for p in mine if re.search(r"_udm2[^/]*\.tif$", p)), None)
    cover = number_of(words.get("cloudCoverPercentage"))
    return Product(
        path=package.path, name=scene, kind="PlanetScope SR", sensor=f"PlanetScope {instrument}".strip(), level="surface",
        time=words.get("acquisitionDateTime") or words.get("acquisitionDate", "") or f"{scene[:4]}-{scene[4:6]}-{scene[6:8]}",
        bands=bands, clouds=CloudLayer("udm2", package.place(mask)) if mask else None, no_clouds="it has no udm2",
        facts=(("clouds", f"{cover:.0f} %"),) if cover is not None else (),
    )


def words_in(element):
    return {tag_of(e): (e.text or "").strip() for e in element.iter()}
