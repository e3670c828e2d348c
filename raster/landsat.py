"""Landsat 8 and 9 products of Collection 2, Level 2 (surface reflectance), as delivered: a .tar, or the folder of one."""

import json
import re

from raster.product import Band, CloudLayer, Product
from raster.sentinel2 import number_of, parse_xml, tag_of
from runtime.errors import UserError
from runtime.names import path_inside

BANDS = {  # number: (common name, nm)
    1: ("coastal", 443.0), 2: ("blue", 482.0), 3: ("green", 561.4), 4: ("red", 654.6), 5: ("nir08", 864.7), 6: ("swir16", 1608.9),
    7: ("swir22", 2200.7),
}
METADATA = re.compile(r"(?:[^/]*/)?([^/]+)_MTL\.(txt|json|xml)$")
FACTORS = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"


def scenes_in(names):
    """[(name of the scene, path of its MTL file inside the package)]. Of an MTL in several forms the first of txt, json and xml."""
    found = {}
    for form in ("txt", "json", "xml"):
        for name in names:
            if (match := METADATA.fullmatch(name)) and match[2] == form:
                found.setdefault((name.rpartition("/")[0], match[1]), name)
    return [(scene, file) for (_, scene), file in sorted(found.items())]


def read(package, file, name):
    """Product of a Package. file: its MTL. name: of the scene. UserError where its metadata do not say what is needed."""
    groups = parse_mtl(package.read(file), file, f"{package.path}/{file}")
    contents, image = groups.get("PRODUCT_CONTENTS", {}), groups.get("IMAGE_ATTRIBUTES", {})
    satellite, level = image.get("SPACECRAFT_ID", ""), contents.get("PROCESSING_LEVEL", "")
    if satellite not in ("LANDSAT_8", "LANDSAT_9") or contents.get("COLLECTION_NUMBER") not in ("02", "2") or level not in ("L2SP", "L2SR"):
        found = " ".join(word for word in (satellite or "an unknown satellite", level, contents.get("COLLECTION_NUMBER")) if word)
        raise UserError(f"{package.path} is of {found}; expected Landsat 8 or 9, Collection 02, L2SP")
    prefix, factors = file.rpartition("/")[0], groups.get(FACTORS, {})
    bands, unknown = [], None
    for number, (common, wavelength) in BANDS.items():
        stated = contents.get(f"FILE_NAME_BAND_{number}")
        if not stated:
            continue
        scale, offset = (number_of(factors.get(f"REFLECTANCE_{what}_BAND_{number}")) for what in ("MULT", "ADD"))
        if scale is None or offset is None or scale <= 0:
            unknown = unknown or f"{package.path}/{file} has no REFLECTANCE_MULT_BAND_{number} and _ADD_; pass --divide-by and --offset"
            scale = offset = None
        bands.append(Band(common, common, wavelength, 30.0, member(package, prefix, stated), own_name=f"B{number}", scale=scale,
                          offset=offset, nodata=0.0))
    if not bands:
        raise UserError(f"{package.path}/{file} names no file of a band; download the product again")
    quality = contents.get("FILE_NAME_QUALITY_L1_PIXEL")
    clouds = CloudLayer("qa_pixel", member(package, prefix, quality)) if quality else None
    path, row = image.get("WRS_PATH", ""), image.get("WRS_ROW", "")
    cover = number_of(image.get("CLOUD_COVER"))
    return Product(
        path=package.path, name=name, kind=f"Landsat {satellite[-1]} C2 {level}", sensor="Landsat OLI", level="surface",
        time=f"{image.get('DATE_ACQUIRED', '')}T{image.get('SCENE_CENTER_TIME', '')}".rstrip("T"),
        tile=f"{path.zfill(3)}{row.zfill(3)}" if path and row else "", bands=tuple(bands), clouds=clouds,
        no_clouds="its MTL names no QA_PIXEL", scale_unknown=unknown,
        facts=(("satellite", f"Landsat {satellite[-1]}"), *((("clouds", f"{cover:.1f} %"),) if cover is not None else ())),
    )


def member(package, prefix, name):
    path_inside(package.path, name, f"the MTL file of {package.path}")
    return package.place(f"{prefix}/{name}" if prefix else name)


def parse_mtl(content, file, path):
    """{group: {key: text}} of an MTL file in any of its three forms. UserError where it is not whole."""
    try:
        if file.endswith(".xml"):
            root = parse_xml(content, path)
            return {tag_of(group): {tag_of(e): (e.text or "").strip() for e in group} for group in root}
        text = content.decode("utf-8-sig")
        if file.endswith(".json"):
            (groups,) = json.loads(text).values()
            return {name: {key: str(value) for key, value in group.items()} for name, group in groups.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not whole ({str(error)[:80]}); download the product again") from error
    groups, inside, ended = {}, [], False
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if key == "END" and not equals:
            ended = True
        elif key == "GROUP":
            inside.append(value)
        elif key == "END_GROUP" and inside:
            inside.pop()
        elif equals and inside:
            groups.setdefault(inside[-1], {})[key] = value.strip('"')
    if not ended:
        raise UserError(f"{path} is not whole (no END); download the product again")
    return groups
