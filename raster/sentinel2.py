"""Sentinel-2 products L2A and L1C as delivered: .SAFE folders, or a .zip of one."""

import re
from xml.etree import ElementTree

from raster.product import Band, CloudLayer, Product
from runtime.errors import UserError
from runtime.names import path_inside

# name: (common name, nm, metres); in the order of band_id
BANDS = {
    "B01": ("coastal", 442.7, 60), "B02": ("blue", 492.7, 10), "B03": ("green", 559.8, 10), "B04": ("red", 664.6, 10),
    "B05": ("rededge071", 704.1, 20), "B06": ("rededge075", 740.5, 20), "B07": ("rededge078", 782.8, 20), "B08": ("nir", 832.8, 10),
    "B8A": ("nir08", 864.7, 20), "B09": ("nir09", 945.1, 60), "B10": ("cirrus", 1373.5, 60), "B11": ("swir16", 1613.7, 20),
    "B12": ("swir22", 2202.4, 20),
}
# of a level: (metadata, divisor, list of offsets, cloud layer, level)
LEVELS = {
    "L2A": ("MTD_MSIL2A.xml", "BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET", "surface"),
    "L1C": ("MTD_MSIL1C.xml", "QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET", "top of atmosphere"),
}
FILE = re.compile(r"_(B\d[\dA]|SCL)(?:_(10|20|60)m)?$")
FIRST_OFFSETS = 4.0  # processing baseline


def scenes_in(names):
    """[(name of the scene, "" of a package's own; path of its metadata inside the package)]."""
    found = {}  # {folder: metadata}
    for level in LEVELS.values():
        for name in names:
            folder, _, file = name.rpartition("/")
            if file == level[0] and "/" not in folder:
                found.setdefault(folder, name)
    if "" in found:
        return [("", found[""])]
    return [(re.sub(r"(?i)\.SAFE$", "", folder), found[folder]) for folder in sorted(found)]


def read(package, file, name):
    """Product of a Package. file: its metadata. name: of the scene. UserError where its metadata do not say what is needed."""
    level = next(level for level, facts in LEVELS.items() if file.endswith(facts[0]))
    _, divisor_tag, offset_tag, light = LEVELS[level]
    root, prefix = parse_xml(package.read(file), f"{package.path}/{file}"), file.rpartition("/")[0]
    words = {}  # {tag: text} of the first element of each name
    for element in root.iter():
        words.setdefault(tag_of(element), (element.text or "").strip())
    images = images_of(root, package.path)
    granules = {path.split("/")[1] for path in images if path.count("/") > 1}
    if len(granules) > 1:
        raise UserError(f"{package.path} holds {len(granules)} granules, as before 2016-12; expected one: stack the bands of one (--stack)")
    offsets, unknown = offsets_of(root, offset_tag, words, package.path)
    divisor = number_of(words.get(divisor_tag))
    if not divisor or divisor <= 0:
        divisor, unknown = None, f"{package.path} states no {divisor_tag}; pass --divide-by and --offset"
    nodata = nodata_of(root)
    wavelengths = wavelengths_of(root)
    finest = {}
    for image in images:
        found = FILE.search(image)
        if found:
            metres = int(found[2] or BANDS.get(found[1], ("", 0, 20))[2])
            if found[1] not in finest or metres < finest[found[1]][0]:
                finest[found[1]] = metres, image
    bands = []
    for band_id, (band, (common, wavelength, _)) in enumerate(BANDS.items()):
        if band not in finest or (level == "L2A" and band == "B10"):
            continue
        metres, image = finest[band]
        known = divisor is not None and unknown is None and band_id in offsets
        bands.append(Band(
            band, common, wavelengths.get(band, wavelength), float(metres), package.place(inside(prefix, image)), own_name=band,
            scale=1 / divisor if known else None, offset=offsets[band_id] / divisor if known else None, nodata=nodata,
        ))
    if not bands:
        raise UserError(f"{package.path}/{file} lists no image of a band; download the product again")
    clouds, why = clouds_of(package, level, prefix, finest, images)
    tile = re.search(r"_(T\d{2}[A-Z]{3})_", f"_{name}_{images[0].rpartition('/')[2]}_")
    spacecraft = words.get("SPACECRAFT_NAME", "Sentinel-2")
    baseline = words.get("PROCESSING_BASELINE", "")
    return Product(
        path=package.path, name=name, kind=f"Sentinel-2 {level}", sensor="Sentinel-2 MSI", level=light,
        time=words.get("PRODUCT_START_TIME", ""), tile=tile[1] if tile else "", bands=tuple(bands), clouds=clouds, no_clouds=why,
        facts=(("satellite", spacecraft), ("processing baseline", baseline or "not stated"),
               *((("clouds", f"{cover:.1f} %"),) if (cover := number_of(words.get("Cloud_Coverage_Assessment"))) is not None else ())),
        scale_unknown=unknown,
    )


def tag_of(element):
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def parse_xml(content, path):
    """The root of a metadata file. UserError where it is none, or declares entities."""
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text or "\0" in text:  # zero bytes: UTF-16, which is parsed, and in which they hide
            raise ElementTree.ParseError("it declares entities")
        return ElementTree.fromstring(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not whole (its text is no UTF-8); download the product again") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not whole ({error}); download the product again") from error


def number_of(text):
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):  # of a whole number of hundreds of digits
        return None
    return number if abs(number) < float("inf") else None


def images_of(root, path):
    """Paths of the images inside the .SAFE folder, without their suffix."""
    found = [(e.text or "").strip() for e in root.iter() if tag_of(e) in ("IMAGE_FILE", "IMAGE_FILE_2A")]
    for image in found:
        path_inside(path, image, f"the metadata of {path}")
    return found or [""]


def inside(prefix, image):
    return f"{prefix}/{image}.jp2" if prefix else f"{image}.jp2"


def offsets_of(root, tag, words, path):
    """({band_id: offset in stored units}, None), or ({}, why they are not known). Products before baseline 04.00 state none: 0."""
    stated = {}
    for element in root.iter():
        if tag_of(element) == tag:
            band, offset = element.get("band_id", ""), number_of(element.text)
            if not re.fullmatch("[0-9]{1,3}", band) or offset is None:
                return {}, f"{path} states a {tag} that is no number; pass --divide-by and --offset"
            stated[int(band)] = offset
    if stated:
        lacking = [name for number, name in enumerate(BANDS) if number not in stated and name != "B10"]
        return (stated, None) if not lacking else ({}, f"{path} states no {tag} for {lacking[0]}; pass --divide-by and --offset")
    baseline = number_of(words.get("PROCESSING_BASELINE"))
    if baseline is None:
        return {}, f"{path} states neither a processing baseline nor {tag}; pass --divide-by and --offset"
    if baseline >= FIRST_OFFSETS:
        return {}, f"{path} is of processing baseline {baseline:05.2f} and states no {tag}; pass --divide-by and --offset"
    return dict.fromkeys(range(len(BANDS)), 0.0), None


def nodata_of(root):
    """The stored value that means nodata: 0 unless the metadata name another one."""
    for element in root.iter():
        if tag_of(element) == "Special_Values":
            found = {tag_of(child): (child.text or "").strip() for child in element}
            if found.get("SPECIAL_VALUE_TEXT") == "NODATA" and (value := number_of(found.get("SPECIAL_VALUE_INDEX"))) is not None:
                return value
    return 0.0


def wavelengths_of(root):
    """{band: nm of its middle} as the metadata state it."""
    found = {}
    for element in root.iter():
        if tag_of(element) == "Spectral_Information":
            name = re.fullmatch(r"B([0-9]{1,2})(A?)", element.get("physicalBand", ""))
            centre = next((number_of(e.text) for e in element.iter() if tag_of(e) == "CENTRAL"), None)
            if name and centre:
                found[f"B{name[1]}A" if name[2] else f"B{int(name[1]):02d}"] = centre
    return found


def clouds_of(package, level, prefix, finest, images):
    """(CloudLayer or None, why there is none)."""
    if level == "L2A":
        if "SCL" in finest:
            return CloudLayer("scl", package.place(inside(prefix, finest["SCL"][1]))), ""
        return None, "it has no scene classification (SCL)"
    granule = "/".join(part for part in (prefix, *images[0].split("/")[:2]) if part)
    for form, file in (("msk_classi", "MSK_CLASSI_B00.jp2"), ("msk_clouds", "MSK_CLOUDS_B00.gml")):  # from baseline 04.00 on; before it
        if (name := f"{granule}/QI_DATA/{file}") in package.names:
            return CloudLayer(form, package.place(name)), ""
    return None, "it has neither MSK_CLASSI_B00.jp2 nor MSK_CLOUDS_B00.gml"
